"""A fair sample of any amount of text in bounded memory."""

import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

LONGEST = 4192  # bytes; SentencePiece drops longer lines without a word

_sentence_end = re.compile(r"(?<=[。！？；…!?;])(?![。！？；…!?;”’」』）])")


@dataclass(frozen=True)
class LineSample:
    """Lines drawn evenly from a text, in its order; sizes in bytes of UTF-8."""

    lines: list[str]
    size: int
    seen: int
    cut: int  # lines that were longer than LONGEST and were cut at sentence ends


def sample_lines(lines: Iterable[str], size: int, seed: int) -> LineSample:
    """Each line is drawn with equal chance, as many as fit into `size` bytes.

    Every line gets a random key and the smallest keys stay: a reservoir over bytes instead of lines.
    """
    random = Random(seed)
    kept: list[tuple[float, int, str, int]] = []  # (-key, place, line, bytes): the largest key is first to go
    held = seen = cut = 0
    for place, line in enumerate(lines):
        parts = list(shortened(line))
        cut += len(parts) > 1
        for part in parts:
            weight = len(part.encode("utf-8", "replace"))
            seen += weight
            key = random.random()
            if held + weight > size and kept and key >= -kept[0][0]:
                continue
            heapq.heappush(kept, (-key, place, part, weight))
            held += weight
            while held > size and len(kept) > 1:
                held -= heapq.heappop(kept)[3]
    kept.sort(key=lambda entry: entry[1])
    return LineSample([line for _, _, line, _ in kept], held, seen, cut)


def shortened(line: str) -> Iterator[str]:
    """The line itself, or parts of at most LONGEST bytes, cut at sentence ends where there are any."""
    if len(line) * 4 <= LONGEST or len(line.encode("utf-8", "replace")) <= LONGEST:
        yield line
        return
    part, room = "", LONGEST
    for sentence in _sentence_end.split(line):
        for piece in (sentence[i : i + LONGEST // 4] for i in range(0, len(sentence), LONGEST // 4)):
            weight = len(piece.encode("utf-8", "replace"))
            if weight > room and part:
                yield part
                part, room = "", LONGEST
            part += piece
            room -= weight
    if part:
        yield part
