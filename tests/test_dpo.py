"""dpo on a two-layer model: it comes to prefer, what it leaves goes through export and answer, kills change nothing."""

import json
from pathlib import Path

import pytest
import torch

from tests.model_toys import line
from tests.test_reward import MEASURED, SETTINGS, encoder, figures, ground, killed_at, train
from zhllama.commands import training_screen

__all__ = ["encoder", "ground"]


@pytest.mark.parametrize("full", [False, True])
def test_it_comes_to_prefer_and_its_run_is_a_model(ground: Path, full: bool) -> None:
    out, more = ("full", ("--full", "--lr", 1e-3)) if full else ("lora", ("--lr", 1e-2))
    made = figures(ground, *train("dpo", "--out", out, "--steps", 10, *more))
    assert (
        made["accuracy_validation"] == {"before": 0.5, "after": 1.0}
        and made["margin_validation"]["before"] == 0
    )
    assert (
        made["margin_validation"]["after"] > 1
        and made["likelier_validation"]["after"] >= made["likelier_validation"]["before"]
    )
    kept = sorted(p.name for p in (ground / out).iterdir() if p.is_dir())
    assert kept == (["tokenizer", "tuned"] if full else ["adapter", "tokenizer"])
    told = line(ground, "export", out, "--out", f"{out}-plain")
    assert told.code == 0, told.err
    (ground / "q.jsonl").write_text('{"id": 1, "instruction": "说说历史"}\n', encoding="utf-8")
    asked = ("--questions", "q.jsonl", "--reply-tokens", 12)
    for model in (out, f"{out}-plain"):
        assert line(ground, "answer", model, *asked, "--out", f"{model}-said").code == 0
    said = [
        json.loads((ground / f"{model}-said" / "answers.jsonl").read_text(encoding="utf-8"))
        for model in (out, f"{out}-plain")
    ]
    assert said[0]["answer"] == said[1]["answer"], "the exported model says what the run says"
    manifest = json.loads((ground / out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["options"]["model"] == str(ground / "base") and manifest["figures"]["pairs"] == 54


def test_the_frozen_body_stays_and_the_first_loss_is_log_two(ground: Path) -> None:
    before = (ground / "base" / "model.safetensors").read_bytes()
    figures(ground, *train("dpo", "--out", "one", "--steps", 2, "--validation-share", 0))
    assert (ground / "base" / "model.safetensors").read_bytes() == before
    first = json.loads((ground / "one" / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["loss"] == pytest.approx(float(torch.log(torch.tensor(2.0))), abs=1e-4)


def test_it_goes_on_from_a_run_and_that_one_is_its_reference(ground: Path) -> None:
    """A second dpo run begins where the first ended: no pair has gained anything yet."""
    figures(ground, *train("dpo", "--out", "first", "--steps", 6, "--lr", 1e-2))
    told = figures(ground, "dpo", "--model", "first", "--pairs", "pairs.jsonl", *SETTINGS, "--out", "second", "--steps", 1)  # fmt: skip
    assert told["accuracy_validation"]["before"] == 0.5 and told["template"] == "own"
    first = json.loads((ground / "second" / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)
    manifest = json.loads((ground / "second" / "manifest.json").read_text(encoding="utf-8"))
    assert str(ground / "first") in manifest["parents"]
    assert line(ground, "export", "second", "--out", "second-plain").code == 0


def test_a_step_that_takes_minutes_is_shown_as_training(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar said `opening the model` until the end of the first step, and of a run of one step to its end."""
    shown = list[tuple[object, ...]]()
    monkeypatch.setattr(
        training_screen,
        "show_step",
        lambda bar, line: shown.append((line["step"], line["steps"], "loss" in line)),
    )
    figures(ground, *train("dpo", "--out", "shown", "--steps", 2, "--validation-share", 0))
    assert shown[0] == (0, 2, False) and (1, 2, True) in shown


@pytest.mark.parametrize("more", [(), pytest.param(("--full",), marks=pytest.mark.slow)])
def test_killed_anywhere_a_dpo_run_ends_with_the_same_bytes(ground: Path, more: tuple[str, ...]) -> None:
    name = "full" if more else "lora"
    settings = ("--steps", 8, "--save-every", 3, "--eval-every", 4, "--lr", 1e-3, *more)
    assert line(ground, *train("dpo", "--out", f"{name}-whole", *settings)).code == 0
    arguments = train("dpo", "--out", f"{name}-killed", *settings, "--resume")
    kills = [killed_at(ground, arguments, ground / f"{name}-killed", lines) for lines in (2, 7)]
    assert kills[0]
    told = line(ground, *arguments)
    assert told.code == 0, told.err
    file = "tuned/model.safetensors" if more else "adapter/adapter_model.safetensors"
    one, other = (ground / f"{name}-{way}" / file for way in ("killed", "whole"))
    assert one.read_bytes() == other.read_bytes()
    logs = [
        [{k: v for k, v in json.loads(row).items() if k not in MEASURED} for row in (ground / f"{name}-{way}" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        for way in ("killed", "whole")
    ]  # fmt: skip
    assert logs[0] == logs[1]
