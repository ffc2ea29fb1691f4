"""A chat with a model: its history, and the turns that fit the context."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Protocol

from zhllama.conversation.records import Conversation, Turn
from zhllama.errors import InputError, OptionError


@dataclass(frozen=True)
class Sampling:
    """Sampling options; `greedy` takes the most probable token and ignores the others. `seed` applies to each answer.

    `top_k` 0 allows every token. Penalties and `bias` (by token id) change the logits as in OpenAI's API;
    `response_format` is a JSON schema as in that API, for models that support one.
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
    """A model that answers turns."""

    @property
    def context(self) -> int:
        """The largest number of tokens of prompt and answer together."""

    @property
    def longest(self) -> int:
        """The number of characters of the longest token, which bounds a text's token count from below."""

    def count(self, turns: list[Turn]) -> int:
        """The number of tokens of the turns under the model's template, with the answer's prompt."""

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        """Stream the answer in pieces of whole characters; ends early once `stop` is set."""


@dataclass
class Chat:
    """The turns of a chat in order; the first `forgotten` of them no longer fit the context."""

    chat_model: ChatModel
    sampling: Sampling
    system: str = ""
    turns: list[Turn] = field(default_factory=list)
    forgotten: int = 0

    def say(self, text: str, stop: Event) -> Iterator[str]:
        """Send a message and stream the answer; a stopped answer is retained as far as it was generated.

        `forgotten` is updated before the first piece. Errors: InputError for a message that does not fit by itself; after
        an error the message is removed.
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
            for piece in self.chat_model.answer(self.seen(), sampling, stop):
                pieces.append(piece)
                yield piece
        finally:
            answer = "".join(pieces)
            if answer:
                self.turns.append(Turn("assistant", answer))
            else:
                self.turns.pop()

    def seen(self) -> list[Turn]:
        """The turns that the model sees: the system turn, and all that are not forgotten."""
        first = [Turn("system", self.system)] if self.system else []
        return [*first, *self.turns[self.forgotten :]]

    def _make_room(self) -> int:
        """Forget the oldest pairs until the answer has its `max_tokens` or a quarter of the context; return its tokens."""
        reserved = min(self.sampling.max_tokens, self.chat_model.context // 4)
        # Turns that cannot fit by their length alone are not tokenized, which would take long.
        limit = self.chat_model.context * self.chat_model.longest
        size = sum(len(turn.text) for turn in self.seen())
        while size > limit and len(self.turns) - self.forgotten > 1:
            size -= sum(len(turn.text) for turn in self.turns[self.forgotten : self.forgotten + 2])
            self.forgotten += 2
        if size > limit:
            reason = f"has {size:,} characters, and the model's context is {self.chat_model.context:,} tokens"
            raise InputError("this message", reason, "Shorten it")
        while (used := self.chat_model.count(self.seen())) + reserved > self.chat_model.context:
            if len(self.turns) - self.forgotten <= 1:
                break
            self.forgotten += 2
        room = self.chat_model.context - used
        if room < 1:
            reason = f"takes {used:,} tokens, and the model's context is {self.chat_model.context:,}"
            raise InputError("this message", reason, "Shorten it")
        return min(room, self.sampling.max_tokens)

    def reset(self) -> None:
        """Start over with the same system prompt."""
        self.turns.clear()
        self.forgotten = 0

    def conversation(self) -> Conversation:
        """The whole chat as a record, forgotten turns included."""
        first = (Turn("system", self.system),) if self.system else ()
        return Conversation((*first, *self.turns), "chat")
