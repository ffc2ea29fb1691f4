"""Searching one candidate among 52,000 accepted instructions, as in gen-zh's near-duplicate filter, against rouge_score.

rouge_score gets our precomputed tokens, so that only the search is compared, in its favor.
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

from benches import Row, log, test_data
from zhllama.generation.near_duplicates import NearDuplicateIndex, tokens

ACCEPTED, CANDIDATES, MILLION = 52_000, 200, 1_000_000
ALPACA = ("sft_alpaca_zh_demo", "sft_alpaca_zh_hikariming", "sft_alpaca_zh_carbonz0", "sft_zh_supplement")


def run(rounds: int) -> list[Row]:
    """CPU milliseconds per candidate with 52,000 accepted instructions."""
    real = instructions()
    if not real:
        return [Row("similarity", str(ACCEPTED), "rouge_score", skipped=f"no instructions at {test_data()}")]
    stream = similar_instructions(real, random.Random(0))
    pool, accepted = NearDuplicateIndex(), []
    for _ in range(ACCEPTED):
        accepted.append(next(stream))
        pool.add(accepted[-1])
    candidates = [next(stream) for _ in range(CANDIDATES)]
    cut = [tokens(text) for text in accepted]
    log(f"similarity: {len(real):,} real instructions, {ACCEPTED:,} accepted")
    return [compare(pool, cut, candidates, rounds)]


def compare(pool: NearDuplicateIndex, cut: list[list[str]], candidates: list[str], rounds: int) -> Row:
    """CPU milliseconds per candidate, alternating; ours runs all candidates per round, rouge_score only one."""
    ours, theirs, equal = [], [], True
    for number in range(rounds):
        start = time.process_time()
        matches = [pool.find(candidate) for candidate in candidates]
        ours.append((time.process_time() - start) * 1e3 / len(candidates))
        candidate = tokens(candidates[number % len(candidates)])
        start = time.process_time()
        best = max(rouge_scorer._score_lcs(other, candidate).fmeasure for other in cut)
        theirs.append((time.process_time() - start) * 1e3)
        near = matches[number % len(candidates)]
        equal &= (near.score if near else None) == (best if best >= pool.threshold else None)
        log(f"similarity: {ours[-1]:.2f} ms and {theirs[-1]:,.0f} ms, equal {equal}")
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    spread = statistics.median(ratios), ratios[0], ratios[-1]
    return Row(
        "similarity",
        str(ACCEPTED),
        "rouge_score",
        statistics.median(ours),
        statistics.median(theirs),
        "ms",
        spread,
        equal,
    )


def memory() -> int:
    """Bytes of an index of a million instructions."""
    stream = similar_instructions(instructions(), random.Random(0))
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
    unique: dict[str, None] = {}
    for name in ALPACA:
        path = test_data() / "instructions" / f"{name}.jsonl.xz"
        if path.is_file():
            with lzma.open(path, "rt", encoding="utf-8") as lines:
                unique.update(dict.fromkeys(str(json.loads(line).get("instruction", "")) for line in lines))
    return [text for text in unique if text.strip()]


def similar_instructions(real: list[str], rng: random.Random) -> Iterator[str]:
    """The real instructions, then endless others that join halves of two of them."""
    yield from rng.sample(real, len(real))
    while True:
        one, other = rng.choice(real), rng.choice(real)
        yield one[: len(one) // 2 + rng.randrange(3)] + other[len(other) // 2 :]
