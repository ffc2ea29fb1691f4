"""Removes the current folder from Python's import path: a downloaded folder may contain a yaml.py.

`quiet_interrupt` is here because it must come as early.

This module imports only what Python has loaded already, so not pathlib: it could come from the current folder.
"""

import _signal  # type: ignore[import-not-found]  # `signal` would first import enum and re
import os
import sys


def leave_current_folder() -> None:
    """Remove the current folder from `sys.path`, and from that of every child process.

    `python -m`, `python -c` and an empty entry in PYTHONPATH put it there. It stays if it contains this package: a
    checkout that is not installed.
    """
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        here = ""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    first = sys.path[:1] if not sys.flags.safe_path and sys.path[:1] == [here] else []
    rest = [entry for entry in sys.path[len(first) :] if not _is_here(entry, here)]
    sys.path[:] = [*([home] if here == home else []), *rest]
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    retained = [entry for entry in entries if entry and not _is_here(entry, here)]
    if here == home and home not in retained:
        retained.insert(0, home)
    if any(entries) or retained:
        os.environ["PYTHONPATH"] = os.pathsep.join(retained)
    os.environ["PYTHONSAFEPATH"] = "1"


def _is_here(entry: str, here: str) -> bool:
    """Whether an entry means the current folder implicitly; an absolute path is the user's choice."""
    if not here:
        return not entry
    return not os.path.isabs(entry) and os.path.abspath(entry or ".") == here


def quiet_interrupt() -> None:
    """Let Ctrl-C end the process without a traceback, as it ends programs that do not handle it."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
