"""A small world in one folder, and every command that writes a run, as a command line in it."""

from dataclasses import dataclass
from pathlib import Path

from tests.model_toys import (
    CHINESE,
    ENGLISH,
    base_vocabulary,
    larger_vocabulary,
    line,
    write_model,
    write_tokenizer,
)
from zhllama.io.files import sha256, to_json
from zhllama.resources import shipped

# Products that hold seconds, speeds or the folder's own name.
VOLATILE = {
    "sentencepiece.log",
    "adapter_config.json",
    "manifest.json",
    "config.yaml",
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
COMMANDS = {
    "train-vocab": Command(("train-vocab", "--size", "8000", "--cover", "gb2312-1")),
    "merge-vocab": Command(("merge-vocab", "--base", "base", "--zh", "words.txt", "--recipe", "safe")),
    "report": Command(("report", "base", "bigger", "--text", "zh=text.txt")),
    "corpus clean": Command(("corpus", "clean", "text.txt"), resumes=True),
    "grow": Command(("grow", "--model", "base", "--tokenizer", "bigger")),
    "pack": Command(("pack", "--text", "text.txt", "--tokenizer", "base", "--block-size", "64")),
    "pretrain": Command(
        ("pretrain", "--stage", "2", "--model", "base", "--rows", "all", "--text", "zh=text.txt",
         "--block-size", "64", *TRAINING), resumes=True,
    ),
    "sft": Command(("sft", "--model", "base", "--data", "rows.json", "--max-length", "256", *TRAINING), resumes=True),
    "export": Command(("export", "trained")),
    "sharegpt clean": Command(("sharegpt", "clean", "talks.json")),
    "sharegpt split": Command(("sharegpt", "split", "talks.json", "--tokenizer", "base", "--max-length", "64")),
}  # fmt: skip


def make(folder: Path) -> Path:
    """What the command lines above read."""
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
    told = line(folder, *COMMANDS["pretrain"].line(folder / "trained"))
    assert told.code == 0, told.err
    assert len(base_vocabulary().pieces) == 600
    return folder


def products(out: Path) -> dict[str, str]:
    """The hash of every product that two equal runs share."""
    return {
        str(path.relative_to(out)): sha256(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in VOLATILE
    }
