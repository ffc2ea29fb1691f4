"""Runs command lines as an installation without extras would, and prints what each did as a line of JSON.

    python -m tests.minimal_installation HIDDEN < LINES

HIDDEN names extras, with commas, whose packages cannot be imported and have no metadata; LINES has a command line a row.
"""

import contextlib
import io
import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from typing import Any

from packaging.requirements import Requirement

from zhllama import extras
from zhllama.cli import main


def hide(names: list[str]) -> None:
    """Make the packages of extras look as if they were not installed."""
    known = extras.extras()
    hidden = {package for name in names for package in known[name].packages} - always_there()

    def found(name: str) -> str:
        if name in hidden:
            raise PackageNotFoundError(name)
        return version(name)

    setattr(extras, "version", found)  # noqa: B010
    modules: dict[str, Any] = sys.modules  # type: ignore[assignment]
    for module, distributions in packages_distributions().items():
        if any(name.lower().replace("_", "-") in hidden for name in distributions):
            modules[module] = None


def always_there(of: str = "zhllama") -> set[str]:
    """The packages that zhllama installs without extras, and those that they need."""
    found, ahead = set[str](), [of]
    while ahead:
        try:
            needed = [Requirement(text) for text in requires(ahead.pop()) or []]
        except PackageNotFoundError:
            continue
        ours = [r.name.lower() for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
        ahead += [name for name in ours if name not in found]
        found.update(ours)
    return found


def told(line: str) -> dict[str, Any]:
    """The exit code of a command line and what it printed."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(shlex.split(line))
        except SystemExit as left:
            code = int(left.code or 0)
    return {"line": line, "code": code, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    lines = sys.stdin.read().splitlines()
    hide(sys.argv[1].split(","))
    for each in lines:
        print(json.dumps(told(each)), flush=True)
