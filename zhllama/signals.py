"""Keeps signals away from a child process, and from this one while it starts the child."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP take effect at the end of the block; a process that is started in it has them blocked.

    The terminal sends Ctrl-C to the children of a command too. One that is interrupted while it imports, or whose parent
    is interrupted before it has sent the child its task, prints a traceback.
    """
    came: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # only there does Python call handlers
        # A mask does not suffice: any other thread of this process may receive the signal.
        for number in STOPPING:
            if callable(signal.getsignal(number)):
                handlers[number] = signal.signal(number, lambda number, _: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for caught in came:
            signal.raise_signal(caught)
