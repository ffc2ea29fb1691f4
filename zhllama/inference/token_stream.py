"""Streams tokens as text that never contains half a character.

transformers.TextIteratorStreamer is not used: it holds text back until the next space, which Chinese does not have, and its
queue cannot pass on stop strings and errors.
"""

from collections.abc import Callable, Iterator
from queue import Queue
from threading import Event, Thread
from typing import Any


class TokenStream:
    """Decodes ids one by one into pieces of text that join to the text of all ids.

    A Chinese character without its own token is three byte tokens, an emoji four: a piece is returned only when it is
    whole. Only the ids of the last two pieces are decoded again, so the cost per token does not grow.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # The number of ids whose text was returned; decoding the next ids without them would lose a space.
        self._shown = 0

    def put(self, id: int) -> str:
        """The text that this id completes; empty while a character is incomplete."""
        self._ids.append(id)
        text = self._rest()
        if not text or text.endswith("\ufffd"):
            return ""
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return text

    def end(self) -> str:
        """The remaining text, complete or not."""
        text = self._rest()
        self._ids, self._shown = [], 0
        return text

    def _rest(self) -> str:
        shown, whole = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        if whole.startswith(shown):
            return whole[len(shown) :]
        # Half a character can change the decoding of the whole ones before it.
        return self._decode(self._ids[self._shown :])

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class StopStrings:
    """Emits text up to the first stop string, which is not emitted, and then sets `stop`.

    The end of a piece that could begin a stop string waits for the next piece.
    """

    def __init__(self, strings: tuple[str, ...], emit: Callable[[str], None], stop: Event) -> None:
        self._strings, self._emit, self._stop = strings, emit, stop
        self._waiting, self.matched = "", False

    def put(self, piece: str) -> None:
        """Emit the part of this piece that cannot belong to a stop string."""
        if self.matched:
            return
        text = self._waiting + piece
        positions = [at for string in self._strings if (at := text.find(string)) >= 0]
        if positions:
            self.matched, self._waiting = True, ""
            self._emit(text[: min(positions)])
            self._stop.set()
            return
        longest = max(map(len, self._strings), default=1) - 1
        length = next((n for n in range(min(longest, len(text)), 0, -1) if text.endswith(self._starts(n))), 0)
        self._waiting = text[len(text) - length :]
        self._emit(text[: len(text) - length])

    def end(self) -> None:
        """Emit the waiting text at the end."""
        self._emit(self._waiting)
        self._waiting = ""

    def _starts(self, length: int) -> tuple[str, ...]:
        return tuple(string[:length] for string in self._strings if len(string) > length)


def stream_from_thread(work: Callable[[Callable[[str], None]], object], stop: Event) -> Iterator[str]:
    """Run `work` in a thread and yield the text that it passes to its argument.

    The consumer can therefore be interrupted at any time. When it ends, `stop` is set and the thread is joined.
    Errors: whatever `work` raises.
    """
    pieces: Queue[str | Exception | None] = Queue()

    def run() -> None:
        try:
            work(pieces.put)
        except Exception as error:
            pieces.put(error)
        finally:
            pieces.put(None)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            if piece:
                yield piece
    finally:
        stop.set()
        thread.join()
