"""What a vocabulary does to the serving costs of a model of a given shape, by arithmetic: nothing is run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zhllama.training.model_shape import ModelShape

BYTES = 2  # of a 16-bit weight, and of a key or value


@dataclass(frozen=True)
class ServingCost:
    """The costs of a character after a prompt of some characters, by arithmetic.

    Reading a prompt is limited by operations, writing at batch size 1 by the bytes read from memory (Pope et al. 2022,
    arXiv:2211.05102). Ratios are to the first model; above 1: cheaper by that factor.
    """

    model: str
    rows: int
    prompt_characters: int
    tokens_per_character: float
    operations_read: float  # of a character of the prompt
    bytes_written: float  # read from memory for a character of the reply
    cache_bytes: float  # of a character
    read_ratio: float | None = None
    written_ratio: float | None = None


def serving_cost(
    model: str,
    shape: "ModelShape",
    rows: int,
    tokens_per_character: float,
    prompt: int,
    first: ServingCost | None = None,
) -> ServingCost:
    """The costs with a vocabulary of `rows` rows after `prompt` characters, in 16 bits and at batch size 1.

    A token's operations are 2 for each weight of the body and 4 for each value of the width, in each layer, and each
    token before it (scores and weighted sum); the head computes the last token of a prompt only.
    """
    tokens = prompt * tokens_per_character
    attention = 4 * shape.layers * shape.width * tokens / 2
    head = rows * shape.width
    operations = tokens * (2 * shape.body + attention) + 2 * head
    cache = 2 * shape.layers * shape.keys * BYTES
    written = (BYTES * (shape.body + head) + cache * tokens) * tokens_per_character
    return ServingCost(
        model,
        rows,
        prompt,
        tokens_per_character,
        operations / prompt,
        written,
        cache * tokens_per_character,
        None if first is None else first.operations_read / (operations / prompt),
        None if first is None else first.bytes_written / written,
    )
