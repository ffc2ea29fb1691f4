"""Experiment trackers: asked for by name, refused without their package before any work, and fed by transformers' own callbacks."""

import importlib.util
from pathlib import Path

import pytest

from tests.model_toys import line
from tests.test_training_run import cache, stage, workspace
from zhllama.errors import OptionError
from zhllama.training import trackers
from zhllama.training.options import PretrainingOptions
from zhllama.training.train import trainer_arguments

__all__ = ["cache", "workspace"]
MISSING = next(
    (
        name
        for name, packages in trackers.PACKAGES.items()
        if not any(map(importlib.util.find_spec, packages))
    ),
    None,
)


@pytest.mark.skipif(MISSING is None, reason="every tracker is installed")
def test_a_missing_tracker_is_told_before_any_work(workspace: Path) -> None:
    done = line(
        workspace, *stage(1, "base", "run", "--tokenizer", "tok", "--steps", 2, "--report-to", MISSING)
    )
    assert done.code == 1 and not (workspace / "run").exists()
    assert f"--report-to {MISSING}: needs the package " in done.err and "pip install" in done.err


@pytest.mark.parametrize("name", trackers.PACKAGES)
def test_transformers_gets_the_tracker_and_the_name_of_the_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert name in INTEGRATION_TO_CALLBACK
    monkeypatch.setattr(trackers, "find_spec", lambda package: True)
    arguments = trainer_arguments(PretrainingOptions(stage=1, steps=1, report_to=name), tmp_path / "my-run")  # type: ignore[arg-type]
    assert arguments.report_to == [name] and arguments.run_name == "my-run"


def test_without_a_name_tensorboard_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: True if package == "tensorboardX" else None)
    assert trackers.chosen_tracker(None) == "tensorboard"
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    assert trackers.chosen_tracker(None) == trackers.chosen_tracker("none") == "none"
    with pytest.raises(OptionError, match=r"report_to wandb: needs the package wandb\. .*install wandb"):
        trackers.chosen_tracker("wandb")


@pytest.mark.skipif(
    not any(map(importlib.util.find_spec, trackers.PACKAGES["tensorboard"])),
    reason="no tensorboard: pip install tensorboardX",
)
def test_tensorboard_gets_the_curves(workspace: Path) -> None:
    done = line(
        workspace, *stage(1, "base", "run", "--tokenizer", "tok", "--steps", 2, "--report-to", "tensorboard")
    )
    assert done.code == 0, done.err
    (events,) = (workspace / "run" / "tensorboard").rglob("events.out.tfevents.*")
    content = events.read_bytes()
    assert b"train/loss" in content and b"bits_per_character" in content
