"""Commands that read the same mutated file, whose verdicts must agree: what one refuses as damaged, no other may accept.

python -m tests.faults.agreement --seed 3 --runs 200                 a sweep; each disagreement is a line with what replays it
python -m tests.faults.agreement --seed 3 --only 17                  that mutation of that seed again
"""

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.faults.mutated_commands import Harness, Outcome
from tests.faults.mutated_world import Mutable, write_texts, write_tokenizers
from tests.model_toys import CHINESE, ENGLISH, larger_vocabulary, write_model, write_tokenizer
from zhllama.io.files import to_json
from zhllama.resources import shipped

WEIGHTS = {
    "grow": Mutable(("grow", "--model", "sharded", "--tokenizer", "bigger"), ()),
    "eval": Mutable(("eval", "sharded", "--text", "text.txt", "--limit", "300"), (), out=False),
    "answer": Mutable(
        (
            "answer",
            "sharded",
            "--questions",
            "questions.jsonl",
            "--reply-tokens",
            "2",
            "--template",
            "vicuna",
        ),
        (),
    ),
    "chat": Mutable(
        ("chat", "sharded", "--greedy", "--max-tokens", "2", "--template", "vicuna"),
        (),
        said="你好\n",
        out=False,
    ),
}
CONFIG = {
    **WEIGHTS,
    "pretrain": Mutable(("pretrain", "--stage", "1", "--model", "sharded", "--text", "zh=text.txt", "--rows", "all", "--dry-run"), (), out=False),
}  # fmt: skip


def _of_tokenizer(name: str) -> dict[str, Mutable]:
    return {
        "merge-vocab": Mutable(("merge-vocab", "--base", name, "--zh", "words.txt", "--recipe", "safe", "--fuzz", "20"), ()),
        "report": Mutable(("report", name, "--text", "zh=words.txt"), ()),
        "pack": Mutable(("pack", "--text", "text.txt", "--tokenizer", name, "--block-size", "64"), ()),
        "audit": Mutable(("audit", name, "--base", name, "--text", "words.txt", "--fuzz", "20"), (), out=False, may_fail=True),
        "sharegpt split": Mutable(("sharegpt", "split", "talks.json", "--tokenizer", name, "--max-length", "64"), ()),
    }  # fmt: skip


def _of_texts(name: str) -> dict[str, Mutable]:
    return {
        "train-vocab": Mutable(("train-vocab", name, "--size", "700"), ()),
        "report": Mutable(("report", "base", "--text", f"zh={name}"), ()),
        "pack": Mutable(("pack", "--text", name, "--tokenizer", "base", "--block-size", "64"), ()),
        "eval": Mutable(("eval", "base", "--text", name, "--limit", "300"), (), out=False),
    }


ROWS = {
    "sharegpt clean": Mutable(("sharegpt", "clean", "talks.json", "--no-near"), ()),
    "sharegpt split": Mutable(
        ("sharegpt", "split", "talks.json", "--tokenizer", "base", "--max-length", "64"), ()
    ),
}
ONE_STEP = (
    "--steps",
    "1",
    "--batch",
    "2",
    "--micro-batch",
    "2",
    "--precision",
    "fp32",
    "--max-length",
    "512",
)
TUNED = {**ROWS, "sft": Mutable(("sft", "--model", "base", "--data", "talks.json", *ONE_STEP), ())}
TEXTS = ("a.txt", "a.md", "a.jsonl", "a.tsv", "b.txt.gz", "b.txt.xz", "b.jsonl.zst", "b.txt.bz2", "a.parquet")


@dataclass(frozen=True)
class Group:
    """Files, and the commands each of which reads all of them."""

    files: tuple[str, ...]
    commands: dict[str, Mutable]
    weight: int


GROUPS = {
    "weights": Group(("sharded/model.safetensors.index.json", "sharded/*.safetensors"), WEIGHTS, 3),
    "config": Group(("sharded/config.json",), CONFIG, 2),
    "bytes": Group(("byte/tokenizer.json",), _of_tokenizer("byte"), 3),
    # The others of these commands do not read it.
    "settings": Group(("byte/tokenizer_config.json",), {k: v for k, v in _of_tokenizer("byte").items() if k in ("merge-vocab", "pack", "audit")}, 1),
    "sentencepiece": Group(("vocab/base.model",), {k: v for k, v in _of_tokenizer("vocab/base.model").items() if k != "sharegpt split"}, 2),
    "rows": Group(("talks.json",), ROWS, 2),
    "rows and sft": Group(("talks.json",), TUNED, 1),
    **{f"texts, {name}": Group((f"texts/{name}",), _of_texts(f"texts/{name}"), 1) for name in TEXTS},
}  # fmt: skip


