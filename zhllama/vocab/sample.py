"""Draws a uniform sample of lines from any amount of text in bounded memory."""

import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

LONGEST = 4192  # bytes; SentencePiece silently drops longer lines

_sentence_end = re.compile(r"(?<=[。！？；…!?;])(?![。！？；…!?;”’」』）])")


@dataclass(frozen=True)
class LineSample:
    """Lines drawn evenly from a text, in its order; sizes in bytes of UTF-8."""

    lines: list[str]
    size: int
    seen: int
    cut: int  # lines that were longer than LONGEST and were cut at sentence ends
    documents: list[int]  # the number of each line's document


def sample_lines(
    lines: Iterable[str], size: int, seed: int, document: Callable[[], int] = lambda: 0
) -> LineSample:
    """Draw lines with equal probability, as many as fit into `size` bytes.

    `document` gives the number of the last line's document. Every line gets a random key, and the lines with the smallest keys are sampled: a reservoir measured in bytes.
    """
    random = Random(seed)
    # (-key, number, line, bytes, document): the line with the largest key is the first to be removed.
    reservoir: list[tuple[float, int, str, int, int]] = []
    sampled = seen = cut = 0
    for number, line in enumerate(lines):
        parts = list(shortened(line))
        cut += len(parts) > 1
        for part in parts:
            length = len(part.encode("utf-8", "replace"))
            seen += length
            key = random.random()
            if sampled + length > size and reservoir and key >= -reservoir[0][0]:
                continue
            heapq.heappush(reservoir, (-key, number, part, length, document()))
            sampled += length
            while sampled > size and len(reservoir) > 1:
                sampled -= heapq.heappop(reservoir)[3]
    reservoir.sort(key=lambda entry: entry[1])
    sampled_lines, documents = [entry[2] for entry in reservoir], [entry[4] for entry in reservoir]
    return LineSample(sampled_lines, sampled, seen, cut, documents)


def shortened(line: str) -> Iterator[str]:
    """The line itself, or parts of at most LONGEST bytes, split at sentence ends where possible."""
    if len(line) * 4 <= LONGEST or len(line.encode("utf-8", "replace")) <= LONGEST:
        yield line
        return
    part, room = "", LONGEST
    for sentence in _sentence_end.split(line):
        for piece in (sentence[i : i + LONGEST // 4] for i in range(0, len(sentence), LONGEST // 4)):
            length = len(piece.encode("utf-8", "replace"))
            if length > room and part:
                yield part
                part, room = "", LONGEST
            part += piece
            room -= length
    if part:
        yield part
