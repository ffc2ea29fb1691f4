"""Runs one model for many clients: one generation at a time, in the order of the requests."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from threading import Event, Lock
from typing import Literal, NamedTuple, Protocol

from zhllama.conversation.records import Turn
from zhllama.errors import ZhllamaError
from zhllama.inference.chat import Sampling
from zhllama.inference.token_stream import StopStrings

WAITING = 64  # maximum number of queued generations

Prompt = list[Turn] | str  # a conversation, or a text to continue
EmitText = Callable[[str], None]


class GenerationResult(NamedTuple):
    """Why a generation ended, and its number of tokens; `stop` means an end token, a stop string or a client that left."""

    reason: Literal["stop", "length"]
    tokens: int


class Model(Protocol):
    """A model that an engine runs."""

    @property
    def context(self) -> int:
        """The largest number of tokens of prompt and answer together."""

    @property
    def longest(self) -> int:
        """The number of characters of the longest token, which bounds a text's token count from below."""

    @property
    def own(self) -> Sampling:
        """The model's default sampling."""

    @property
    def schemas(self) -> bool:
        """Whether the model supports `response_format`."""

    def count(self, prompt: Prompt) -> int:
        """The number of tokens of a prompt; conversations under the model's template, with the answer's prompt."""

    def generate(self, prompt: Prompt, sampling: Sampling, stop: Event, emit: EmitText) -> GenerationResult:
        """Generate an answer and emit it in pieces of whole characters; end soon after `stop` is set."""


class Busy(ZhllamaError):
    """The queue is full."""


class Engine:
    """A model in one thread, shared by the API and the chat page."""

    def __init__(self, model: Model, waiting: int = WAITING) -> None:
        self.model = model
        self._limit = waiting
        self._pool = ThreadPoolExecutor(1, "generation")
        self._lock = Lock()
        self._stops: set[Event] = set()

    def submit(
        self, prompt: Prompt, sampling: Sampling, stop: Event, emit: EmitText, until: tuple[str, ...] = ()
    ) -> "Future[GenerationResult]":
        """Queue a generation that ends before the first of the strings `until`, and return at once.

        A client that leaves sets `stop` and cancels the future. Errors: Busy; the future raises the generation's errors.
        """

        def run() -> GenerationResult:
            if stop.is_set():
                return GenerationResult("stop", 0)
            filtered = StopStrings(until, emit, stop)
            result = self.model.generate(prompt, sampling, stop, filtered.put)
            filtered.end()
            return GenerationResult("stop", result.tokens) if filtered.matched else result

        with self._lock:
            if len(self._stops) > self._limit:
                raise Busy("the server", f"has {self._limit} requests waiting", "Try again later")
            self._stops.add(stop)
        future = self._pool.submit(run)
        future.add_done_callback(lambda _: self._stops.discard(stop))
        return future

    def close(self) -> None:
        """Stop the running generation and drop the queued ones."""
        with self._lock:
            for stop in list(self._stops):
                stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


class EngineChatModel:
    """An engine as a chat model, for the chat page."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.context = engine.model.context
        self.longest = engine.model.longest

    def count(self, turns: list[Turn]) -> int:
        return self._engine.model.count(turns)

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        pieces: Queue[str | Future[GenerationResult]] = Queue()
        future = self._engine.submit(turns, sampling, stop, pieces.put)
        future.add_done_callback(pieces.put)
        try:
            while not isinstance(piece := pieces.get(), Future):
                if piece:
                    yield piece
            piece.result()
        finally:
            stop.set()
            future.cancel()