@dataclass(frozen=True)
class Verdicts:
    """What each command made of one mutated file; `seed` and `number` make it again."""

    seed: int
    number: int
    file: str
    what: str
    outcomes: dict[str, Outcome]

    def disagreement(self) -> str:
        """The commands that accept the file and those that refuse it as damaged, or nothing where all agree."""
        refuse = {name: told for name, o in self.outcomes.items() if (told := self._refusal(o))}
        accept = [name for name, o in self.outcomes.items() if o.code == 0]
        if not refuse or not accept:
            return ""
        told = "; ".join(f"{name}: {told}" for name, told in refuse.items())
        return f"--seed {self.seed} --only {self.number}: {self.file}: {self.what}\n    accepted by {', '.join(accept)}\n    {told}"

    def _refusal(self, outcome: Outcome) -> str:
        """The error of a command that refuses the file, or nothing where it is refused for what the command needs of it."""
        if outcome.code == 0 or "zhllama: " not in outcome.err:
            return ""
        told = outcome.err.strip().splitlines()[-1].removeprefix("zhllama: ")
        return "" if re.search(NEEDS, told) else told


# What one command needs of a sound file and another does not.
NEEDS = r"^$"


def make(folder: Path) -> None:
    """Models, tokenizers, texts and rows: what the commands above read, without a run of any of them."""
    write_model(folder / "base")
    write_model(folder / "sharded", shard="200KB")
    write_tokenizer(larger_vocabulary(), folder / "bigger")
    story = shipped("corpora", "sample", "zh_story.txt").read_text(encoding="utf-8")
    (folder / "text.txt").write_text(story, encoding="utf-8")
    (folder / "words.txt").write_text("中国\n人工智能\n历史\n", encoding="utf-8")
    (folder / "questions.jsonl").write_text('{"id": 1, "instruction": "你好"}\n', encoding="utf-8")
    turns = [{"from": "human", "value": CHINESE}, {"from": "gpt", "value": ENGLISH}]
    talks = [
        {"id": str(n), "conversations": [*turns, {"from": "human", "value": str(n) * 9}, turns[1]]}
        for n in range(9)
    ]
    (folder / "talks.json").write_text(to_json(talks), encoding="utf-8")
    write_texts(folder)
    write_tokenizers(folder)


class Agreement:
    """A world in which every command of a group runs over the same mutated file."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.harness = Harness(folder)
        self.harness.prepare(make)
        for group in names:
            for name, command in GROUPS[group].commands.items():
                whole = self.harness.run(command)
                assert whole.code == 0 or command.may_fail, f"{name}: {whole.out}{whole.err}"
                self.harness.import_what_a_child_did()

    def verdicts(self, seed: int, number: int, names: Sequence[str]) -> Verdicts:
        """One mutated file of a group, and what all its commands make of it."""
        random = Random(f"{seed}/{number}")
        group = GROUPS[random.choices(names, [GROUPS[name].weight for name in names])[0]]
        found = [path for glob in group.files for path in sorted(self.harness.folder.glob(glob))]
        file = str(random.choice(found).relative_to(self.harness.folder))
        with self.harness.mutated(file, random) as what:
            outcomes = {name: self.harness.run(command) for name, command in group.commands.items()}
        return Verdicts(seed, number, file, what, outcomes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--only", type=int, help="this mutation alone")
    parser.add_argument(
        "--group", action="append", help="these groups alone (a seed then makes other mutations)"
    )
    parser.add_argument(
        "--limit", type=float, default=1e9, help="seconds after which no further mutation begins"
    )
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zhllama-agreement-") as folder:
        agreement = Agreement(Path(folder), given.group or list(GROUPS))
        print(f"prepared in {time.monotonic() - began:.0f} s", flush=True)
        began = time.monotonic()
        counts: Counter[str] = Counter()
        seconds: Counter[str] = Counter()
        disagreements = 0
        for number in [given.only] if given.only is not None else range(given.runs):
            found = agreement.verdicts(given.seed, number, given.group or list(GROUPS))
            counts[found.file] += 1
            for name, outcome in found.outcomes.items():
                seconds[name] += outcome.seconds
            if told := found.disagreement():
                disagreements += 1
                print(told, flush=True)
            if given.only is not None:
                print(*(f"{name}: {o.code} {o.out}{o.err}" for name, o in found.outcomes.items()), sep="\n")
            if time.monotonic() - began > given.limit:
                break
        print(f"files: {dict(counts)}")
        print(f"CPU seconds: { {name: round(spent, 1) for name, spent in seconds.items()} }")
        print(f"{counts.total()} mutated files of seed {given.seed}, {disagreements} with different verdicts")


if __name__ == "__main__":
    main()
