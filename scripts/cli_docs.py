"""Writes docs/cli.md from the --help of every command.

    python scripts/cli_docs.py

A test checks that docs/cli.md is up to date.
"""

from pathlib import Path

import typer
from typer.testing import CliRunner

from zhllama.cli import app

ROOT = Path(__file__).parent.parent
HEAD = "# Command line\n\nMade from `--help` by `python scripts/cli_docs.py`; do not edit.\n"


def commands(group: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every command, groups before their commands."""
    paths = [path]
    for name, command in getattr(group, "commands", {}).items():
        paths += commands(command, (*path, name))
    return paths


def cli_docs() -> str:
    """The whole page."""
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    page = [HEAD]
    for path in commands(typer.main.get_command(app)):
        shown = runner.invoke(app, [*path, "--help"], prog_name="zhllama").output
        lines = "\n".join(line.rstrip() for line in shown.strip("\n").splitlines())
        page.append(f"## zhllama {' '.join(path)}".rstrip() + f"\n\n```text\n{lines}\n```\n")
    return "\n".join(page)


if __name__ == "__main__":
    (ROOT / "docs" / "cli.md").write_text(cli_docs(), encoding="utf-8")
