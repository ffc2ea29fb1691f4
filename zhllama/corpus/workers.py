"""Worker processes of the local executor: without log output, and ended together with their parent."""

import os
import threading
import time

from loguru import logger


def quiet() -> None:
    """Disable datatrove's log in this process and those forked from it.

    Its stats contain the same information, and errors reach the command. Under Ray and Slurm they do not, so the log
    stays enabled there.
    """
    logger.disable("datatrove")


def follow(command: int) -> None:
    """Make each process that is forked from now on exit when the process with id `command` has ended.

    SIGKILL cannot be passed on to workers, and a surviving worker would write the same files as a resumed run.
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
