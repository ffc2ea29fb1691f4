"""Speed and memory of models that answer the same text: characters read and written per second, and the KV cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from zhllama.errors import InputError, OptionError
from zhllama.vocab.any_tokenizer import AnyTokenizer


@dataclass(frozen=True)
class Passage:
    """A prompt and the reply that follows it in a text, as ids of one vocabulary, with their characters."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    prompt_characters: int
    reply_characters: int


@dataclass(frozen=True)
class ReplyTime:
    """What one reply took, in seconds: from the prompt to the first token, and all tokens after it."""

    first_token: float
    later_tokens: float


class ServingEngine(Protocol):
    """A model in the program that runs it."""

    def reply(self, passage: Passage) -> ReplyTime:
        """Read the prompt, and write as many tokens as its reply has."""

    def cache_bytes(self) -> float:
        """Bytes of keys and values for each token of the last reply."""


@dataclass(frozen=True)
class Spread:
    """The median and the range of a figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class ServingSpeed:
    """The speed of one model after prompts of one length; ratios are to the first model, round by round.

    `first_token` is in seconds, `read` and `written` are characters per second. A ratio above 1: faster than the first
    model, which has none.
    """

    model: str
    prompt_characters: int
    prompt_tokens: float  # median
    first_token: Spread
    read: Spread
    written: Spread
    read_ratio: Spread | None
    written_ratio: Spread | None


@dataclass(frozen=True)
class EngineFigures:
    """All models in one engine: their speeds, and the bytes of keys and values per token."""

    engine: str
    speeds: tuple[ServingSpeed, ...]
    cache_bytes: tuple[float, ...]  # of each model


def passages(
    tokenizer: AnyTokenizer,
    begin: int | None,
    text: str,
    prompts: Sequence[int],
    reply: int,
    rounds: int,
    context: int | None = None,
) -> list[list[Passage]]:
    """For each prompt length the passages of the rounds, which are spread over the text: [len(prompts)][rounds].

    Lengths are characters; `begin` is the id before every prompt. Errors: OptionError for a text that is too short, and for
    a prompt that does not fit into `context` tokens; InputError for a reply of fewer than two tokens.
    """
    needed = max(prompts) + reply
    if len(text) < needed:
        raise OptionError(
            "text", f"has {len(text):,} characters, and a prompt with its reply takes {needed:,}",
            "Give a longer text, or a smaller `prompt`",
        )  # fmt: skip
    step = (len(text) - needed) // max(1, rounds - 1)
    return [
        [_passage(tokenizer, begin, text[r * step :], length, reply, context) for r in range(rounds)]
        for length in prompts
    ]


def _passage(
    tokenizer: AnyTokenizer, begin: int | None, text: str, length: int, reply: int, context: int | None
) -> Passage:
    (prompt,) = tokenizer.encode([text[:length]])
    (written,) = tokenizer.encode_inside([text[length : length + reply]])
    ids = ([] if begin is None else [begin]) + prompt
    if context is not None and len(ids) + len(written) > context:
        raise OptionError(
            "prompt", f"{length} is {len(ids):,} tokens, and with its reply more than the model's context of {context:,}",
            "Give a smaller one",
        )  # fmt: skip
    if len(written) < 2:
        raise InputError("`reply`", f"{reply} characters are a single token", "Give more")
    return Passage(tuple(ids), tuple(written), length, reply)


def measure_engine(
    name: str,
    models: Sequence[str],
    engines: Sequence[ServingEngine],
    of_model: Sequence[Sequence[Sequence[Passage]]],
    advance: Callable[[], None] = lambda: None,
) -> EngineFigures:
    """Time every model on its passages, [models][prompt lengths][rounds], after one reply of each that is not counted.

    The models take turns within a round, in the reverse order in every second round, so that what slows the machine
    for a while slows them alike. `advance` is called after each reply, also after those that are not counted.
    """
    lengths, rounds = range(len(of_model[0])), range(len(of_model[0][0]))
    turns = range(len(models))
    times: list[list[list[ReplyTime]]] = [[[] for _ in lengths] for _ in turns]
    for length in lengths:
        for number in turns:
            engines[number].reply(of_model[number][length][0])
            advance()
        for round in rounds:
            for number in turns if round % 2 == 0 else reversed(turns):
                times[number][length].append(engines[number].reply(of_model[number][length][round]))
                advance()
    cache = tuple(engine.cache_bytes() for engine in engines)
    speeds = [
        _speed(models[n], of_model[n][length], times[n][length], (of_model[0][length], times[0][length]) if n else None)
        for length in lengths
        for n in turns
    ]  # fmt: skip
    return EngineFigures(name, tuple(speeds), cache)


def _speed(
    model: str,
    passages: Sequence[Passage],
    times: Sequence[ReplyTime],
    first: tuple[Sequence[Passage], Sequence[ReplyTime]] | None,
) -> ServingSpeed:
    read, written = _rates(passages, times)
    reads, writes = _rates(*first) if first is not None else ([], [])
    return ServingSpeed(
        model=model,
        prompt_characters=passages[0].prompt_characters,
        prompt_tokens=median(len(passage.prompt) for passage in passages),
        first_token=Spread.of([time.first_token for time in times]),
        read=Spread.of(read),
        written=Spread.of(written),
        read_ratio=Spread.of([a / b for a, b in zip(read, reads, strict=True)]) if reads else None,
        written_ratio=Spread.of([a / b for a, b in zip(written, writes, strict=True)]) if writes else None,
    )


def _rates(passages: Sequence[Passage], times: Sequence[ReplyTime]) -> tuple[list[float], list[float]]:
    """Characters read and written per second in each round.

    The first token comes with the prompt, so that the time of the later tokens is that of all but one of the reply.
    """
    pairs = list(zip(passages, times, strict=True))
    read = [passage.prompt_characters / time.first_token for passage, time in pairs]
    written = [
        passage.reply_characters * (1 - 1 / len(passage.reply)) / time.later_tokens for passage, time in pairs
    ]
    return read, written
