"""One candidate against 52,000 kept instructions, as gen-zh's near-duplicate filter meets it, beside rouge_score.

rouge_score gets our tokens, cut beforehand, so that the comparison is of the search alone and in its favour.
"""

import json
import lzma
import os
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from rouge_score import rouge_scorer

from benches import Row, tell, test_data
from zhllama.generation.near_duplicates import NearDuplicateIndex, tokens

KEPT, CANDIDATES, MILLION = 52_000, 200, 1_000_000
ALPACA = ("sft_alpaca_zh_demo", "sft_alpaca_zh_hikariming", "sft_alpaca_zh_carbonz0", "sft_zh_supplement")


def run(rounds: int) -> list[Row]:
    """Milliseconds a candidate at 52,000 kept."""
    real = instructions()
    if not real:
        return [Row("similarity", str(KEPT), "rouge_score", skipped=f"no instructions at {test_data()}")]
    stream = like(real, random.Random(0))
    pool, kept = NearDuplicateIndex(), []
    for _ in range(KEPT):
        kept.append(next(stream))
        pool.add(kept[-1])
    candidates = [next(stream) for _ in range(CANDIDATES)]
    cut = [tokens(text) for text in kept]
    tell(f"similarity: {len(real):,} real instructions, {KEPT:,} kept")
    return [compare(pool, cut, candidates, rounds)]


def compare(pool: NearDuplicateIndex, cut: list[list[str]], candidates: list[str], rounds: int) -> Row:
    """CPU milliseconds a candidate, in turn; ours takes all candidates a round, since rouge_score is slower on one."""
    ours, theirs, equal = [], [], True
    for number in range(rounds):
        began = time.process_time()
        found = [pool.find(candidate) for candidate in candidates]
        ours.append((time.process_time() - began) * 1e3 / len(candidates))
        candidate = tokens(candidates[number % len(candidates)])
        began = time.process_time()
        best = max(rouge_scorer._score_lcs(other, candidate).fmeasure for other in cut)
        theirs.append((time.process_time() - began) * 1e3)
        near = found[number % len(candidates)]
        equal &= (near.score if near else None) == (best if best >= pool.threshold else None)
        tell(f"similarity: {ours[-1]:.2f} ms and {theirs[-1]:,.0f} ms, equal {equal}")
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    spread = statistics.median(ratios), ratios[0], ratios[-1]
    return Row(
        "similarity",
        str(KEPT),
        "rouge_score",
        statistics.median(ours),
        statistics.median(theirs),
        "ms",
        spread,
        equal,
    )


def memory() -> int:
    """Bytes of a pool of a million."""
    stream = like(instructions(), random.Random(0))
    pool = NearDuplicateIndex()
    before = resident()
    for _ in range(MILLION):
        pool.add(next(stream))
    return resident() - before


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def instructions() -> list[str]:
    """All Chinese instructions of the test data."""
    found: dict[str, None] = {}
    for name in ALPACA:
        path = test_data() / "instructions" / f"{name}.jsonl.xz"
        if path.is_file():
            with lzma.open(path, "rt", encoding="utf-8") as lines:
                found.update(dict.fromkeys(str(json.loads(line).get("instruction", "")) for line in lines))
    return [text for text in found if text.strip()]


def like(real: list[str], chance: random.Random) -> Iterator[str]:
    """The real instructions, then as many more as are wanted: halves of two of them joined."""
    yield from chance.sample(real, len(real))
    while True:
        one, other = chance.choice(real), chance.choice(real)
        yield one[: len(one) // 2 + chance.randrange(3)] + other[len(other) // 2 :]
