"""Loaded first in every worker process: datatrove's log stays quiet, and a worker does not outlive its command."""

import os
import threading
import time

from loguru import logger

logger.disable(
    "datatrove"
)  # what matters of it stands in the run's stats, and errors come back to the command


def follow(command: int) -> None:
    """Make each process forked from here on end when the process `command` is gone.

    After SIGKILL nobody tells the workers, and one that goes on would write the files that a resumed run writes.
    """
    os.register_at_fork(
        after_in_child=lambda: threading.Thread(target=_watch, args=(command,), daemon=True).start()
    )


def _watch(command: int) -> None:
    while True:
        try:
            os.kill(command, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(0.2)
