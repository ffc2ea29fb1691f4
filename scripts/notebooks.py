"""Runs the code of docs/notebooks/*.md, writes what it prints into both languages of a page, and makes notebooks of the pages.

    python scripts/notebooks.py [NAME...]

A page is the source of a notebook: each block of Python is a cell, and the block of text after it is its output. The pages need
neither Jupyter nor a kernel; tests/test_notebooks.py runs them in plain Python.
"""

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "notebooks"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n", re.M | re.S)


@dataclass(frozen=True)
class Cell:
    """A part of a page: prose in Markdown, or code with what it prints."""

    kind: str
    text: str
    output: str = ""


def cells(page: str) -> Iterator[Cell]:
    """The parts of a page in order; a block of text belongs to the block of Python before it."""
    rest, code = 0, ""
    for block in FENCED.finditer(page):
        prose = page[rest : block.start()].strip()
        if prose:
            yield Cell("markdown", prose)
        rest = block.end()
        if block[1] == "python":
            code = block[2]
        elif block[1] == "text" and code:
            yield Cell("code", code.rstrip("\n"), block[2])
            code = ""
    if prose := page[rest:].strip():
        yield Cell("markdown", prose)


def run(page: str) -> list[str]:
    """What each block of Python prints, run in order in one namespace; the folder of the process is restored."""
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = []
    with chdir(Path.cwd()):
        for cell in cells(page):
            if cell.kind == "code":
                out = io.StringIO()
                with redirect_stdout(out):
                    exec(compile(cell.text, "cell", "exec"), names)
                printed.append(out.getvalue())
    return printed


def with_outputs(page: str, printed: list[str]) -> str:
    """The page with these outputs in its blocks of text."""
    outputs = iter(printed)
    return re.sub(
        r"(^```python\n.*?^```\n\n```text\n).*?(^```\n)",
        lambda m: m[1] + next(outputs) + m[2],
        page,
        flags=re.M | re.S,
    )


def notebook(page: str) -> str:
    """The page as an .ipynb file, with its outputs."""
    made = []
    for number, cell in enumerate(cells(page)):
        entry: dict[str, Any] = {
            "cell_type": cell.kind, "id": f"cell-{number}", "metadata": {}, "source": _lines(cell.text)
        }  # fmt: skip
        if cell.kind == "code":
            stream = {"name": "stdout", "output_type": "stream", "text": _lines(cell.output)}
            entry |= {"execution_count": None, "outputs": [stream] if cell.output else []}
        made.append(entry)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def sources(names: list[str]) -> list[Path]:
    """The English pages of these names, or all."""
    pages = [path for path in sorted(PAGES.glob("*.md")) if not path.name.endswith(".zh.md")]
    return [path for path in pages if not names or path.stem in names]


def main() -> None:
    for path in sources(sys.argv[1:]):
        printed = run(path.read_text(encoding="utf-8"))
        for page in (path, path.with_name(f"{path.stem}.zh.md")):
            if page.is_file():
                text = with_outputs(page.read_text(encoding="utf-8"), printed)
                page.write_text(text, encoding="utf-8")
                page.with_suffix(".ipynb").write_text(notebook(text), encoding="utf-8")


if __name__ == "__main__":
    main()
