"""Serves one model to many clients: one generation at a time, in the order of the requests."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from threading import Event, Lock
from typing import Literal, NamedTuple, Protocol

from zhllama.conversation.records import Turn
from zhllama.errors import ZhllamaError
from zhllama.inference.chat import Sampling
from zhllama.inference.token_stream import StopStrings

WAITING = 64  # generations that wait at most

Prompt = list[Turn] | str  # a conversation, or a text to continue
EmitText = Callable[[str], None]


class GenerationResult(NamedTuple):
    """Why a generation ended, and its tokens; `stop` for an end of text, a stop string or a client that left."""

    reason: Literal["stop", "length"]
    tokens: int


class Model(Protocol):
    """What an engine runs."""

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""

    @property
    def longest(self) -> int:
        """The most characters of a token, so that a text's length bounds its tokens from below."""

    @property
    def own(self) -> Sampling:
        """The sampling that the model itself names."""

    @property
    def schemas(self) -> bool:
        """Whether it can follow a `response_format`."""

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt, conversations under the model's template with the answer opened."""

    def generate(self, prompt: Prompt, sampling: Sampling, stop: Event, say: EmitText) -> GenerationResult:
        """Say an answer piece by piece, each of whole characters; end soon after `stop` is set."""


class Busy(ZhllamaError):
    """Too many generations wait already."""


class Engine:
    """A model that one thread runs, for the API and the page alike."""

    def __init__(self, model: Model, waiting: int = WAITING) -> None:
        self.model = model
        self._limit = waiting
        self._pool = ThreadPoolExecutor(1, "generation")
        self._lock = Lock()
        self._stops: set[Event] = set()

    def submit(
        self, prompt: Prompt, sampling: Sampling, stop: Event, say: EmitText, until: tuple[str, ...] = ()
    ) -> "Future[GenerationResult]":
        """Queue a generation that ends before the first of the strings `until`, and return at once.

        Who no longer listens sets `stop` and cancels the future. Errors: Busy; the future has the generation's own.
        """

        def run() -> GenerationResult:
            if stop.is_set():
                return GenerationResult("stop", 0)
            kept = StopStrings(until, say, stop)
            ended = self.model.generate(prompt, sampling, stop, kept.put)
            kept.end()
            return GenerationResult("stop", ended.tokens) if kept.found else ended

        with self._lock:
            if len(self._stops) > self._limit:
                raise Busy("the server", f"has {self._limit} requests waiting", "Try again later")
            self._stops.add(stop)
        future = self._pool.submit(run)
        future.add_done_callback(lambda _: self._stops.discard(stop))
        return future

    def close(self) -> None:
        """Stop what runs and drop what waits."""
        with self._lock:
            for stop in list(self._stops):
                stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


class EngineChatModel:
    """An engine as a speaker, for the chat page."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.context = engine.model.context
        self.longest = engine.model.longest

    def count(self, turns: list[Turn]) -> int:
        return self._engine.model.count(turns)

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        said: Queue[str | Future[GenerationResult]] = Queue()
        future = self._engine.submit(turns, sampling, stop, said.put)
        future.add_done_callback(said.put)
        try:
            while not isinstance(piece := said.get(), Future):
                if piece:
                    yield piece
            piece.result()
        finally:
            stop.set()
            future.cancel()
