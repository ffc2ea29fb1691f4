"""Teaches new input rows, and the first layers, the hidden states that the original model has with its old tokens.

A new row is that of its last old token, plus a linear map of what is known about its old tokens, plus a change of its own.
Rows and first layers learn to give, where a new token ends, the hidden states that the original model has there with the old
tokenization; on guard text, which contains no new token, the layers learn to leave the states as they are. All later layers
stay as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from zhllama.errors import InputError
from zhllama.io.torch import load_torch
from zhllama.model.first_layers import FirstLayers, bf16_products
from zhllama.model.lessons import Lessons
from zhllama.model.row_init import moments
from zhllama.model.student import GuardText, Student, Target

if TYPE_CHECKING:
    import torch

LAYERS = 8  # taught by default: the best measured on SmolLM2's 30 (docs/model.md)
ROWS_DEPTH = 4  # layers whose states the rows alone learn to give
FEATURE_LAYERS = (1, 2, 4)
HELD_OUT = 8  # lessons on which the error is measured
TEXTS = 4  # read at once by the original model
BATCH = 512  # new tokens whose old ones are read at once
EVERY = 60.0  # seconds between checkpoints, or WRITING times the seconds that one takes
WRITING = 20.0
CHECKPOINT = "checkpoint.pt"


class Progress(Protocol):
    """What is told while rows are taught: a stage by name, and the steps of it that are done."""

    def __call__(self, step: float = 1) -> None:
        """Advance the stage by `step`."""

    def stage(self, name: str, total: float | None = None, unit: str = "share", done: int = 0) -> None:
        """Begin a stage, `done` steps of which were done by an earlier start."""


class NoProgress:
    """Tells nothing."""

    def __call__(self, step: float = 1) -> None:
        """Tell nothing."""

    def stage(self, name: str, total: float | None = None, unit: str = "share", done: int = 0) -> None:
        """Tell nothing."""


@dataclass(frozen=True)
class Teaching:
    """Settings. `layers`: how many of the first layers learn, 0 for rows alone, None for the default."""

    layers: int | None = None
    steps: int = 120
    pieces: int = 3  # pieces of text in a step
    seed: int = 0

    def learning(self, layers: int) -> int:
        """The number of layers that learn, of a model with `layers`."""
        return min(LAYERS, layers // 2) if self.layers is None else self.layers

    def depth(self, layers: int) -> int:
        """The layer after which hidden states are compared."""
        return self.learning(layers) or min(ROWS_DEPTH, layers - 1)


@dataclass(frozen=True)
class TaughtRows:
    """New input rows [n, width], and the error at new boundaries in held-out text before and after.

    The error is the mean square of the difference as a share of the variance of the states.
    """

    rows: "torch.Tensor"
    before: float
    after: float


def teach(
    first: FirstLayers,
    embedding: "torch.Tensor",
    old_tokens: Sequence[Sequence[int]],
    begin: int | None,
    lessons: Lessons,
    parameters: "Sequence[torch.nn.Parameter]",
    settings: Teaching,
    partial: Path,
    progress: Progress,
) -> TaughtRows:
    """Teach rows and `parameters`, those of the first layers, which change in place; float32.

    A checkpoint in the folder `partial` is continued if it is one of equal lessons and settings.
    """
    progress.stage("reading with the original", len(lessons.taught) + len(lessons.guard), "texts")
    targets, guards = _original(first, embedding, lessons, progress)
    held, taught = targets[:HELD_OUT], targets[HELD_OUT:] or targets
    spread = _spread(targets)
    start = _start(embedding, old_tokens)
    features = _features(first, embedding, old_tokens, begin)
    student = Student(first, embedding, start, features, parameters, spread, settings.steps)
    before = student.error(held)
    key = _key(settings, lessons, embedding)
    saved = load_state(partial / CHECKPOINT, key)
    if saved is not None:
        student.restore(saved)
    progress.stage("teaching", settings.steps, "steps", student.done)
    written, cost = monotonic(), 0.0
    order = _order(len(taught), settings)
    for number, places in enumerate(order):
        if number < student.done:
            continue
        student.step([taught[place] for place in places], guards[number % len(guards)] if guards else None)
        progress(1)
        if monotonic() - written > max(EVERY, WRITING * cost) or student.done == settings.steps:
            began = monotonic()
            save_state(partial / CHECKPOINT, {"key": key, **student.state()})
            written = monotonic()
            cost = written - began
    return TaughtRows(student.rows(), before, student.error(held))


def _order(count: int, settings: Teaching) -> Iterator[list[int]]:
    """The lessons of each step, again and again."""
    at = 0
    for _ in range(settings.steps):
        yield [(at + i) % count for i in range(settings.pieces)]
        at += settings.pieces


def _original(
    first: FirstLayers, embedding: "torch.Tensor", lessons: Lessons, progress: Progress
) -> tuple[list[Target], list[GuardText]]:
    """The states of the original model."""
    targets, guards = [], []
    for at in range(0, len(lessons.taught), TEXTS):
        some = lessons.taught[at : at + TEXTS]
        states = _read(first, embedding, [lesson.old for lesson in some])[first.depth]
        for lesson, known in zip(some, states, strict=True):
            targets.append(Target(lesson, known[lesson.at_old].float().clone()))
            progress(1)
    for ids in lessons.guard:
        guards.append(GuardText(ids, _read(first, embedding, [ids])[first.depth][0, 1:].float().clone()))
        progress(1)
    return targets, guards


def _read(
    first: FirstLayers, embedding: "torch.Tensor", texts: Sequence[Sequence[int]], also: Sequence[int] = ()
) -> "dict[int, torch.Tensor]":
    import torch

    width = max(map(len, texts))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in texts])
    with torch.no_grad(), bf16_products():
        return first.states(embedding[ids].float(), also)


def _spread(targets: Sequence[Target]) -> "torch.Tensor":
    """The standard deviation of each column of the original states [width]."""
    import torch

    states = torch.cat([target.states for target in targets])
    spread = states.std(0)
    return spread.clamp(min=float(spread.mean()) * 1e-3)


def _start(embedding: "torch.Tensor", old_tokens: Sequence[Sequence[int]]) -> "torch.Tensor":
    """The row of each new token's last old token; the mean of all rows for a special token."""
    import torch

    rows = embedding[torch.tensor([tokens[-1] if tokens else 0 for tokens in old_tokens])].float()
    empty = [number for number, tokens in enumerate(old_tokens) if not tokens]
    if empty:
        rows[empty] = moments(embedding)[0]
    return rows


