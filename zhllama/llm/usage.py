"""Token counts of a reply: those that the server reports, or estimates if its report cannot be right."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BYTES_PER_TOKEN = (
    2  # fewer than any common tokenizer needs: 1.5 tokens per Han character, half a token per letter
)
TEMPLATE_TOKENS = 16  # of the chat template around a prompt
# A report is not believed below one token per so many characters, or above so many tokens.
MOST_CHARACTERS, MOST_TOKENS = 32, 10**9

# Names without underscores and capitals: the spellings of OpenAI, Anthropic, Ollama and Gemini.
PROMPT = ("prompttokens", "inputtokens", "promptevalcount", "prompttokencount")
COMPLETION = ("completiontokens", "outputtokens", "evalcount", "candidatestokencount", "generatedtokens")
TOTAL = ("totaltokens", "totaltokencount")


@dataclass(frozen=True)
class Usage:
    """Tokens of one call. `estimated` is true if one of the counts follows from the number of characters."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool


def estimate_tokens(text: str) -> int:
    """An estimate that is mostly too high: one token for every two bytes of UTF-8."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def estimate_prompt(prompt: str) -> int:
    """The estimated tokens of a prompt with its chat template."""
    return estimate_tokens(prompt) + TEMPLATE_TOKENS


def read_usage(report: Any, prompt: str, completion: str) -> Usage:
    """The usage in a response body, where it is plausible for the two texts; estimates for all that is not.

    With a plausible total, a missing count is the rest of it. A total above the sum of both counts contains thoughts that
    are billed as completion.
    """
    counts: dict[str, int | None] = {}
    for name, value in report.items() if isinstance(report, Mapping) else ():
        counts.setdefault(str(name).replace("_", "").lower(), _count(value))
    prompt_tokens = _plausible(_first(counts, PROMPT), prompt)
    completion_tokens = _plausible(_first(counts, COMPLETION), completion)
    total = _plausible(_first(counts, TOTAL), prompt + completion)
    if total is not None:
        if prompt_tokens is not None:
            rest = _plausible(max(0, total - prompt_tokens), completion)
            completion_tokens = max(completion_tokens or 0, rest) if rest is not None else completion_tokens
        elif completion_tokens is not None:
            prompt_tokens = _plausible(max(0, total - completion_tokens), prompt)
        else:
            completion_tokens = min(total, estimate_tokens(completion))
            return Usage(total - completion_tokens, completion_tokens, estimated=True)
    return Usage(
        estimate_prompt(prompt) if prompt_tokens is None else prompt_tokens,
        estimate_tokens(completion) if completion_tokens is None else completion_tokens,
        estimated=prompt_tokens is None or completion_tokens is None,
    )


def _first(counts: Mapping[str, int | None], names: tuple[str, ...]) -> int | None:
    return next((counts[name] for name in names if counts.get(name) is not None), None)


def _count(value: Any) -> int | None:
    """A count of tokens, rounded up; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return math.ceil(number) if 0 <= number <= MOST_TOKENS else None  # NaN compares false


def _plausible(tokens: int | None, text: str) -> int | None:
    """The count, or None if the text cannot have so few tokens."""
    return tokens if tokens is not None and tokens * MOST_CHARACTERS >= len(text) else None
