"""A rate limiter that adapts the number of concurrent calls to what the server accepts."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

START = 8.0
DECREASE = 0.7


class RateLimiter:
    """Additive increase, multiplicative decrease, as in TCP, between 1 and `maximum` concurrent calls.

    Until the server first asks for fewer calls, each success raises the limit by one (so it doubles per window);
    afterwards a whole window of successes raises it by one. A request for fewer calls lowers the limit to 0.7 of its
    value, at most once per window, and blocks new calls for the time that the server named.
    """

    def __init__(self, maximum: int, clock: Callable[[], float] = time.monotonic) -> None:
        assert maximum >= 1
        self.maximum, self.limit, self.in_flight = maximum, min(START, float(maximum)), 0
        self._clock, self._waiting = clock, deque[asyncio.Future[None]]()
        self._blocked_until, self._window_end, self._past_slow_start = 0.0, 0, False
        self._completed = 0

    @property
    def load(self) -> float:
        """Calls in flight and waiting, relative to the limit; above 1e3 while new calls are blocked."""
        penalty = 1e3 if self._clock() < self._blocked_until else 0.0
        return penalty + (self.in_flight + len(self._waiting)) / self.limit

    def record_success(self) -> None:
        """Raise the limit after a successful call."""
        increase = 1 / self.limit if self._past_slow_start else 1
        self.limit = min(float(self.maximum), self.limit + increase)
        self._wake()

    def back_off(self, seconds: float) -> None:
        """Lower the limit and block new calls for so many seconds."""
        self._past_slow_start = True
        self._blocked_until = max(self._blocked_until, self._clock() + seconds)
        if self._completed >= self._window_end:
            self.limit = max(1.0, self.limit * DECREASE)
            self._window_end = self._completed + self.in_flight
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                waiter.set_result(None)

    async def acquire(self) -> bool:
        """Take a slot and return True; if none is free, wait and return False.

        After False the caller picks a server again, since another one may have become free.
        """
        if (seconds := self._blocked_until - self._clock()) > 0:
            await asyncio.sleep(min(seconds, 1.0))
            return False
        if self.in_flight < int(self.limit):
            self.in_flight += 1
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self._wake()  # the next waiter takes the slot of the cancelled one
            raise
        return False

    def release(self) -> None:
        """Free a slot."""
        self.in_flight -= 1
        self._completed += 1
        self._wake()

    def _wake(self) -> None:
        free = int(self.limit) - self.in_flight
        while free > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1