def _features(
    first: FirstLayers, embedding: "torch.Tensor", old_tokens: Sequence[Sequence[int]], begin: int | None
) -> "torch.Tensor":
    """What is known of each new token [n, features]: the rows of its old tokens, and states at the last of them read alone.

    Each feature has the mean 0 and the spread of the rows; all are 0 for a special token.
    """
    import torch

    layers = [number for number in FEATURE_LAYERS if number <= first.depth]
    head = [] if begin is None else [begin]
    numbers = sorted((n for n, tokens in enumerate(old_tokens) if tokens), key=lambda n: len(old_tokens[n]))
    found: list[torch.Tensor] = []
    for at in range(0, len(numbers), BATCH):
        some = numbers[at : at + BATCH]
        states = _read(first, embedding, [[*head, *old_tokens[n]] for n in some], layers)
        last = [len(head) + len(old_tokens[n]) - 1 for n in some]
        rows = [embedding[torch.tensor(old_tokens[n])].float() for n in some]
        parts = [
            torch.stack([one[-1] for one in rows]),
            torch.stack([one.mean(0) for one in rows]),
            torch.stack([one[0] for one in rows]),
            *(states[layer][range(len(some)), last].float() for layer in layers),
        ]
        found.append(torch.cat(parts, 1))
    known = torch.cat(found)
    known = (known - known.mean(0)) / known.std(0).clamp(min=1e-6) * embedding.float().std()
    features = torch.zeros(len(old_tokens), known.shape[1], dtype=torch.float16)
    features[numbers] = known.half()
    return features


def _key(settings: Teaching, lessons: Lessons, embedding: "torch.Tensor") -> str:
    """Identifies what a checkpoint belongs to."""
    some = embedding[:: max(1, len(embedding) // 64)].float().sum(1).tolist()
    return sha256(repr((settings, lessons, tuple(embedding.shape), some)).encode()).hexdigest()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state as a whole file."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load_state(path: Path, key: str) -> dict[str, Any] | None:
    """The state in a file, if it is whole and belongs to `key`."""
    if not path.is_file():
        return None
    try:
        state = load_torch(path, "Start over")
    except InputError:  # cut off
        return None
    return state if isinstance(state, dict) and state.get("key") == key else None
