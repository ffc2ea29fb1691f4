"""A small world in one folder, and every command that writes a run, as a command line in it."""

import atexit
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.align_toys import write_ranked
from tests.model_toys import (
    CHINESE,
    ENGLISH,
    base_vocabulary,
    larger_vocabulary,
    line,
    write_model,
    write_tokenizer,
)
from zhllama.io.files import json_line, sha256, to_json
from zhllama.resources import shipped

# Products that hold seconds, speeds or the folder's own name.
VOLATILE = {
    "sentencepiece.log",
    "adapter_config.json",
    "manifest.json",
    "config.yaml",
    "journal.jsonl",
    "log.jsonl",
    "figures.json",
    "report.html",
    "README.md",
    ".lock",
}


@dataclass(frozen=True)
class Command:
    """A command line without its --out, and whether it goes on with --resume."""

    words: tuple[str, ...]
    resumes: bool = False

    def line(self, out: Path, *steering: str) -> tuple[str, ...]:
        return (*self.words, "--out", str(out), *steering)

    def again(self, out: Path) -> tuple[str, ...]:
        """The command line after a fault: go on where that is possible, else start over."""
        return self.line(out, "--resume" if self.resumes else "--force")


TRAINING = ("--batch", "4", "--micro-batch", "4", "--steps", "6", "--save-every", "2", "--eval-every", "3",
            "--log-every", "1", "--precision", "fp32", "--lora-dropout", "0")  # fmt: skip
TUNING = ("--batch", "4", "--micro-batch", "4", "--steps", "4", "--save-every", "2", "--eval-every", "2",
          "--log-every", "1", "--precision", "fp32")  # fmt: skip
FEW = ("--eval-text", "zh=words.txt")  # in place of the shipped sample, which takes seconds
COMMANDS = {
    "train-vocab": Command(("train-vocab", "--size", "8000", "--cover", "gb2312-1")),
    "merge-vocab": Command(("merge-vocab", "--base", "base", "--zh", "words.txt", "--recipe", "safe")),
    "report": Command(("report", "base", "bigger", "--text", "zh=text.txt")),
    "corpus clean": Command(("corpus", "clean", "text.txt"), resumes=True),
    "grow": Command(("grow", "--model", "base", "--tokenizer", "bigger")),
    "pack": Command(("pack", "--text", "text.txt", "--tokenizer", "base", "--block-size", "64")),
    "pretrain": Command(
        ("pretrain", "--stage", "2", "--model", "base", "--rows", "all", "--text", "zh=text.txt", *FEW,
         "--block-size", "64", *TRAINING), resumes=True,
    ),
    "sft": Command(("sft", "--model", "base", "--data", "rows.json", "--max-length", "256", *TRAINING), resumes=True),
    "export": Command(("export", "trained")),
    "reward": Command(("reward", "--model", "base", "--pairs", "ranked.jsonl", "--max-length", "128", *TUNING), resumes=True),
    "dpo": Command(("dpo", "--model", "base", "--pairs", "ranked.jsonl", "--max-length", "128", *TUNING), resumes=True),
    "answer": Command(("answer", "base", "--questions", "rows.json", "--reply-tokens", "4"), resumes=True),
    "judge": Command(("judge", "--answers", "one.jsonl", "--answers", "two.jsonl"), resumes=True),
    "gen-zh": Command(("gen-zh", "--config", "server.yaml", "--n", "40"), resumes=True),
    "refilter": Command(("refilter", "generated", "--max-output", "3000")),
    "advise": Command(("advise", "--base", "base", "--text", "text.txt", "--most", "1000")),
    "corpus fetch": Command(("corpus", "fetch", "text.txt"), resumes=True),
    "sharegpt clean": Command(("sharegpt", "clean", "talks.json")),
    "sharegpt split": Command(("sharegpt", "split", "talks.json", "--tokenizer", "base", "--max-length", "64")),
}  # fmt: skip


def make(folder: Path) -> Path:
    """What the command lines above read."""
    make_inputs(folder)
    for name, out in (("pretrain", "trained"), ("gen-zh", "generated")):
        told = line(folder, *COMMANDS[name].line(folder / out))
        assert told.code == 0, told.err
    assert len(base_vocabulary().pieces) == 600
    return folder


def make_inputs(folder: Path) -> None:
    """What the command lines above read, without the runs."""
    write_model(folder / "base")
    write_tokenizer(larger_vocabulary(), folder / "bigger")
    story = shipped("corpora", "sample", "zh_story.txt").read_text(encoding="utf-8")
    (folder / "text.txt").write_text(story * 3, encoding="utf-8")
    (folder / "words.txt").write_text("中国\n人工智能\n历史\n", encoding="utf-8")
    rows = [{"instruction": f"{CHINESE}{n}", "input": "", "output": ENGLISH} for n in range(24)]
    (folder / "rows.json").write_text(to_json(rows), encoding="utf-8")
    said = [{"from": "human", "value": CHINESE * 3}, {"from": "gpt", "value": ENGLISH * 2}] * 4
    talks = [
        {"id": str(n), "conversations": [*said, {"from": "human", "value": str(n) * 9}, said[1]]}
        for n in range(9)
    ]
    (folder / "talks.json").write_text(to_json(talks), encoding="utf-8")
    write_ranked(folder / "ranked.jsonl", 40)
    for name, said in (("one", CHINESE), ("two", ENGLISH)):
        answers = [
            {"id": n, "instruction": f"{n}?", "reference": CHINESE, "answer": f"{said}{n}"} for n in range(24)
        ]
        (folder / f"{name}.jsonl").write_text("".join(map(json_line, answers)), encoding="utf-8")
    (folder / "server.yaml").write_text(f"base_url: [{serve()}]\nmodel: fake\n", encoding="utf-8")


def serve(**manner: object) -> str:
    """The address of a fake server that lives as long as this process."""
    server = Path(__file__).parent.parent / "fake_server.py"
    command = [sys.executable, "-I", str(server), json.dumps({"tasks": 3, **manner})]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    atexit.register(process.kill)
    assert process.stdout is not None
    return f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"


def products(out: Path) -> dict[str, str]:
    """The hash of every product that two equal runs share."""
    return {
        str(path.relative_to(out)): sha256(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in VOLATILE
    }
