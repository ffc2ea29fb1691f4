"""The notebooks of the docs: their code runs in plain Python, prints what the pages show, and the .ipynb files are these pages."""

import json
import re
import time
from pathlib import Path

import pytest

from scripts.notebooks import PAGES, cells, notebook, run, sources, with_outputs

NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*\.?\d*(?:e-?\d+)?")
TINY = 1e-5  # a relative difference of logits may be any value below this


def close(left: str, right: str) -> bool:
    """Whether two numbers differ by no more than other machines round."""
    a, b = (float(text.replace(",", "")) for text in (left, right))
    return abs(a - b) <= 0.02 * max(abs(a), abs(b)) or max(abs(a), abs(b)) < TINY


@pytest.mark.parametrize("page", sources([]), ids=lambda page: page.stem)
def test_the_code_prints_what_the_page_shows(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mistral_common", reason="the embedded base is in an extra")
    if page.stem == "train":
        pytest.importorskip("torch", reason="training is an extra")
    monkeypatch.setenv("COLUMNS", "80")
    text = page.read_text(encoding="utf-8")
    started = time.process_time()
    printed = run(text)
    assert time.process_time() - started < 60, "a notebook is to take less than a minute of one core"
    shown = [cell.output for cell in cells(text) if cell.kind == "code"]
    assert len(shown) == len(printed) >= 5
    for left, right in zip(printed, shown, strict=True):
        assert NUMBER.sub("#", left) == NUMBER.sub("#", right)
        for pair in zip(NUMBER.findall(left), NUMBER.findall(right), strict=True):
            assert close(*pair), (left, right)


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.name)
def test_notebooks_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    made = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert made == notebook(text), "run python scripts/notebooks.py"
    read = json.loads(made)
    assert read["nbformat"] == 4 and len({cell["id"] for cell in read["cells"]}) == len(read["cells"])
    code = [cell for cell in read["cells"] if cell["cell_type"] == "code"]
    assert len(code) == text.count("```python\n")
    assert all(cell["outputs"][0]["output_type"] == "stream" for cell in code)


def test_a_page_becomes_cells() -> None:
    page = "# T\n\n```python\nprint(1)\n```\n\n```text\nold\n```\n\nEnd.\n"
    assert [(cell.kind, cell.text, cell.output) for cell in cells(page)] == [
        ("markdown", "# T", ""), ("code", "print(1)", "old\n"), ("markdown", "End.", "")
    ]  # fmt: skip
    assert run(page) == ["1\n"]
    assert with_outputs(page, run(page)) == page.replace("old", "1")
