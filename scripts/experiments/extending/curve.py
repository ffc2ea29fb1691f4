"""Trains one curve: a model on a mixture, measured at given CPU seconds, with checkpoints."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extending.texts import Texts, mixture
from zhllama.io.files import write_whole
from zhllama.io.processor import multiplies_bf16
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.lora import add_adapters, linear_names
from zhllama.training.options import Lora
from zhllama.training.packed_blocks import Example, examples
from zhllama.training.packing import concatenate
from zhllama.training.trainable_rows import arrange_rows, make_rows_trainable
from zhllama.training.validation import ValidationSet, collate, measure_bits

WARMUP = 20  # steps
LORA_RANK = 16
FASTER = 10  # multiple of the learning rate for new rows
CPU = torch.device("cpu")


def clock(device: torch.device) -> float:
    """Seconds of work so far: those of the process on a CPU, those of the wall once a GPU has finished."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class Settings:
    """Training settings of all curves of one base. `last`: the step at which the rate reaches 0; None keeps it constant."""

    batch: int = 2
    size: int = 512  # tokens of a block
    english: float = 0.2  # share of the bytes
    last: int | None = None
    validation_zh: int = 450  # characters measured of each validation passage
    validation_en: int = 500


@dataclass(frozen=True)
class Point:
    """A measurement at one step; counts refer to the training text so far, `seconds` are those of the x axis."""

    step: int
    seconds: float
    process_seconds: float
    tokens: int
    characters: int
    new_tokens: int  # tokens with added ids
    rows_seen: int  # added ids that occurred at least once
    loss: float | None  # mean nats per token since the last point
    zh_bits_per_character: float
    en_bits_per_byte: float
    other: dict[str, float] = field(default_factory=dict)  # bits per character by source never trained on

    @property
    def other_bits_per_character(self) -> float | None:
        """The mean over the sources, which have equal shares; None for curves that did not measure them."""
        return sum(self.other.values()) / len(self.other) if self.other else None


