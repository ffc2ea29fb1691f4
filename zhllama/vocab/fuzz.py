"""Seeded random strings of the kinds that have broken tokenizers, for parity proofs."""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from zhllama.characters import charset
from zhllama.vocab.vocabulary import SPACE


def fuzzed(pieces: Sequence[str], count: int, seed: int) -> Iterator[str]:
    """`count` strings made from `pieces` (added ones last), of each class below in turn; the seed determines them."""
    random = Random(seed)
    longer = [p for p in pieces if len(p) > 1]
    last = longer[-20000:] or pieces
    hanzi = charset("gb2312")

    def several(source: Callable[[], str], most: int) -> str:
        return "".join(source() for _ in range(random.randint(1, most)))

    def overlapping() -> str:
        # Two pieces that share a character.
        first = random.choice(last)
        fitting = [p for p in random.sample(last, min(200, len(last))) if p[0] == first[-1]]
        return first + (random.choice(fitting)[1:] if fitting else random.choice(last))

    def two_letters() -> str:
        alphabet = (
            random.choice(last)[:2] if random.random() < 0.7 else random.choice(("ab", "a ", "的了", "。，"))
        )
        return several(lambda: random.choice(alphabet), 24)

    def periodic() -> str:
        unit = several(lambda: random.choice(last), 3)
        return (unit * random.randint(2, 8))[random.randint(0, 2) :]

    classes: tuple[Callable[[], str], ...] = (
        lambda: several(lambda: random.choice(hanzi), 40),
        lambda: several(lambda: random.choice(pieces), 12),
        lambda: several(lambda: random.choice(last), 12),
        two_letters,
        lambda: several(lambda: random.choice((" " * random.randint(1, 40), random.choice(pieces))), 6),
        periodic,
        lambda: several(
            lambda: (
                chr(random.choice((0x1F300, 0x1F600, 0x1F900)) + random.randrange(80))
                + "\u200d" * random.randrange(2)
            ),
            8,
        ),
        lambda: several(lambda: chr(0x20000 + random.randrange(0xA6D0)), 10),
        lambda: several(
            lambda: random.choice(
                (chr(random.randrange(1, 32)), chr(127 + random.randrange(33)), random.choice(last))
            ),
            12,
        ),
        lambda: several(overlapping, 6),
        lambda: several(lambda: random.choice((SPACE, " ", random.choice(last), "1", "a", "，", "——")), 16),
        lambda: (
            several(lambda: random.choice(longer), 4)
            + " "
            + several(lambda: random.choice("0123456789.,:/-"), 12)
        ),
    )
    for number in range(count):
        yield classes[number % len(classes)]()
