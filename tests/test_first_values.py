"""What an initialization costs is measured in the head, the input and both, at the boundaries of both tokenizations."""

import json
from pathlib import Path

import pytest
import torch

import scripts.experiments.first_values as first_values
from tests.model_toys import CHINESE, ENGLISH, larger_vocabulary, write_model, write_tokenizer
from zhllama.model.grow import grow
from zhllama.model.growth_plan import plan_growth
from zhllama.model.load import load_base


def test_head_input_and_both(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    grow(base, larger, tmp_path / "grown")
    plan = plan_growth(base, larger)
    model, grown = (load_base(folder, torch.float32).eval() for folder in (base, tmp_path / "grown"))
    head = model.get_output_embeddings().weight.detach()

    def measured(text: str, unit: str) -> tuple[dict[str, float], dict[str, float]]:
        passages = [(text, first_values._states(model, plan.old.encode([text])[0]))]
        return (
            first_values.measure_old(passages, plan, head, unit),
            first_values.measure(grown, passages, plan, head, unit),
        )

    # without new tokens every boundary is shared, the input is the same, and the head only has more rows to share with
    old, new = measured(ENGLISH, "byte")
    assert old["head"] == old["both"] == pytest.approx(old["input"]) == pytest.approx(new["input"])
    assert new["both"] == pytest.approx(new["head"]) and new["head"] > old["head"]
    # with new tokens there are fewer boundaries, and what is predicted there from other inputs is other
    old, new = measured(CHINESE, "character")
    assert old["input"] < old["head"]
    assert new["input"] != pytest.approx(old["input"]) and new["both"] != pytest.approx(new["head"])


def values(zh: float, en: float) -> dict[str, dict[str, float]]:
    return {"zh": dict.fromkeys(first_values.MEASURES, zh), "en": dict.fromkeys(first_values.MEASURES, en)}


def test_the_table_has_means_and_ranges_by_size_and_way() -> None:
    measured = {
        "8000 shared seed 0": values(5.0, 1.0),
        "8000 old": values(4.0, 1.0),
        "8000 shared seed 1": values(6.0, 1.5),
        "2000 mean seed 0": values(7.0, 1.25),
    }
    cell = "5.500 (5.000到6.000) / 1.2500"
    assert list(first_values.table(measured, "zh"))[2:] == [
        "| 2,000 | `mean` | 7.000 / 1.2500 | 7.000 / 1.2500 | 7.000 / 1.2500 | 1 |",
        "| 8,000 | 原词表 | 4.000 / 1.0000 | 4.000 / 1.0000 | 4.000 / 1.0000 |  |",
        f"| 8,000 | `shared` | {cell} | {cell} | {cell} | 2 |",
    ]


def test_a_page_without_its_mark_is_refused() -> None:
    assert first_values.between("a <!-- x --> old <!-- end of x --> b", "x", "new") == "a <!-- x -->\n\nnew\n\n<!-- end of x --> b"  # fmt: skip
    for page in ("a", "a <!-- x --> b", "<!-- end of x --> a <!-- x -->"):
        with pytest.raises(ValueError, match="no <!-- x -->"):
            first_values.between(page, "x", "new")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_pages_have_the_tables_of_the_stored_points(language: str) -> None:
    page = first_values.PAGES[language].read_text(encoding="utf-8")
    stored = json.loads(first_values.STORED.read_text(encoding="utf-8"))
    assert tuple(stored) == first_values.BASES
    for base, measured in stored.items():
        table = "\n".join(first_values.table(measured, language))
        assert first_values.between(page, base, table) == page
