"""The options of a conversation in the terminal."""

from dataclasses import dataclass

from zhllama.options import option


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """The prompt, and how answers are sampled."""

    prompt: str | None = option(None, "Send this one prompt and leave.", flags=("--prompt", "-p"))
    system: str = option("", "System prompt.")
    temperature: float = option(0.7, "0: greedy decoding.")
    top_p: float = option(0.9, "Sample from the likeliest tokens with this total probability.")
    max_tokens: int = option(512, "Tokens of an answer, at most.")
    seed: int | None = option(None, "Seed that makes answers repeatable.")
    greedy: bool = option(False, "Always the likeliest token.")
