"""A conversation with a model: its history, and what of it still fits when it has grown too long."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Protocol

from zhllama.conversation.records import Conversation, Turn
from zhllama.errors import InputError, OptionError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; `greedy` takes the likeliest and ignores the rest. The seed is that of each answer.

    `top_k` 0 keeps every token. Penalties and `bias` (by token id) are those of OpenAI's API, taken from the logits;
    `response_format` is a JSON schema as that API has it, for models that can follow one.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 512
    seed: int | None = None
    greedy: bool = False
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)
    response_format: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 5:
            raise OptionError("temperature", "is not from 0 to 5", "0 is the same as `greedy`")
        if not 0 < self.top_p <= 1:
            raise OptionError("top_p", "is not above 0 and at most 1", "1 leaves every token in")
        if self.max_tokens < 1:
            raise OptionError("max_tokens", "is less than 1", "Leave it out for 512")


class ChatModel(Protocol):
    """A model that answers; `context` is the most tokens that question and answer may have together."""

    @property
    def context(self) -> int:
        """See above."""

    @property
    def longest(self) -> int:
        """The most characters of a token, so that a text's length bounds its tokens from below."""

    def count(self, turns: list[Turn]) -> int:
        """Tokens of the turns under the model's template, with the opening of the answer."""

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        """The answer piece by piece, each of whole characters; ends early once `stop` is set."""


@dataclass
class Chat:
    """Everything said, in order; `forgotten` of the turns no longer fit and the model does not see them."""

    speaker: ChatModel
    sampling: Sampling
    system: str = ""
    turns: list[Turn] = field(default_factory=list)
    forgotten: int = 0

    def say(self, text: str, stop: Event) -> Iterator[str]:
        """Say something and get the answer piece by piece; an answer that was stopped stays as far as it came.

        What is too old is forgotten first, so that `forgotten` tells it before the first piece comes.
        Errors: InputError for a message that does not fit even alone; then, and after any other error, it is unsaid.
        """
        self.turns.append(Turn("user", text))
        try:
            room = self._make_room()
        except BaseException:
            self.turns.pop()
            raise
        return self._answer(room, stop)

    def _answer(self, room: int, stop: Event) -> Iterator[str]:
        pieces: list[str] = []
        sampling = replace(self.sampling, max_tokens=room)
        try:
            for piece in self.speaker.answer(self.seen(), sampling, stop):
                pieces.append(piece)
                yield piece
        finally:
            said = "".join(pieces)
            if said:
                self.turns.append(Turn("assistant", said))
            else:
                self.turns.pop()

    def seen(self) -> list[Turn]:
        """What the model sees: the system's turn, and all that is not forgotten."""
        first = [Turn("system", self.system)] if self.system else []
        return [*first, *self.turns[self.forgotten :]]

    def _make_room(self) -> int:
        """Forget oldest pairs until the answer has the tokens it may want, or a quarter of all; how many it gets."""
        wanted = min(self.sampling.max_tokens, self.speaker.context // 4)
        # What cannot fit by its length alone is not counted: the time for it would be that of all of it.
        most = self.speaker.context * self.speaker.longest
        size = sum(len(turn.text) for turn in self.seen())
        while size > most and len(self.turns) - self.forgotten > 1:
            size -= sum(len(turn.text) for turn in self.turns[self.forgotten : self.forgotten + 2])
            self.forgotten += 2
        if size > most:
            told = f"has {size:,} characters, and the model can look at {self.speaker.context:,} tokens"
            raise InputError("this message", told, "Say it in fewer words")
        while (taken := self.speaker.count(self.seen())) + wanted > self.speaker.context:
            if len(self.turns) - self.forgotten <= 1:
                break
            self.forgotten += 2
        room = self.speaker.context - taken
        if room < 1:
            told = f"takes {taken:,} tokens, and the model can look at {self.speaker.context:,}"
            raise InputError("this message", told, "Say it in fewer words")
        return min(room, self.sampling.max_tokens)

    def reset(self) -> None:
        """Begin anew under the same system prompt."""
        self.turns.clear()
        self.forgotten = 0

    def conversation(self) -> Conversation:
        """All of it as a record, what was forgotten included."""
        first = (Turn("system", self.system),) if self.system else ()
        return Conversation((*first, *self.turns), "chat")
