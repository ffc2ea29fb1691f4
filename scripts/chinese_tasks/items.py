"""One item of a task, and how items are ordered without chance: by a hash of their content."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any


@dataclass(frozen=True)
class Item:
    """Texts of equal length, of which the one at `answer` is right; `about` is what a reader checks it by."""

    id: str
    choices: tuple[str, ...]
    answer: int
    about: str
    source: str

    def row(self) -> dict[str, Any]:
        """The line of the task's file."""
        return {**asdict(self), "choices": list(self.choices)}


def key(*parts: object) -> str:
    """A place in an order that depends on the content alone: what is left out moves nothing else."""
    return sha256("\0".join(map(str, parts)).encode()).hexdigest()


def placed(
    task: str,
    number: int,
    right: str,
    wrong: Sequence[str],
    about: str,
    source: str,
    place: int | None = None,
) -> Item:
    """An item whose answer is at `place`; without one, at the places 0, 1, 2 ... in turn."""
    choices = sorted(wrong, key=lambda text: key(task, number, text))
    answer = (number if place is None else place) % (len(wrong) + 1)
    choices.insert(answer, right)
    return Item(f"{task}_{number + 1:03d}", tuple(choices), answer, about, source)
