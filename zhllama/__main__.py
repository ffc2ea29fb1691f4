"""The entry point of the `zhllama` command and of `python -m zhllama`."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it; Ctrl-C while it loads ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from zhllama.cli import main as run

    run()


if __name__ == "__main__":
    main()
