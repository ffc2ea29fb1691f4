"""Turns tokens into displayable text as they arrive, never half a character."""

from collections.abc import Callable, Iterator
from queue import Queue
from threading import Event, Thread
from typing import Any


class TokenStream:
    """Turns ids one by one into pieces of text whose join is the text of all ids.

    A Chinese character without a token of its own comes as three bytes, an emoji as four: nothing is given out until
    it is whole. Only the ids since the last piece but one are decoded again, so a long answer costs no more a token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = (
            0  # of the ids, how many have been given out; those before them are there for the space between
        )

    def put(self, id: int) -> str:
        """The text that this id completes; often one token's, empty while a character is not whole."""
        self._ids.append(id)
        text = self._rest()
        if not text or text.endswith("\ufffd"):
            return ""
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return text

    def end(self) -> str:
        """What is left at the end, broken or not."""
        text = self._rest()
        self._ids, self._shown = [], 0
        return text

    def _rest(self) -> str:
        shown, whole = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        if whole.startswith(shown):
            return whole[len(shown) :]
        return self._decode(
            self._ids[self._shown :]
        )  # half a character makes the whole ones before it look broken too

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class StopStrings:
    """Passes pieces on up to the first of some strings, which is not passed on, and then sets `stop`.

    The end of a piece that could begin such a string waits for the next one.
    """

    def __init__(self, strings: tuple[str, ...], say: Callable[[str], None], stop: Event) -> None:
        self._strings, self._say, self._stop = strings, say, stop
        self._waiting, self.found = "", False

    def put(self, piece: str) -> None:
        """Pass on what of this piece is certain."""
        if self.found:
            return
        text = self._waiting + piece
        places = [place for string in self._strings if (place := text.find(string)) >= 0]
        if places:
            self.found, self._waiting = True, ""
            self._say(text[: min(places)])
            self._stop.set()
            return
        longest = max(map(len, self._strings), default=1) - 1
        held = next((n for n in range(min(longest, len(text)), 0, -1) if text.endswith(self._starts(n))), 0)
        self._waiting = text[len(text) - held :]
        self._say(text[: len(text) - held])

    def end(self) -> None:
        """Pass on what waited: no more comes."""
        self._say(self._waiting)
        self._waiting = ""

    def _starts(self, length: int) -> tuple[str, ...]:
        return tuple(string[:length] for string in self._strings if len(string) > length)


def stream_from_thread(work: Callable[[Callable[[str], None]], object], stop: Event) -> Iterator[str]:
    """What `work` says to the function that it is given, as it says it; it runs in a thread of its own.

    So whoever listens can be interrupted at any moment. When the listening ends, `stop` is set and the end awaited.
    Errors: whatever `work` raises.
    """
    said: Queue[str | Exception | None] = Queue()

    def run() -> None:
        try:
            work(said.put)
        except Exception as error:
            said.put(error)
        finally:
            said.put(None)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while (piece := said.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            if piece:
                yield piece
    finally:
        stop.set()
        thread.join()
