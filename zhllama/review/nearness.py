"""Nearness of rows: the similarity of each question to the nearest earlier one, computed in the background when asked for."""

from threading import Event, Lock, Thread

import numpy as np
import numpy.typing as npt

from zhllama.generation.near_duplicates import NearDuplicateIndex
from zhllama.review.row_index import RowIndex
from zhllama.review.row_parts import prompt_of

THRESHOLD = 0.5  # ROUGE-L F below which a row is near to none
LONGEST = 400  # characters of a question that are compared


class Nearness:
    """ROUGE-L F of each question to the nearest earlier question, as in gen-zh; 0 below THRESHOLD.

    `done` counts the rows that were compared so far. Nothing is computed before `start`.
    """

    def __init__(self, index: RowIndex) -> None:
        self._index, self._stop, self._lock = index, Event(), Lock()
        self._scores = np.zeros(0, np.float32)
        self._neighbors = np.zeros(0, np.int64)
        self._thread: Thread | None = None
        self.done = 0

    @property
    def started(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        """Begin the comparison, once."""
        with self._lock:
            if self._thread is None:
                self._thread = Thread(target=self._run, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the comparison."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def scores(self) -> npt.NDArray[np.float32]:
        """The scores of the rows so far."""
        return self._scores[: self.done]

    def nearest(self, number: int) -> tuple[int, float] | None:
        """The nearest earlier row of a row, and the score; None where none is near, or the row was not compared yet."""
        if number >= self.done or not self._scores[number]:
            return None
        return int(self._neighbors[number]), float(self._scores[number])

    def _run(self) -> None:
        compared = NearDuplicateIndex(THRESHOLD)
        while not self._stop.is_set():
            finished = self._index.done.is_set()  # before the count: rows may be added between the two
            count = len(self._index)
            if count > len(self._scores):
                more = max(count, 2 * len(self._scores)) - len(self._scores)
                self._scores = np.concatenate([self._scores, np.zeros(more, np.float32)])
                self._neighbors = np.concatenate([self._neighbors, np.zeros(more, np.int64)])
            while self.done < count and not self._stop.is_set():
                text = prompt_of(self._index.read(self.done).facts.parts)[:LONGEST]
                if found := compared.find(text):
                    self._scores[self.done], self._neighbors[self.done] = found.score, found.number
                compared.add(text)
                self.done += 1
            if finished:
                return
            self._index.done.wait(0.2)
