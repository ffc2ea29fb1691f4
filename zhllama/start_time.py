"""When the command of this process began, so that the duration of its run includes the imports."""

from contextvars import ContextVar

STARTED: ContextVar[float | None] = ContextVar("STARTED", default=None)  # seconds of time.monotonic()
