"""The page of architectures keeps the rows of types that are not walked again."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "experiments"))

from architecture_pages import ENGLISH, STEPS, page, read_page, write_pages

REFUSED = "model: has the type toy, and --gguf supports only llama. Omit --gguf."


def row(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "class": "X", **dict.fromkeys(STEPS, "ok"), "GGUF": REFUSED, **more}


def test_a_page_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        row("a", difference=4e-07, commit="60bcaaa"),
        row("b-c", **{"stage 1": "plain", "export": "nothing was trained"}),
        {"type": "d_2", "cannot be built": "ValueError: too large"},
    ]
    text = page(rows, ENGLISH)
    assert "| a | ok | ok | ok | ok | ok | ok | [1] | 4e-07 | 60bcaaa |" in text
    assert "| b-c | ok | plain | ok | ok | ok | - | [1] | - | - |" in text
    assert page(read_page(text), ENGLISH) == text


def test_rows_that_are_not_walked_again_stay(tmp_path: Path) -> None:
    write_pages([row("a"), row("b", difference=1e-6)], tmp_path)
    write_pages([row("a", grow="model: cannot grow. Name another.", commit="abc1234")], tmp_path)
    found = {
        one["type"]: one for one in read_page((tmp_path / "architectures.md").read_text(encoding="utf-8"))
    }
    assert found["a"]["grow"] == "MODEL: cannot grow. Name another." and found["a"]["commit"] == "abc1234"
    assert found["b"]["difference"] == 1e-6 and found["b"]["commit"] == "-"
    assert (tmp_path / "architectures.zh.md").read_text(encoding="utf-8").count("| abc1234 |") == 1
