"""Trains chosen rows of a model's embedding and head, with no second copy of either matrix.

The rows that learn stand at the end of their matrix, and the Parameter is a view of that end: the optimiser holds states
for it alone and writes straight into the matrix. Rows scattered over the vocabulary are first moved to the end, and
ids follow through a table. Where parameters are cut up (FSDP, ZeRO) a view cannot live, so there the Parameter is the
whole matrix and the gradient of every other row is zero.
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
    """Where the rows stand. `order[row]` is the id whose row it is, `place[id]` the row; None where nothing moved.

    Rows from `first` on learn, none where `first` is their number; the Parameter begins at row `start`: `first` as a
    view, 0 as a whole matrix.
    """

    first: int
    start: int
    order: Tensor | None = None
    place: Tensor | None = None

    def rows_of(self, ids: Tensor) -> Tensor:
        """Rows of ids; -100 stays."""
        if self.place is None:
            return ids
        return torch.where(ids < 0, ids, self.place[ids.clamp(min=0)])

    def on(self, device: torch.device) -> "RowLayout":
        """The same for ids that come on a device."""
        return self if self.place is None else replace(self, place=self.place.to(device))

    def trained_ids(self, size: int) -> Tensor:
        """The ids whose rows learn, in the order of the Parameter."""
        return torch.arange(self.first, size) if self.order is None else self.order[self.first :].cpu()


def lay_out(ids: Sequence[int] | range, size: int, whole: bool = False) -> RowLayout:
    """The layout in which exactly the rows of `ids` (ascending) learn, of a matrix of `size` rows."""
    if not len(ids):
        raise OptionError("rows", "no row is left to learn", "Give `rows` all, or a model with new rows")
    first = size - len(ids)
    if ids[0] == first:  # `new` and `all`: they stand at the end already
        return RowLayout(first, 0 if whole else first)
    learning = torch.zeros(size, dtype=torch.bool)
    learning[torch.tensor(list(ids))] = True
    order = torch.cat([(~learning).nonzero(as_tuple=True)[0], learning.nonzero(as_tuple=True)[0]])
    return RowLayout(first, 0 if whole else first, order, torch.argsort(order))


class _Lookup(torch.autograd.Function):
    """Rows of the whole matrix, with a gradient for the learning ones alone."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, ids: Tensor, layout: RowLayout) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.layout, ctx.shape, ctx.dtype = layout, rows.shape, rows.dtype
        return nn.functional.embedding(ids, matrix)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (ids,), layout = ctx.saved_tensors, ctx.layout
        learning = ids >= layout.first
        made = torch.zeros(ctx.shape, dtype=ctx.dtype, device=ids.device)
        made.index_add_(0, ids[learning] - layout.start, grads[0][learning].to(ctx.dtype))
        return made, None, None, None


class _Matrix(nn.Module):
    """`held` is a list of the one whole matrix, shared between the two modules of a model that ties them."""

    def __init__(self, held: list[Tensor], rows: nn.Parameter, layout: RowLayout) -> None:
        super().__init__()
        # Neither a parameter nor a buffer: DDP would send it around at every step.
        self.rows, self.layout, self._held = rows, layout, held

    @property
    def weight(self) -> Tensor:
        """The whole matrix [vocabulary, width], rows in the layout's order."""
        if self.layout.start == 0:
            return self.rows.detach()
        matrix = self._held[0]
        assert matrix[self.layout.start :].data_ptr() == self.rows.data_ptr(), (
            "the learning rows are no view any more"
        )
        return matrix

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Matrix":
        """What `.to()` calls: the whole matrix moves, and the Parameter stays a view of it."""
        if self.layout.start == 0:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        else:
            self._held[0] = fn(self._held[0])
            self.rows.data = self._held[0][self.layout.start :]
        return self


class RowEmbedding(_Matrix):
    """In the place of `embed_tokens`."""

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = _Lookup.apply(self.rows, self.weight, self.layout.rows_of(ids), self.layout)  # type: ignore[no-untyped-call]
        return found


class RowHead(_Matrix):
    """In the place of `lm_head`: hands the hidden states on, and `loss` makes of them what the logits would have."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden

    def loss(
        self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None, **_: Any
    ) -> Tensor:
        """transformers' loss function, given hidden states as `logits`: the mean over all tokens of the batch."""
        labels = self.layout.rows_of(shifted(labels))
        total = head_loss(logits, self.rows, self.weight, labels, self.layout.start, self.layout.first)
        if num_items_in_batch is None:
            return total / (labels >= 0).sum().clamp(min=1)
        return total / num_items_in_batch


@dataclass(frozen=True)
class TrainableRows:
    """The two matrices of a model in training; `head` equals `embedding`'s Parameter where the model ties them."""

    embedding: RowEmbedding
    head: RowHead
    tied: bool
    names: tuple[str, str]  # of the two modules in the model

    def trained(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What learned, as rows.safetensors holds it: `input_rows`, `input_ids`, and for an untied head `output_*`.

        `state` holds the parameters whole where they are cut up over processes.
        """
        held: dict[str, Tensor] = {}
        for name, part, module in zip(
            ("input", "output"), (self.embedding, self.head), self.names, strict=True
        ):
            if part.rows.requires_grad and not (name == "output" and self.tied):
                rows = part.rows.detach()
                if state is not None:
                    rows = next(tensor for key, tensor in state.items() if key.endswith(f"{module}.rows"))
                held |= named_rows(name, rows, part.layout)
        return held


def named_rows(name: str, rows: Tensor, layout: RowLayout) -> dict[str, Tensor]:
    """One matrix's learned rows and their ids, ids ascending, from its Parameter."""
    ids = layout.trained_ids(layout.start + len(rows))
    return {
        f"{name}_rows": rows[layout.first - layout.start :].cpu().contiguous(),
        f"{name}_ids": ids.clone(),  # safetensors refuses one memory under two names
    }


def train_rows(model: Any, layout: RowLayout, matrices: WhichMatrices = "both") -> TrainableRows:
    """Put learning rows into a transformers model, in place of its embedding and head.

    With `input` an untied head stays frozen. From here on the model gives losses, no logits.
    Errors: InputError for a head that is not a plain product.
    """
    refuse_other_heads(model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    inputs = _arranged(embedding.weight.data, layout)
    rows = nn.Parameter(inputs[layout.start :], requires_grad=layout.first < len(inputs))
    held = [inputs]
    new_embedding = RowEmbedding(held, rows, layout)
    if tied:
        new_head = RowHead(held, rows, layout)
    elif matrices == "both" and rows.requires_grad:
        outputs = _arranged(head.weight.data, layout)
        new_head = RowHead([outputs], nn.Parameter(outputs[layout.start :]), layout)
    else:
        frozen = nn.Parameter(head.weight.data, requires_grad=False)
        new_head = RowHead([], frozen, RowLayout(0, 0))
    model.set_input_embeddings(new_embedding)
    model.set_output_embeddings(new_head)
    model.loss_function = new_head.loss
    model.config.use_cache = False  # with a cache, transformers does not look for documents in position_ids
    found = {id(module): name for name, module in model.named_modules()}
    return TrainableRows(new_embedding, new_head, tied, (found[id(new_embedding)], found[id(new_head)]))


def refuse_other_heads(model: Any) -> None:
    """Only a head that is hidden @ matrix.T can be fused with its loss."""
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
    return matrix if layout.order is None else matrix[layout.order.to(matrix.device)]
