"""Keeps the current folder off the import path, since a downloaded folder may contain a yaml.py.

Nothing is imported here that Python has not loaded by itself before, pathlib neither: it would come from the folder in question.
"""

import os
import sys


def leave_current_folder() -> None:
    """Take the current folder from `sys.path`, and keep it from that of every process that this one starts.

    `python -m` and `python -c` put it there, and so does an empty entry in PYTHONPATH. It stays where this package itself
    lies in it: a checkout that is not installed.
    """
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        here = ""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    first = sys.path[:1] if not sys.flags.safe_path and sys.path[:1] == [here] else []
    rest = [entry for entry in sys.path[len(first) :] if not _is_here(entry, here)]
    sys.path[:] = [*([home] if here == home else []), *rest]
    asked = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in asked if entry and not _is_here(entry, here)]
    if here == home and home not in kept:
        kept.insert(0, home)
    if any(asked) or kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    os.environ["PYTHONSAFEPATH"] = "1"


def _is_here(entry: str, here: str) -> bool:
    """Whether an entry means whatever folder is the current one; one that spells it out was asked for."""
    if not here:
        return not entry
    return not os.path.isabs(entry) and os.path.abspath(entry or ".") == here
