"""The world that mutations are tried on, of every format that a command reads, and the commands that read it."""

import bz2
import gzip
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

import zstandard

from tests.faults import world
from tests.model_toys import CHINESE, ENGLISH, base_vocabulary, line, write_model

VOLATILE = world.VOLATILE
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


@dataclass(frozen=True)
class Mutable:
    """A command line, the files that it reads, and the runs among those whose products must not differ in silence.

    `copied` is a run folder that becomes its --out; `unrecorded` are files of runs whose contents no hash covers;
    `may_fail`: it reports a finding by exit 1. `weight` is how often it is chosen.
    """

    words: tuple[str, ...]
    reads: tuple[str, ...]
    runs: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    copied: str = ""
    said: str = ""
    out: bool = True
    printed: bool = False
    may_fail: bool = False
    weight: int = 4

    def line(self, out: Path) -> list[str]:
        return [
            *self.words,
            *(("--out", str(out)) if self.out else ()),
            *(("--resume",) if self.copied else ()),
        ]


TEXTS = "texts/*"
STEPS = ("--steps", "2", "--batch", "2", "--micro-batch", "2", "--log-every", "1", "--precision", "fp32")
RESUMED = ("pretrain", "--stage", "2", "--model", "base", "--rows", "all", "--text", "zh=text.txt", "--block-size", "64", "--steps", "6",
           "--batch", "2", "--micro-batch", "2", "--save-every", "2", "--eval-every", "3", "--log-every", "1", "--precision", "fp32",
           "--lora-dropout", "0", "--cache", "cache", *world.FEW)  # fmt: skip
