"""Draws the texts by which the first layers learn a larger vocabulary: pieces in both tokenizations, and guard text."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from zhllama.model.row_init_distilled import align_tokenizations
from zhllama.vocab.any_tokenizer import AnyTokenizer

CHARACTERS = 300  # of one piece of text
LONGEST = 1024  # old ids of one piece
TRIED = 20  # pieces tokenized for each one that is wanted


@dataclass(frozen=True)
class Lesson:
    """A piece of text in both tokenizations, and the positions at which both have read the same bytes."""

    old: list[int]
    new: list[int]
    at_old: list[int]
    at_new: list[int]


@dataclass(frozen=True)
class Lessons:
    """The pieces that contain new tokens, and the ids of pieces of guard text, which contain none."""

    taught: list[Lesson]
    guard: list[list[int]]


def draw_lessons(
    old: AnyTokenizer,
    new: AnyTokenizer,
    begin: int | None,
    texts: Sequence[str],
    count: int,
    guards: int,
    longest: int,
    seed: int,
) -> Lessons:
    """Draw `count` pieces that contain new tokens from `texts`, and up to `guards` that contain none, with a seed.

    `begin` is the id before every piece, if there is one; `longest` the most ids that the model reads.
    """
    places = [
        (number, at)
        for number, text in enumerate(texts)
        for at in range(0, max(1, len(text) - CHARACTERS // 2), CHARACTERS)
    ]
    Random(seed).shuffle(places)
    lessons = Lessons([], [])
    for number, at in places[: TRIED * count]:
        if len(lessons.taught) == count and len(lessons.guard) == guards:
            break
        piece = texts[number][at : at + CHARACTERS]
        lesson = lesson_of(old, new, begin, piece, min(LONGEST, longest))
        if max(lesson.new, default=0) < old.size:
            if len(lesson.old) > 1 and len(lessons.guard) < guards:
                lessons.guard.append(lesson.old)
        elif len(lessons.taught) < count and lesson.at_new:
            lessons.taught.append(lesson)
    return lessons


def lesson_of(
    old: AnyTokenizer, new: AnyTokenizer, begin: int | None, text: str, longest: int = LONGEST
) -> Lesson:
    """A text after `begin`. The first id has no position: it has read nothing, or the model treats it unlike others."""
    both = align_tokenizations(old, new, text)
    head = [] if begin is None else [begin]
    positions = [
        (a + len(head), b + len(head)) for a, b in both.positions if a + len(head) < longest and b + len(head)
    ]
    ends = positions[-1] if positions else (0, 0)
    old_ids, new_ids = [*head, *both.old], [*head, *both.new]
    return Lesson(
        old_ids[: ends[0] + 1], new_ids[: ends[1] + 1], [a for a, _ in positions], [b for _, b in positions]
    )


def guard_pieces(old: AnyTokenizer, begin: int | None, texts: Sequence[str], longest: int) -> list[list[int]]:
    """The ids of all pieces of texts."""
    pieces = [text[at : at + CHARACTERS] for text in texts for at in range(0, len(text), CHARACTERS)]
    head = [] if begin is None else [begin]
    ids = [[*head, *piece][: min(LONGEST, longest)] for piece in old.encode(pieces)]
    return [piece for piece in ids if len(piece) > 1]
