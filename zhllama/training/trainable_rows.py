"""Training of chosen rows of a model's embedding matrix and LM head, without a second copy of either.

The trainable rows are the last rows of their matrix, and the Parameter is a view of them: the optimizer has state for
these rows alone and writes straight into the matrix. Rows scattered over the vocabulary are first moved to the end, and
a table maps ids to rows. Sharding (FSDP, ZeRO) does not preserve views; there the Parameter is the whole matrix, and the
gradient of every other row is zero.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from zhllama.errors import InputError, OptionError
from zhllama.training.loss import head_loss, shifted
from zhllama.training.options import WhichMatrices


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
        raise OptionError("--rows", "no row is left to train", "Give --rows all, or a model with new rows")
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
    """Replacement of `embed_tokens`."""

    def forward(self, ids: Tensor) -> Tensor:
        embedded: Tensor = _Lookup.apply(self.rows, self.weight, self.layout.rows_of(ids), self.layout)  # type: ignore[no-untyped-call]
        return embedded


class RowHead(_Matrix):
    """Replacement of `lm_head`: returns the hidden states, from which `loss` computes what the logits would give."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden

    def loss(
        self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None, **_: Any
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


def make_rows_trainable(model: Any, layout: RowLayout, matrices: WhichMatrices = "both") -> TrainableRows:
    """Replace the embedding and head of a transformers model by modules with trainable rows.

    With `input`, an untied head stays frozen. The model then returns losses, no logits.
    Errors: InputError for a head that is more than a matrix product.
    """
    check_head(model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    inputs = _arranged(embedding.weight.data, layout)
    rows = nn.Parameter(inputs[layout.start :], requires_grad=layout.first < len(inputs))
    storage = [inputs]
    new_embedding = RowEmbedding(storage, rows, layout)
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


def check_head(model: Any) -> None:
    """Raise InputError unless the head is hidden @ matrix.T, which alone can be fused with its loss."""
    head = model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        raise InputError(
            model.config.model_type, "has no head that is a plain product", "Train another model"
        )
    if getattr(model.config, "final_logit_softcapping", None):
        raise InputError(
            model.config.model_type, "caps its logits, which this loss does not", "Train another model"
        )


def _arranged(matrix: Tensor, layout: RowLayout) -> Tensor:
    return matrix if layout.id_of_row is None else matrix[layout.id_of_row.to(matrix.device)]
