"""What an initialization costs is measured in the head, the input and both, at the boundaries of both tokenizations."""

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
