"""Training of chosen rows of a model's embedding matrix and LM head, without a second copy of either.

The trainable rows are the last rows of their matrix, and the Parameter is a view of them: the optimizer has state for
these rows alone and writes straight into the matrix. Rows scattered over the vocabulary are first moved to the end, and
a table maps ids to rows. Sharding (FSDP, ZeRO) does not preserve views; there the Parameter is the whole matrix, and the
gradient of every other row is zero.

Models whose embedding or head does more than this keep their own modules and loss (PlainRows).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from zhllama.errors import InputError, OptionError
from zhllama.training.loss import head_loss, shifted
from zhllama.training.options import WhichMatrices
from zhllama.training.probe import LossAndGradients, Probe, embedding_scale, matrices


@dataclass(frozen=True)
class RowLayout:
    """The order of a matrix's rows: `id_of_row[row]` and `row_of_id[id]`, None if no row moved.

    Rows from `first` on are trainable (none if `first` is the number of rows). The Parameter begins at row `start`:
    `first` if it is a view, 0 if it is the whole matrix.
    """

    first: int
    start: int
    id_of_row: Tensor | None = None
    row_of_id: Tensor | None = None

    def rows_of(self, ids: Tensor) -> Tensor:
        """Map ids to rows; -100 stays -100."""
        if self.row_of_id is None:
            return ids
        return torch.where(ids < 0, ids, self.row_of_id[ids.clamp(min=0)])

    def on(self, device: torch.device) -> "RowLayout":
        """Return the same layout with its table on a device."""
        return self if self.row_of_id is None else replace(self, row_of_id=self.row_of_id.to(device))

    def trained_ids(self, size: int) -> Tensor:
        """Return the ids of the trainable rows, in the order of the Parameter."""
        return (
            torch.arange(self.first, size) if self.id_of_row is None else self.id_of_row[self.first :].cpu()
        )


def arrange_rows(ids: Sequence[int] | range, size: int, whole: bool = False) -> RowLayout:
    """Return the layout that makes exactly the rows of `ids` (ascending) trainable, in a matrix of `size` rows."""
    if not len(ids):
        raise OptionError("rows", "no row is left to train", "Give `rows` all, or a model with new rows")
    first = size - len(ids)
    if ids[0] == first:  # `new` and `all`: they are the last rows already
        return RowLayout(first, 0 if whole else first)
    trainable = torch.zeros(size, dtype=torch.bool)
    trainable[torch.tensor(list(ids))] = True
    id_of_row = torch.cat([(~trainable).nonzero(as_tuple=True)[0], trainable.nonzero(as_tuple=True)[0]])
    return RowLayout(first, 0 if whole else first, id_of_row, torch.argsort(id_of_row))


class _Lookup(torch.autograd.Function):
    """Lookup in the whole matrix, with a gradient for the trainable rows alone."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, ids: Tensor, layout: RowLayout) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.layout, ctx.shape, ctx.dtype = layout, rows.shape, rows.dtype
        return nn.functional.embedding(ids, matrix)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (ids,), layout = ctx.saved_tensors, ctx.layout
        trainable = ids >= layout.first
        gradient = torch.zeros(ctx.shape, dtype=ctx.dtype, device=ids.device)
        gradient.index_add_(0, ids[trainable] - layout.start, grads[0][trainable].to(ctx.dtype))
        return gradient, None, None, None


class _Matrix(nn.Module):
    """A matrix with trainable rows; `storage` is a list of one tensor, shared by the two modules of a tied model."""

    def __init__(self, storage: list[Tensor], rows: nn.Parameter, layout: RowLayout) -> None:
        super().__init__()
        # Neither a parameter nor a buffer: DDP would broadcast it at every step.
        self.rows, self.layout, self._storage = rows, layout, storage

    @property
    def weight(self) -> Tensor:
        """The whole matrix [vocabulary, width], rows in the layout's order."""
        if self.layout.start == 0:
            return self.rows.detach()
        matrix = self._storage[0]
        assert matrix[self.layout.start :].data_ptr() == self.rows.data_ptr(), (
            "the trainable rows are no view any more"
        )
        return matrix

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Matrix":
        """Move the whole matrix for `.to()`, and keep the Parameter a view of it."""
        if self.layout.start == 0:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        else:
            self._storage[0] = fn(self._storage[0])
            self.rows.data = self._storage[0][self.layout.start :]
        return self


