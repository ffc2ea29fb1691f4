"""Tokens and money spent, and the budget that limits them."""

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from zhllama.errors import InputError, OptionError
from zhllama.io.yaml import read_yaml
from zhllama.llm.requests import Reply


class Price(BaseModel, frozen=True):
    """What a model costs per million tokens, in any currency."""

    input: float
    output: float
    batch: float = 0.5  # price of a batch relative to single calls


@dataclass
class Spending:
    """Tokens and cost of all replies in the journal, and the budget for them."""

    price: Price | None = None
    token_budget: int | None = None
    max_cost: float | None = None
    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0  # replies whose tokens are estimated from their characters
    models: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.max_cost is not None and self.price is None:
            raise OptionError(
                "max_cost", "needs to know what the model costs", "Give `prices` FILE.yaml with its name"
            )

    def count(self, reply: Reply) -> None:
        """Add the tokens of one reply."""
        self.replies += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        self.estimated += reply.estimated
        self.models[reply.model] += 1

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost(self) -> float | None:
        """Cost so far; None if the price is unknown."""
        if self.price is None:
            return None
        return (self.prompt_tokens * self.price.input + self.completion_tokens * self.price.output) / 1e6

    def estimate(self, calls: int) -> tuple[int, float | None]:
        """Tokens and cost of a number of calls that are like those so far."""
        share = calls / max(self.replies, 1)
        return math.ceil(self.tokens * share), None if self.cost is None else self.cost * share

    def figures(self) -> dict[str, Any]:
        """The statistics that the manifest contains."""
        return {
            "replies": self.replies,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "estimated_replies": self.estimated,
            "cost": self.cost,
            "models": dict(self.models.most_common()),
        }

    def allows(self, in_flight: int, worst: int) -> bool:
        """True if the budget covers one more call on top of `in_flight` unfinished ones.

        Each is assumed to use the mean number of tokens so far or, before the first reply, `worst` tokens.
        """
        mean = self.tokens / self.replies if self.replies else worst
        if self.token_budget is not None and self.tokens + (in_flight + 1) * mean > self.token_budget:
            return False
        if self.max_cost is None or self.price is None:
            return True
        cost = self.cost or 0.0
        if self.replies:
            expected = cost * (in_flight + 1) * mean / max(1, self.tokens)
        else:
            expected = (in_flight + 1) * worst * max(self.price.input, self.price.output) / 1e6
        return cost + expected <= self.max_cost


def read_price(path: Path, model: str, batch: bool = False) -> Price:
    """The price of a model from a YAML table of `model: {input: 0.27, output: 1.10}` per million tokens.

    With `batch`, the price of the model in batches. Errors: InputError if the table does not list the model.
    """
    table = read_yaml(path, "a table of prices")
    if model not in table:
        raise InputError(
            path, f"has no price for {model!r}", "Add a line such as `model: {input: 0.27, output: 1.10}`"
        )
    try:
        price = Price.model_validate(table[model])
    except ValidationError as error:
        raise InputError(
            path,
            f"{model}: {error.errors()[0]['msg'].lower()}",
            "Give `input` and `output` per million tokens",
        ) from error
    factor = price.batch if batch else 1.0
    return Price(input=price.input * factor, output=price.output * factor)