COMMANDS = {
    "train-vocab": Mutable(("train-vocab", "texts", "--size", "900"), (TEXTS,), weight=2),
    "merge-vocab": Mutable(("merge-vocab", "--base", "base", "--zh", "words.txt", "--recipe", "safe", "--fuzz", "20"), ("base/tok*", "words.txt")),
    "merge-vocab, model": Mutable(("merge-vocab", "--base", "vocab/base.model", "--zh", "zh/zh.model", "--recipe", "safe", "--fuzz", "20"), ("vocab/base.model", "zh/*"), ("zh",)),
    "merge-vocab, bytes": Mutable(("merge-vocab", "--base", "byte", "--zh", "words.txt", "--recipe", "safe", "--fuzz", "20"), ("byte/*", "words.txt")),
    "merge-vocab, recipe": Mutable(("merge-vocab", "--config", "recipe.yaml"), ("recipe.yaml",)),
    "audit": Mutable(("audit", "merged", "--base", "base", "--text", "text.txt", "--fuzz", "20", "--json"), ("merged/*", "base/tok*", "text.txt"), ("merged",), out=False, printed=True, may_fail=True),
    "report": Mutable(("report", "base", "merged", "byte", "vocab/t.gguf", "vocab/tekken.json", "--text", "zh=text.txt"), ("base/tok*", "merged/*", "byte/*", "vocab/t*"), ("merged",)),
    "report, texts": Mutable(("report", "base", "--text", "a=texts"), (TEXTS,)),
    "advise": Mutable(("advise", "--base", "base", "--text", "text.txt", "--most", "1000"), ("base/tok*", "text.txt"), weight=1),
    "corpus clean": Mutable(("corpus", "clean", "texts", "--workers", "1"), (TEXTS,), weight=1),
    "pack": Mutable(("pack", "--text", "text.txt", "--tokenizer", "base", "--block-size", "64"), ("text.txt", "base/tok*")),
    "pack, run": Mutable(("pack", "--text", "cleaned", "--tokenizer", "merged", "--block-size", "64"), ("cleaned/**/*", "merged/*"), ("cleaned", "merged")),
    "pack, texts": Mutable(("pack", "--text", "texts", "--tokenizer", "base", "--block-size", "64"), (TEXTS,)),
    "grow": Mutable(("grow", "--model", "base", "--tokenizer", "merged"), ("base/*", "merged/*"), ("merged",)),
    "grow, shards": Mutable(("grow", "--model", "sharded", "--tokenizer", "merged"), ("sharded/*",)),
    "pretrain": Mutable(("pretrain", "--stage", "2", "--model", "base", "--rows", "all", "--text", "zh=text.txt", "--block-size", "64", *world.FEW, *STEPS), ("base/*", "text.txt"), weight=1),
    "pretrain, resumed": Mutable(RESUMED, ("half/*", "half/checkpoints/*/*", "cache/*/*"), ("half", "cache"), copied="half", weight=1),
    "pretrain, plan": Mutable(("pretrain", "--stage", "1", "--model", "sharded", "--text", "zh=text.txt", "--rows", "all", "--dry-run"), ("sharded/*",), out=False, weight=2),
    "sft": Mutable(("sft", "--model", "base", "--data", "rows.json", "--max-length", "256", *STEPS), ("base/*", "rows.json"), weight=1),
    "export": Mutable(("export", "trained"), ("trained/*", "trained/*/*", "base/*"), ("trained",), ("trained/log.jsonl", "trained/report.html", "trained/figures.json")),
    "export, gguf": Mutable(("export", "grown", "--gguf", "f16"), ("grown/*",), ("grown",), weight=2),
    "eval": Mutable(("eval", "base", "--text", "text.txt", "--limit", "300"), ("base/*", "text.txt"), out=False),
    "eval, run": Mutable(("eval", "trained", "--text", "text.txt", "--limit", "300"), ("trained/*", "trained/*/*", "base/*"), ("trained",), ("trained/log.jsonl", "trained/report.html", "trained/figures.json"), out=False, printed=True, weight=2),
    "sharegpt clean": Mutable(("sharegpt", "clean", "talks.json", "--no-near"), ("talks.json",)),
    "sharegpt split": Mutable(("sharegpt", "split", "talks.json", "--tokenizer", "base", "--max-length", "64"), ("talks.json", "base/tok*"), weight=3),
    "sharegpt split, packed": Mutable(("sharegpt", "split", "talks.jsonl.gz", "talks.jsonl.xz", "talks.jsonl.zst", "--tokenizer", "byte", "--max-length", "64"), ("talks.jsonl.*", "byte/*"), weight=2),
    "sharegpt split, run": Mutable(("sharegpt", "split", "generated", "--tokenizer", "base", "--max-length", "64"), ("generated/*",), ("generated",)),
    "answer": Mutable(("answer", "sharded", "--questions", "questions.jsonl", "--reply-tokens", "2"), ("sharded/*", "questions.jsonl"), weight=3),
    "judge": Mutable(("judge", "--answers", "one.jsonl", "--answers", "answers"), ("one.jsonl", "answers/*"), ("answers",), ("one.jsonl",)),
    "refilter": Mutable(("refilter", "generated", "--max-output", "3000"), ("generated/*",), ("generated",)),
    "lineage": Mutable(("lineage", "trained"), ("trained/*.*", "base/*"), out=False, weight=2),
    "run": Mutable(("run", "line.yaml", "--dry-run"), ("line.yaml",), out=False),
    "chat": Mutable(("chat", "sharded", "--greedy", "--max-tokens", "2"), ("sharded/*",), said="你好\n", out=False, weight=2),
}  # fmt: skip
RECIPE = "base: base\nzh: words.txt\nrecipe: safe\nfuzz: 20\nseed: 3\ncharacter_coverage: 0.99\npad: true\ncover: gb2312-1\n"
LINE = """about: a pipeline
out: pipeline
values:
  model: base
  text: text.txt
  steps: 2
steps:
  vocab: {command: merge-vocab, base: "${model}", zh: words.txt, recipe: safe, fuzz: 20}
  grown: {command: grow, model: "${model}", tokenizer: "${vocab.out}", init: mean}
  trained:
    command: pretrain
    stage: 1
    model: "${grown.out}"
    text:
      - "zh=${text}:9"
    rows: used
    steps: "${steps}"
    block_size: 64
  plain: {command: export, run: "${previous.out}"}
  bits: {command: eval, model: ["${model}", "${plain.out}"], text: ["${text}"]}
"""


def make(folder: Path) -> None:
    """The world of second starts, and beside it files of further formats and the runs that commands above read."""
    world.make(folder)
    write_texts(folder)
    write_tokenizers(folder)
    sharded = write_model(folder / "sharded", shard="200KB")
    settings = json.loads((sharded / "tokenizer_config.json").read_text(encoding="utf-8"))
    (sharded / "tokenizer_config.json").write_text(
        json.dumps({**settings, "chat_template": TEMPLATE}), encoding="utf-8"
    )
    (sharded / "special_tokens_map.json").write_text(
        '{"bos_token": "<s>", "eos_token": "</s>"}', encoding="utf-8"
    )
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "line.yaml").write_text(LINE, encoding="utf-8")
    asked = [{"id": n, "instruction": f"{CHINESE}{n}", "input": "", "category": "math"} for n in range(4)]
    (folder / "questions.jsonl").write_text(
        "".join(json.dumps(q, ensure_ascii=False) + "\n" for q in asked), encoding="utf-8"
    )
    for name, words in {
        "merged": COMMANDS["merge-vocab"].words, "zh": ("train-vocab", "text.txt", "--size", "900"), "cleaned": ("corpus", "clean", "text.txt"),
        "grown": ("grow", "--model", "base", "--tokenizer", "merged"), "answers": ("answer", "base", "--questions", "one.jsonl", "--reply-tokens", "2", "--template", "vicuna"),
    }.items():  # fmt: skip
        told = line(folder, *words, "--out", folder / name)
        assert told.code == 0, told.err
    _stop_halfway(folder)