class RowEmbedding(_Matrix):
    """Replacement of `embed_tokens`; `scale` multiplies its output (Gemma's square root of the width)."""

    def __init__(
        self, storage: list[Tensor], rows: nn.Parameter, layout: RowLayout, scale: float = 1.0
    ) -> None:
        super().__init__(storage, rows, layout)
        self.scale = scale

    def forward(self, ids: Tensor) -> Tensor:
        embedded: Tensor = _Lookup.apply(self.rows, self.weight, self.layout.rows_of(ids), self.layout)  # type: ignore[no-untyped-call]
        return embedded if self.scale == 1 else embedded * torch.tensor(self.scale).to(embedded)


class RowHead(_Matrix):
    """Replacement of `lm_head`: returns the hidden states, from which `loss` computes what the logits would give."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int | None = None,  # some models pass it as the third positional argument
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> Tensor:
        """Compute transformers' loss, the mean over all tokens of the batch, given hidden states as `logits`."""
        labels = self.layout.rows_of(shifted(labels))
        total = head_loss(logits, self.rows, self.weight, labels, self.layout.start, self.layout.first)
        if num_items_in_batch is None:
            return total / (labels >= 0).sum().clamp(min=1)
        return total / num_items_in_batch


@dataclass(frozen=True)
class TrainableRows:
    """The two matrices of a model in training; in a tied model both share one Parameter."""

    embedding: RowEmbedding
    head: RowHead
    tied: bool
    names: tuple[str, str]  # paths of the two modules in the model

    @property
    def parameter_names(self) -> dict[str, str]:
        """The ends of the names of the trained Parameters, by `input` and, for an untied head, `output`."""
        sides = {"input": self.embedding} if self.tied else {"input": self.embedding, "output": self.head}
        ends = dict(zip(("input", "output"), self.names, strict=True))
        return {side: f"{ends[side]}.rows" for side, part in sides.items() if part.rows.requires_grad}

    @property
    def masked(self) -> tuple[str, ...]:
        """The ends of the names of parameters that have frozen rows."""
        layout = self.embedding.layout
        return (".rows",) if layout.start < layout.first else ()

    def trained(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the tensors of rows.safetensors: `input_rows`, `input_ids`, and for an untied head `output_*`.

        `state`: the gathered parameters of a sharded model.
        """
        tensors: dict[str, Tensor] = {}
        for name, part, module in zip(
            ("input", "output"), (self.embedding, self.head), self.names, strict=True
        ):
            if part.rows.requires_grad and not (name == "output" and self.tied):
                rows = part.rows.detach()
                if state is not None:
                    rows = next(tensor for key, tensor in state.items() if key.endswith(f"{module}.rows"))
                tensors |= _named_rows(name, rows, part.layout)
        return tensors


def _named_rows(name: str, rows: Tensor, layout: RowLayout) -> dict[str, Tensor]:
    """Return one matrix's trained rows and their ascending ids, from its Parameter."""
    ids = layout.trained_ids(layout.start + len(rows))
    return {
        f"{name}_rows": rows[layout.first - layout.start :].cpu().contiguous(),
        f"{name}_ids": ids.clone(),  # safetensors refuses one memory under two names
    }


@dataclass(frozen=True)
class PlainRows:
    """The matrices of a model that keeps its own modules and loss; frozen rows get a gradient of zero.

    `parameters`: the matrices by `input` and `output`, without `output` if the model is tied or its head is frozen.
    """

    parameters: Mapping[str, nn.Parameter]
    names: Mapping[str, str]  # paths of the parameters in the model
    layout: RowLayout

    @property
    def parameter_names(self) -> dict[str, str]:
        """The ends of the names of the trained Parameters, as TrainableRows has them."""
        return dict(self.names)

    @property
    def masked(self) -> tuple[str, ...]:
        """The ends of the names of parameters that have frozen rows."""
        return tuple(self.names.values()) if self.layout.first else ()

    def trained(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the tensors of rows.safetensors, as TrainableRows does."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            matrix = parameter.detach()
            if state is not None:
                matrix = next(tensor for key, tensor in state.items() if key.endswith(self.names[name]))
            ids = self.layout.trained_ids(len(matrix))
            if len(ids):
                tensors |= {f"{name}_rows": matrix[ids.to(matrix.device)].cpu(), f"{name}_ids": ids.clone()}
        return tensors


def make_rows_trainable(model: Any, layout: RowLayout, matrices: WhichMatrices = "both") -> TrainableRows:
    """Replace the embedding and head of a transformers model by modules with trainable rows.

    With `input`, an untied head stays frozen. The model then returns losses, no logits. The caller compares it with the
    original (`Probe.difference`). Errors: InputError for a head that is no matrix alone.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        raise InputError(
            model.config.model_type, "has an LM head that is more than a matrix", "Use plain_rows"
        )
    scale = embedding_scale(
        embedding, torch.arange(min(8, len(embedding.weight)), device=embedding.weight.device)
    )
    if scale is None:
        raise InputError(
            model.config.model_type, "has an embedding that is more than a lookup", "Use plain_rows"
        )
    tied = head.weight is embedding.weight
    inputs = _arranged(embedding.weight.data, layout)
    rows = nn.Parameter(inputs[layout.start :], requires_grad=layout.first < len(inputs))
    storage = [inputs]
    new_embedding = RowEmbedding(storage, rows, layout, scale)
    if tied:
        new_head = RowHead(storage, rows, layout)
    elif matrices == "both" and rows.requires_grad:
        outputs = _arranged(head.weight.data, layout)
        new_head = RowHead([outputs], nn.Parameter(outputs[layout.start :]), layout)
    else:
        frozen = nn.Parameter(head.weight.data, requires_grad=False)
        new_head = RowHead([], frozen, RowLayout(0, 0))
    model.set_input_embeddings(new_embedding)
    model.set_output_embeddings(new_head)
    model.loss_function = new_head.loss
    model.config.use_cache = False  # with a cache, transformers ignores document boundaries in position_ids
    paths = {id(module): name for name, module in model.named_modules()}
    return TrainableRows(new_embedding, new_head, tied, (paths[id(new_embedding)], paths[id(new_head)]))


def plain_rows(model: Any, layout: RowLayout, which: WhichMatrices = "both") -> PlainRows:
    """Make rows of a model trainable without replacing anything: the Parameters are whole matrices."""
    names = {id(parameter): name for name, parameter in model.named_parameters(remove_duplicate=False)}
    chosen: dict[str, nn.Parameter] = {}
    for name, weight in zip(("input", "output"), matrices(model), strict=False):
        if layout.first < len(weight) and (name == "input" or which == "both"):
            weight.requires_grad_(True)
            if layout.first:
                _mask_gradient(weight, layout)
            chosen[name] = weight  # type: ignore[assignment]
    model.config.use_cache = False
    return PlainRows(chosen, {name: names[id(weight)] for name, weight in chosen.items()}, layout)


def rows_by_probe(
    model: Any, layout: RowLayout, which: WhichMatrices, probe: Probe
) -> tuple[TrainableRows | PlainRows, str | None]:
    """Make rows trainable by our modules if the probe finds them equal to the model's own, else without replacing any.

    Returns also why our modules were not taken.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    loss = model.loss_function
    try:
        rows = make_rows_trainable(model, layout, which)
    except InputError as error:
        return plain_rows(model, layout, which), f"it {error.what}"
    difference = probe.difference(model, lambda loss, ids: _backward(loss, ids, rows))
    if difference is None:
        return rows, None
    model.set_input_embeddings(embedding)
    model.set_output_embeddings(head)
    model.loss_function = loss
    return plain_rows(model, layout, which), f"with our loss, {difference}"


def _backward(loss: Tensor, ids: Tensor, rows: TrainableRows) -> LossAndGradients:
    """Run the backward pass and return the gradients of those rows of `ids` that are trained."""
    parts = {"input": rows.embedding} if rows.tied else {"input": rows.embedding, "output": rows.head}
    parts = {name: part for name, part in parts.items() if part.rows.requires_grad}
    if not parts:
        return LossAndGradients(loss.item(), ids[:0], {})
    layout = rows.embedding.layout
    gradients = torch.autograd.grad(loss, [part.rows for part in parts.values()])
    places = layout.rows_of(ids)
    trained = places >= layout.first
    by_name = {
        name: gradient[places[trained] - layout.start].float()
        for name, gradient in zip(parts, gradients, strict=True)
    }
    return LossAndGradients(loss.item(), ids[trained], by_name)


def _mask_gradient(matrix: Tensor, layout: RowLayout) -> None:
    """Set the gradient of the rows that are not trained to zero."""
    trained = torch.zeros(len(matrix), 1, dtype=torch.bool)
    trained[layout.trained_ids(len(matrix))] = True
    trained = trained.to(matrix.device)
    matrix.register_hook(lambda gradient: gradient * trained)  # type: ignore[no-untyped-call]


def _arranged(matrix: Tensor, layout: RowLayout) -> Tensor:
    return matrix if layout.id_of_row is None else matrix[layout.id_of_row.to(matrix.device)]
