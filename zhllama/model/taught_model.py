"""Teaches a model a larger vocabulary before training: a shared head, new input rows, and the first layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zhllama.errors import InputError
from zhllama.model.first_layers import FirstLayers, find_first_layers
from zhllama.model.growth_plan import GrowthPlan
from zhllama.model.lessons import Lessons, draw_lessons, guard_pieces
from zhllama.model.load import load_base
from zhllama.model.next_tokens import NextTokens
from zhllama.model.row_init_shared import ENGLISH_IDS, SharedHead, fit_shared_head
from zhllama.model.row_init_taught import (
    HELD_OUT,
    Progress,
    TaughtRows,
    Teaching,
    load_state,
    save_state,
    teach,
)
from zhllama.vocab.tokenizer_config import read_settings

if TYPE_CHECKING:
    import torch

PROBED = 64  # ids on which the first layers are tried
FEWEST_GUARDS = 8  # pieces of the given text; with fewer, the shipped sample is the guard text
HEAD = "head.pt"


@dataclass(frozen=True)
class TaughtModel:
    """The head, the input rows, and the new values of the weights, by stored name, of the first `layers` layers.

    `english` are the bits per byte of English text before and after.
    """

    head: SharedHead
    inputs: TaughtRows
    layers: int
    weights: "dict[str, torch.Tensor]"
    english: tuple[float, float]
    guard: Literal["given", "shipped"]


def teach_model(
    plan: GrowthPlan,
    texts: Sequence[str],
    english: Sequence[str],
    keep_old_rows: bool,
    fit: bool,
    settings: Teaching,
    partial: Path,
    progress: Progress,
) -> TaughtModel:
    """Fit the head, then teach rows and layers; what is finished is kept in the folder `partial`.

    Errors: InputError for a model whose layers cannot be found, and for text without new tokens.
    """
    progress.stage("opening the model")
    model = load_base(plan.model).eval().requires_grad_(False)
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    ids = next((some for some in plan.old.encode(texts[:1])), [])[:PROBED] or [0, 0]
    first = find_first_layers(model, settings.depth(layers), ids, plan.model)
    learning = _learning(plan, model, first, settings.learning(layers))
    begin = plan.old.begin_and_end(read_settings(plan.model))[0]
    lessons, guard = _lessons(plan, model, begin, texts, english, settings)
    measured = english if guard == "given" else english[::2]
    head = _head(plan, model, texts, english, keep_old_rows, fit, partial, progress)
    before = _bits(plan, model, measured, None)
    embedding = model.get_input_embeddings().weight.detach()[: plan.n_old]
    with _in_float32(model, first):
        for parameter in learning.values():
            parameter.requires_grad_(True)
        rows = teach(
            first, embedding, plan.old_tokens, begin, lessons, list(learning.values()), settings, partial, progress
        )  # fmt: skip
        for parameter in learning.values():
            parameter.requires_grad_(False)
    weights = {name: parameter.detach() for name, parameter in learning.items()}
    after = _bits(plan, model, measured, head)
    return TaughtModel(head, rows, settings.learning(layers), weights, (before, after), guard)


def _learning(
    plan: GrowthPlan, model: Any, first: FirstLayers, count: int
) -> "dict[str, torch.nn.Parameter]":
    """The parameters of the first `count` layers, by stored name.

    Those that later layers share stay as they are, and those that are stored as several tensors (the experts of a mixture).
    """
    later = {id(parameter) for layer in first.layers[count:] for parameter in layer.parameters()}
    inside = {id(parameter) for layer in first.layers[:count] for parameter in layer.parameters()}
    found = {
        plan.stored.names[name]: parameter
        for name, parameter in model.named_parameters()
        if id(parameter) in inside - later and name in plan.stored.names and parameter.is_floating_point()
    }
    if count and not found:
        message = f"stores no weight of its first {count} layers by itself"
        raise InputError(plan.model, message, "Give `teach_layers` 0, or another `init`")
    return found


def _lessons(
    plan: GrowthPlan,
    model: Any,
    begin: int | None,
    texts: Sequence[str],
    english: Sequence[str],
    settings: Teaching,
) -> tuple[Lessons, Literal["given", "shipped"]]:
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 20
    count = settings.steps * settings.pieces + HELD_OUT
    lessons = draw_lessons(plan.old, plan.new, begin, texts, count, settings.steps, longest, settings.seed)
    if not lessons.taught:
        raise InputError("`text`", "contains none of the new pieces", "Give text in the new language")
    if len(lessons.guard) >= FEWEST_GUARDS:
        return lessons, "given"
    # Every other text, so that English is measured on others.
    return Lessons(lessons.taught, guard_pieces(plan.old, begin, english[1::2], longest)), "shipped"


def _head(
    plan: GrowthPlan,
    model: Any,
    texts: Sequence[str],
    english: Sequence[str],
    keep_old_rows: bool,
    fit: bool,
    partial: Path,
    progress: Progress,
) -> SharedHead:
    """The shared head of the original model, from the folder `partial` if it is there."""
    counted = sha256("\0".join(texts).encode(errors="replace")).hexdigest()
    key = f"{counted} {keep_old_rows} {fit} {plan.model} {plan.tokenizer} {plan.n_old} {plan.n_new}"
    saved = load_state(partial / HEAD, key)
    if saved is not None and "head" in saved:
        return SharedHead(**saved["head"])
    progress.stage("fitting the LM head", 1.0)
    head = fit_shared_head(
        model, plan.old, plan.new, plan.old_tokens, texts, english, keep_old_rows, progress, fit, fast=True
    )
    save_state(partial / HEAD, {"key": key, "head": vars(head)})
    return head


def _bits(plan: GrowthPlan, model: Any, texts: Sequence[str], head: SharedHead | None) -> float:
    """Bits per byte of English text with the old head or a new one."""
    import torch

    output = model.get_output_embeddings()
    bias = getattr(output, "bias", None)
    column = torch.zeros(len(output.weight)) if bias is None else bias.detach().float()
    weight = torch.cat([output.weight.detach().float(), column[:, None]], 1)[: plan.n_old]
    read = NextTokens.old(model, plan.old, texts, ENGLISH_IDS)
    if head is None:
        return read.bits_per_byte(weight)
    firsts = torch.tensor([tokens[0] if tokens else 0 for tokens in plan.old_tokens])
    rows = torch.cat([head.rows, column[firsts][:, None]], 1)
    changed_rows = torch.cat([head.changed_rows, column[head.changed][:, None]], 1)
    return read.bits_per_byte(weight, rows, head.changed, changed_rows)


@contextmanager
def _in_float32(model: Any, first: FirstLayers) -> Iterator[None]:
    """Keep everything up to the last of the first layers in float32; embedding, head and later layers stay as they are."""
    later = {id(p) for layer in first.layers[first.depth :] for p in layer.parameters()}
    matrices = {id(part.weight) for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    changing = [
        (p, p.dtype) for p in model.parameters() if id(p) not in later | matrices and p.is_floating_point()
    ]
    for parameter, _ in changing:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in changing:
            parameter.data = parameter.data.to(dtype)
