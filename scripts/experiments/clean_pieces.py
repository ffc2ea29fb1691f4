"""Plants 200 advertising phrases in a few documents and counts how many become pieces, with and without --min-documents.

    python scripts/experiments/clean_pieces.py [DATA]

DATA is the folder of test data (by default ../shared/data). Sorted by name, every other zh_*.txt.xz is for training,
characters per token are measured on the rest. Each phrase occurs 300 times in each of 3 documents.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from zhllama.characters import chinese_run
from zhllama.io.text import read_lines
from zhllama.vocab.counted_text import CountedText, DocumentLines
from zhllama.vocab.piece_filter import PieceFilter, plain
from zhllama.vocab.recipes import MergeOptions, merge_vocabulary
from zhllama.vocab.sample import sample_lines
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

PHRASES, DOCUMENTS, TIMES, ADD, MINIMUM = 200, 3, 300, 8_000, 5
SAMPLE, PER_DOMAIN = 12_000_000, 300_000  # bytes
WORDS = [
    "澳门",
    "银河",
    "葡京",
    "娱乐场",
    "棋牌",
    "彩金",
    "注册",
    "送钱",
    "开户",
    "代理",
    "高仿",
    "名表",
    "发票",
    "代开",
    "贷款",
    "无抵押",
    "放款",
    "加群",
    "客服",
    "热线",
    "网址",
    "收藏",
    "永久",
    "最新",
    "免费",
    "领取",
    "红包",
    "扫码",
    "兼职",
    "日结",
    "刷单",
    "返利",
    "秒到账",
    "减肥",
    "祖传",
    "秘方",
    "包治",
    "壮阳",
    "美女",
    "直播",
    "下载",
    "破解",
    "外挂",
    "私服",
    "六合彩",
    "特码",
    "内幕",
    "股票",
    "牛股",
    "涨停",
]


def phrases(random: Random) -> list[str]:
    """Phrases of three or four of the words, none of which contains another."""
    found: list[str] = []
    while len(found) < PHRASES:
        phrase = "".join(random.sample(WORDS, random.choice((3, 4))))
        if not any(phrase in other or other in phrase for other in found):
            found.append(phrase)
    return found


def trained(base: SentencePieceVocabulary, files: list[Path], minimum: int) -> Any:
    """What `merge-vocab --recipe continued` adds, trained on a sample of the files."""
    source = DocumentLines(files)
    sample = sample_lines(source, SAMPLE, 0, lambda: source.document)
    text = CountedText.sampled(sample.lines, sample.documents, source)
    options = MergeOptions("continued", add=ADD, pieces=PieceFilter(frozenset(), minimum, text))
    return merge_vocabulary(base, options, lines=sample.lines)


def figures(merge: Any, planted: list[str], texts: list[list[str]]) -> dict[str, Any]:
    """How many phrases are pieces, and mean characters per token of the validation files."""
    added = {plain(piece.text).strip() for piece in merge.added}
    new = range(merge.base.size, merge.vocabulary.size)
    means = []
    for lines in texts:
        tokens = sum(map(len, merge.vocabulary.encode(lines)))
        means.append(sum(map(len, lines)) / tokens)
    return {
        "phrases that are pieces": sum(phrase in added for phrase in planted),
        "pieces of 4 or more characters inside a phrase": sum(
            len(text) > 3 and any(text in phrase for phrase in planted) for text in added
        ),
        "dead": len(merge.vocabulary.dead(new)),
        "characters per token": round(sum(means) / len(means), 4),
    }


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ZHLLAMA_TEST_DATA", "../shared/data"))
    base = SentencePieceVocabulary.read(data / "llama" / "llama.model")
    files = [f for f in sorted((data / "text").glob("zh_*.txt.xz")) if "small" not in f.name]
    texts = [sample_lines(read_lines([f]), PER_DOMAIN, seed=0).lines for f in files[1::2]]
    planted, random = phrases(Random(0)), Random(1)
    with tempfile.TemporaryDirectory() as folder:
        advertising = Path(folder) / "advertising.jsonl"
        with advertising.open("w", encoding="utf-8") as file:
            for _ in range(DOCUMENTS):
                lines = planted * TIMES
                random.shuffle(lines)
                file.write(json.dumps({"text": "\n".join(lines)}, ensure_ascii=False) + "\n")
        found = {
            "without advertising": trained(base, files[::2], 1),
            "with it": trained(base, [*files[::2], advertising], 1),
            f"with it, --min-documents {MINIMUM}": trained(base, [*files[::2], advertising], MINIMUM),
        }
    assert chinese_run.sub("", "".join(planted)) == ""
    results = {name: figures(merge, planted, texts) for name, merge in found.items()}
    print(json.dumps(results, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
