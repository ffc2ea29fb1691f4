"""Worker processes of the local executor: quiet, and ended with their parent."""

import os
import threading
import time

from loguru import logger


def quiet() -> None:
    """Keep datatrove's log off the screen, in this process and those forked from it: what matters stands in its stats,
    and errors come back to the command. Ray and Slurm have no way back, so there the log is left on."""
    logger.disable("datatrove")


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
