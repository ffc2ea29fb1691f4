"""Tokens as they come, into text as it can be shown: never half a character."""

from collections.abc import Callable, Iterator
from queue import Queue
from threading import Event, Thread
from typing import Any


class Pieces:
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


def spoken(work: Callable[[Callable[[str], None]], None], stop: Event) -> Iterator[str]:
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