def write_texts(folder: Path) -> None:
    """The beginning of text.txt in every format of texts, and talks.json packed."""
    story = (folder / "text.txt").read_text(encoding="utf-8")[:3000]
    lines = [text for text in story.splitlines() if text.strip()]
    rows = "".join(
        json.dumps({"text": text, "id": str(n)}, ensure_ascii=False) + "\n" for n, text in enumerate(lines)
    )
    texts = folder / "texts"
    texts.mkdir()
    for name, content in {
        "a.txt": story,
        "a.md": f"# {story}",
        "a.jsonl": rows,
        "a.tsv": "\n".join(f"{t}\t{t}" for t in lines),
    }.items():
        (texts / name).write_text(content, encoding="utf-8")
    (texts / "b.txt.gz").write_bytes(gzip.compress(story.encode(), mtime=0))
    (texts / "b.txt.xz").write_bytes(lzma.compress(story.encode()))
    (texts / "b.jsonl.zst").write_bytes(zstandard.compress(rows.encode()))
    (texts / "b.txt.bz2").write_bytes(bz2.compress(story.encode()))
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": lines, "n": list(range(len(lines)))}), texts / "a.parquet")
    talks = json.loads((folder / "talks.json").read_text(encoding="utf-8"))
    packed = "".join(json.dumps(talk, ensure_ascii=False) + "\n" for talk in talks).encode()
    (folder / "talks.jsonl.gz").write_bytes(gzip.compress(packed, mtime=0))
    (folder / "talks.jsonl.xz").write_bytes(lzma.compress(packed))
    (folder / "talks.jsonl.zst").write_bytes(zstandard.compress(packed))


def write_tokenizers(folder: Path) -> None:
    """A byte-level folder with its files of old and new form, a GGUF of a vocabulary alone, a tekken.json, a bare .model."""
    import gguf
    from tokenizers.implementations import ByteLevelBPETokenizer

    byte, vocab = folder / "byte", folder / "vocab"
    byte.mkdir()
    vocab.mkdir()
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        [(folder / "text.txt").read_text(encoding="utf-8"), ENGLISH * 3],
        vocab_size=500,
        special_tokens=["<|end|>"],
    )
    bpe.save_model(str(byte))
    bpe.save(str(byte / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "eos_token": "<|end|>",
        "bos_token": "<|end|>",
        "unk_token": "<|end|>",
        "model_max_length": 512,
    }
    (byte / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (byte / "special_tokens_map.json").write_text('{"eos_token": "<|end|>"}', encoding="utf-8")
    (byte / "added_tokens.json").write_text(
        json.dumps({"<|end|>": bpe.token_to_id("<|end|>")}), encoding="utf-8"
    )
    (vocab / "base.model").write_bytes((folder / "base" / "tokenizer.model").read_bytes())
    kinds = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "unused": 5, "byte": 6}
    pieces = base_vocabulary().pieces
    writer = gguf.GGUFWriter(vocab / "t.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([p.text for p in pieces])
    writer.add_token_scores([p.score for p in pieces])
    writer.add_token_types([kinds[p.kind] for p in pieces])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    from base64 import b64encode

    tokens = [bytes([n]) for n in range(256)] + [b"th", b"the", "中".encode()[:2], "中".encode()]
    tekken = {
        "config": {
            "pattern": r"[^\s]+|\s+",
            "num_vocab_tokens": 260,
            "default_vocab_size": 263,
            "default_num_special_tokens": 3,
            "version": "v3",
        },
        "vocab": [
            {"rank": n, "token_bytes": b64encode(token).decode(), "token_str": None}
            for n, token in enumerate(tokens)
        ],
        "special_tokens": [
            {"rank": n, "token_str": text, "is_control": True}
            for n, text in enumerate(("<unk>", "<s>", "</s>"))
        ],
    }
    (vocab / "tekken.json").write_text(json.dumps(tekken), encoding="utf-8")


def _stop_halfway(folder: Path) -> None:
    """A training run stopped between its last two checkpoints."""
    from transformers import Trainer

    step, count = Trainer.training_step, 0

    def stopping(*arguments: object, **named: object) -> object:
        nonlocal count
        count += 1
        if count > 5:
            raise KeyboardInterrupt
        return step(*arguments, **named)

    Trainer.training_step = stopping
    told = line(folder, *RESUMED, "--out", folder / "half")
    Trainer.training_step = step
    assert told.code == 130 and list((folder / "half" / "checkpoints").iterdir()), told.err
