"""What the names in the documents stand for when their commands are run at toy size: small models, lists and texts."""

import json
import lzma
import random
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from tests.model_toys import (
    WORDS,
    base_vocabulary,
    config,
    larger_vocabulary,
    line,
    write_model,
    write_tokenizer,
)
from tests.test_byte_level_vocabulary import trained
from tests.test_foreign_adapters import write_adapter
from zhllama.model.gguf_export import write_gguf
from zhllama.resources import shipped
from zhllama.vocab.word_lists import base_file

TRADITIONAL = (
    "臺灣",
    "時間",
    "歷史",
    "學習",
    "電腦",
    "佢哋",
    "喺度",
    "食飯",
    "嘅嘢",
    "沒有",
    "開車",
    "國語",
    "圖書館",
    "電視",
)
ENGLISH = (
    "the",
    "history",
    "of",
    "a",
    "river",
    "is",
    "long",
    "and",
    "people",
    "live",
    "beside",
    "it",
    "today",
    "well",
)
LAW = ["不可抗力", "善意取得", "举证责任", "诉讼时效"]


def make_world(folder: Path) -> Path:
    """Fill `folder` with all that a document takes from its reader, under the names that the documents use."""
    zh, zhtw, en = (
        sentences(WORDS, ("", "。")),
        sentences(TRADITIONAL, ("", "。")),
        sentences(ENGLISH, (" ", "."), 100),
    )
    texts = {
        "zh.txt": zh, "en.txt": en, "english.txt": en, "held-out.txt": zh[:400], "raw/a.txt": zh, "raw/b.txt": en,
        "text/zh.txt": zh, "text/zh/a.txt": zh, "text/en/a.txt": en, "text/zhtw/a.txt": zhtw, "text/yue/a.txt": zhtw,
        "test/zh.txt": zh[:400], "test/en.txt": en[:400], "law.txt": "\n".join(LAW) + "\n", "zh-test.txt": zh[:200], "en-test.txt": en[:200], "medicine.txt": "心电图\n血常规\n",
        "instructions.json": json.dumps([task(word) for word in WORDS], ensure_ascii=False),
        "prices.yaml": "NAME: {input: 0.27, output: 1.10}\n",
    }  # fmt: skip
    tasks = [task(word) for word in WORDS]
    asked = [
        {"id": f"q{n}", "instruction": row["instruction"], "reference": row["output"]}
        for n, row in enumerate(tasks[:4])
    ]
    said = [{"from": "human", "value": tasks[0]["instruction"]}, {"from": "gpt", "value": tasks[0]["output"]}]
    ranked = [
        {"prompt": row["instruction"], "chosen": row["output"], "rejected": f"不知道{n}。"}
        for n, row in enumerate(tasks)
    ]
    labelled = [{**row, "kto_tag": n % 2 == 0} for n, row in enumerate(tasks)]
    rows = {
        "questions.jsonl": asked, "ranked.jsonl": ranked, "labelled.jsonl": labelled, "comparisons.json": ranked, "alpaca_zh.json": tasks,
        "talks.json": [{"id": "t", "conversations": said}], "sharegpt.jsonl": [{"id": "t", "conversations": said}],
        **{f"{name}.jsonl": [{**row, "answer": name} for row in asked] for name in ("before", "after", "other")},
    }  # fmt: skip
    texts |= {
        name: "\n".join(json.dumps(row, ensure_ascii=False) for row in some) for name, some in rows.items()
    }
    for name, content in texts.items():
        _place(folder / name, content.encode())
    packed = lzma.compress(zh.encode(), preset=0)
    for name in (
        "text/a.txt.xz",
        *(f"DATA/text/{n}.txt.xz" for n in ("en_gutenberg", "zh_small", "zhtw_wiki_drcd")),
    ):
        _place(folder / name, packed)
    for name in ("chinese_sp.model", "DATA/llama/chinese_sp.model"):
        _place(folder / name, larger_vocabulary().content)
    for name in ("llama.model", "DATA/llama/llama.model"):
        _place(folder / name, base_vocabulary().content)
    for name in ("LLAMA", "LLAMA-7B", "llama-7b"):
        write_model(folder / name)
    for seed, name in enumerate(("chinese-llama-plus-lora", "chinese-alpaca-plus-lora")):
        write_tokenizer(larger_vocabulary(), write_adapter(folder / name, folder / "LLAMA-7B", seed=seed))
    write_gguf(folder / "LLAMA", folder / "llama.gguf", "f16")
    write_tokenizer(
        larger_vocabulary(), write_model(folder / "chinese-llama-7b", rows=len(larger_vocabulary().pieces))
    )
    for told in (
        line(
            folder,
            "merge-vocab",
            "--base",
            "LLAMA",
            "--zh",
            "chinese_sp.model",
            "--recipe",
            "safe",
            "--fuzz",
            20,
            "--out",
            "vocab-7b",
        ),
        line(folder, "grow", "--model", "LLAMA", "--tokenizer", "vocab-7b", "--out", "grown-7b"),
    ):
        assert told.code == 0, told.err
    for name in ("corpora", "seeds_zh"):
        (folder / name).symlink_to(shipped(name))
    for name in ("SMOLLM2", "smollm2"):
        _byte_level(folder / name)
    for name, package, file in (("qwen.tiktoken", "dashscope", "resources/qwen.tiktoken"),):
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None
        (folder / name).symlink_to(Path(spec.origin).parent / file)
    (folder / "tekken.json").symlink_to(base_file(None).parent / "tekken_240911.json")
    page = (Path(__file__).parent.parent / "docs" / "reference" / "lines.md").read_text(encoding="utf-8")
    _place(folder / "trial.yaml", page.split("```yaml\n")[1].split("```")[0].encode())
    return folder


def task(word: str) -> dict[str, str]:
    """An instruction in Alpaca's form."""
    return {"instruction": f"用一句话介绍{word}。", "input": "", "output": f"这是关于{word}的一句话。"}


def sentences(words: Sequence[str], ends: tuple[str, str], count: int = 600) -> str:
    """Sentences of chance: long enough to train a few hundred pieces on, of few characters, each of which takes a piece."""
    dice = random.Random(0)
    return "\n\n".join(ends[0].join(dice.choices(words, k=7)) + ends[1] for _ in range(count))


def _place(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _byte_level(folder: Path) -> None:
    """A two-layer model over a byte-level vocabulary of SmolLM2's make."""
    from transformers import AutoModelForCausalLM

    tokenizer = trained("smollm2")
    torch.manual_seed(0)
    settings = {"bos_token_id": 0, "eos_token_id": 0}
    AutoModelForCausalLM.from_config(
        config(tokenizer.get_vocab_size(), tied=True, **settings)
    ).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **ends}  # type: ignore[dict-item]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
