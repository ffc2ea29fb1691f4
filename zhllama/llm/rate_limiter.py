"""How many calls may be under way: more while all goes well, fewer when the server says so."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

START = 8.0
DECREASE = 0.7


class RateLimiter:
    """Additive increase, multiplicative decrease, as TCP does it, between 1 and `most`.

    Until the server first complains, each success adds one (so the limit doubles a window); afterwards a whole window of
    successes adds one. A complaint takes the limit down to 0.7 of it, at most once a window, and closes the gate for all
    until the time the server named.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        assert most >= 1
        self.most, self.limit, self.in_flight = most, min(START, float(most)), 0
        self._clock, self._waiting = clock, deque[asyncio.Future[None]]()
        self._closed_until, self._window_ends, self._slow = 0.0, 0, False
        self._done = 0

    @property
    def load(self) -> float:
        """Calls under way and waiting, as a share of what is allowed; more than 1e3 while the gate is closed."""
        closed = 1e3 if self._clock() < self._closed_until else 0.0
        return closed + (self.in_flight + len(self._waiting)) / self.limit

    def succeeded(self) -> None:
        """A call came back well."""
        self.limit = min(float(self.most), self.limit + (1 / self.limit if self._slow else 1))
        self._wake()

    def refused(self, seconds: float) -> None:
        """The server asked for fewer calls, and none for so many seconds."""
        self._slow = True
        self._closed_until = max(self._closed_until, self._clock() + seconds)
        if self._done >= self._window_ends:
            self.limit = max(1.0, self.limit * DECREASE)
            self._window_ends = self._done + self.in_flight
        while self._waiting:
            if not (turn := self._waiting.popleft()).done():
                turn.set_result(None)

    async def enter(self) -> bool:
        """Take a place; or wait a while for one, and then False: who waits chooses anew, perhaps another gate."""
        if (closed := self._closed_until - self._clock()) > 0:
            await asyncio.sleep(min(closed, 1.0))
            return False
        if self.in_flight < int(self.limit):
            self.in_flight += 1
            return True
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._wake()  # a turn that was given to one who left goes to the next
            raise
        return False

    def leave(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        self._done += 1
        self._wake()

    def _wake(self) -> None:
        free = int(self.limit) - self.in_flight
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1