class Trained:
    """A model in training with its optimizer.

    learn: "all" parameters; "rows": all rows; "new": the new rows; "faster": all but the old rows, the new rows at FASTER times
    the rate; "input-faster": the same, but new rows of an untied head at the rate itself; "lora": adapters of all linear layers.
    """

    def __init__(
        self, model: Any, n_old: int, learn: str, rate: float, settings: Settings, device: torch.device = CPU
    ) -> None:
        model.to(device)
        size = model.config.vocab_size
        if learn in ("rows", "new"):
            model.requires_grad_(False)
        if learn == "lora":
            modules = linear_names(model.config)
            model = add_adapters(
                model, Lora(rank=LORA_RANK, alpha=2 * LORA_RANK, dropout=0.0, modules=modules)
            )
        else:
            frozen = n_old if learn in ("new", "faster", "input-faster") else 0
            make_rows_trainable(model, arrange_rows(range(frozen, size), size))
        self.model, self.rate, self.settings, self.device = model, rate, settings, device
        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in trainable]
        ends = {"faster": ".rows", "input-faster": "embed_tokens.rows"}.get(learn)
        fast = [p for name, p in trainable if ends and name.endswith(ends)]
        slow = [p for name, p in trainable if not ends or not name.endswith(ends)]
        self.groups = [(some, scale) for some, scale in ((slow, 1), (fast, FASTER)) if some]
        self.optimizer = torch.optim.AdamW(
            [{"params": some} for some, _ in self.groups],
            lr=rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        )
        self.autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=device.type != "cpu" or multiplies_bf16()
        )

    def step(self, number: int, batch: list[Example]) -> float:
        """Take one step, counted from 0; returns its mean loss per token."""
        self.model.train()
        for group, (_, scale) in zip(self.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = self.rate * scale * _factor(number, self.settings.last)
        with self.autocast:
            inputs = {name: part.to(self.device) for name, part in collate(batch).items()}
            # With a cache, transformers ignores document boundaries in position_ids.
            loss = self.model(**inputs, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def measured(self, sets: Sequence[ValidationSet]) -> tuple[float, float, dict[str, float]]:
        """Chinese bits per character, English bits per byte, and Chinese bits per character of each further set."""
        with self.autocast:
            zh, en, *others = (
                measure_bits(self.model, texts, self.settings.batch, self.device) for texts in sets
            )
        names = [s.label for s in sets[2:]]
        return (
            zh.per_character,
            en.per_byte,
            {n: round(o.per_character, 4) for n, o in zip(names, others, strict=True)},
        )


def _factor(step: int, last: int | None) -> float:
    """Linear warmup in WARMUP steps; if there is a last step, linear decay to 0 over the last two fifths."""
    up = min(1.0, (step + 1) / WARMUP)
    return up if last is None else max(0.0, min(up, (last - step) / (0.4 * last)))


@dataclass(frozen=True)
class Read:
    """One batch, and the characters of all documents that ended before its end."""

    blocks: list[Example]
    ids: NDArray[np.int64]
    characters: int


def batches(zh: list[str], en: list[str], tokens: DocumentTokenizer, settings: Settings) -> Iterator[Read]:
    """The endless text, packed for one vocabulary."""
    lengths: list[tuple[int, int]] = []  # tokens and characters of each document

    def documents() -> Iterator[NDArray[np.int32]]:
        endless = mixture(zh, en, settings.english)
        while True:
            some = list(itertools.islice(endless, 256))  # in parts, because the mixture is endless
            for text, ids in zip(some, tokens.documents(some), strict=True):
                lengths.append((len(ids), len(text)))
                yield ids

    packed = concatenate(documents(), settings.size, window=32 * settings.size)
    blocks = (block for some in packed for block in examples(some))
    filled = read = document = characters = 0
    while True:
        batch = list(itertools.islice(blocks, settings.batch))
        read += settings.batch * settings.size
        while document < len(lengths) and filled + lengths[document][0] <= read:
            filled += lengths[document][0]
            characters += lengths[document][1]
            document += 1
        yield Read(batch, np.concatenate([b["input_ids"] for b in batch]), characters)


def train(
    folder: Path,
    start: Callable[[], Trained],
    tokens: DocumentTokenizer,
    n_old: int,
    zh: list[str],
    texts: Texts,
    marks: list[tuple[int, float]],
    untrained: Point | None = None,
) -> list[Point]:
    """Train or resume the curve in `folder` up to the last of `marks`, which are (step, seconds).

    `untrained`: the point at step 0, if another curve has measured the same model.
    The checkpoint also contains the points, and curve.jsonl is rewritten from it, so a kill between the two loses nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    points = read_points(folder)
    remaining = [mark for mark in marks if not points or mark[0] > points[-1].step]
    if not remaining:
        return points
    trained = start()
    settings = trained.settings
    validation = [
        ValidationSet.of(label, [t[:limit] for t in passages], tokens, settings.size)
        for label, passages, limit in (
            ("zh", texts.validation_zh, settings.validation_zh),
            ("en", texts.validation_en, settings.validation_en),
            *((source, some, settings.validation_zh) for source, some in texts.other_zh.items()),
        )
    ]
    seen = np.zeros(tokens.size, np.int64)
    step, spent, losses = 0, 0.0, list[float]()
    saved = load_checkpoint(folder, trained)
    text = batches(zh, texts.en, tokens, settings)
    if saved is not None:
        step, spent, points = saved
        for _ in range(step):
            seen += np.bincount(next(text).ids, minlength=tokens.size)
        remaining = [mark for mark in marks if mark[0] > step]
        _write(folder, points)
    characters = points[-1].characters if points else 0
    for last, seconds in remaining:
        started = clock(trained.device)
        while step < last:
            read = next(text)
            losses.append(trained.step(step, read.blocks))
            seen += np.bincount(read.ids, minlength=tokens.size)
            characters = read.characters
            step += 1
        spent += clock(trained.device) - started
        if untrained is not None and not step:
            points = [untrained]
            _write(folder, points)
            continue
        chinese, english, other = trained.measured(validation)
        point = Point(
            step=step,
            seconds=round(seconds, 1),
            process_seconds=round(spent, 1),
            tokens=int(seen.sum()),
            characters=characters,
            new_tokens=int(seen[n_old:].sum()),
            rows_seen=int((seen[n_old:] > 0).sum()),
            loss=round(float(np.mean(losses)), 4) if losses else None,
            zh_bits_per_character=round(chinese, 4),
            en_bits_per_byte=round(english, 4),
            other=other,
        )
        losses = []
        points = [*points, point]
        _save(folder, trained, step, spent, points)
        _write(folder, points)
        print(folder.name, json.dumps(asdict(point)), flush=True)
    return points


def read_points(folder: Path) -> list[Point]:
    """The measured points of a curve."""
    path = folder / "curve.jsonl"
    return (
        [Point(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.is_file()
        else []
    )


def _write(folder: Path, points: list[Point]) -> None:
    write_whole(folder / "curve.jsonl", "".join(json.dumps(asdict(p)) + "\n" for p in points))


def _save(folder: Path, trained: Trained, step: int, spent: float, points: list[Point]) -> None:
    part = folder / "checkpoint.part"
    state = {
        "model": {n: p for n, p in trained.model.named_parameters() if p.requires_grad},
        "optimizer": trained.optimizer.state_dict(),
        "step": step,
        "spent": spent,
        "points": [asdict(p) for p in points],
    }
    torch.save(state, part)
    Path(part).replace(folder / "checkpoint.pt")


def load_checkpoint(folder: Path, trained: Trained) -> tuple[int, float, list[Point]] | None:
    """Restore a curve's weights and optimizer; returns its steps, seconds and points, or None before the first checkpoint."""
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return None
    state = torch.load(path, weights_only=True, map_location=trained.device)
    parameters = dict(trained.model.named_parameters())
    with torch.no_grad():
        for name, value in state["model"].items():
            parameters[name].copy_(value)
    trained.optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["spent"], [Point(**p) for p in state["points"]]
