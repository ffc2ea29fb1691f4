"""The terminal view of a run at work: what its log says, also while its last line is half written."""

import json
from pathlib import Path

import pytest
import yaml

from tests.model_toys import line
from zhllama.commands.watch import curve, look, total_steps, view
from zhllama.run_folder import Lock


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"command": "pretrain", "stage": 2}  # the steps come from the text
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    rows = [{"step": 0, "tokens": 0, "zh_bits_per_character": 8.0}]
    rows += [
        {"step": n, "tokens": n * 512, "loss": 5 - n / 20, "learning_rate": 1e-3, "tokens_per_second": 256.0,
         "steps": 100, "seconds": n * 2.5, "peak_memory_bytes": 3 << 30}
        for n in range(1, 51)
    ]  # fmt: skip
    rows.append({"step": 50, "tokens": 25600, "zh_bits_per_character": 6.5})
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 51, "lo'
    (folder / "log.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_a_run_at_work(run: Path) -> None:
    lock = Lock(run)
    try:
        state = look(run)
    finally:
        lock.release(remove=True)
    assert (state["state"], state["step"], state["steps"], state["tokens_per_second"]) == (
        "running",
        50,
        100,
        256.0,
    )
    assert state["seconds_left"] == 100  # 50 steps of 512 tokens at 256 a second
    assert state["curves"]["zh_bits_per_character"] == [8.0, 6.5]
    assert (state["seconds"], state["peak_memory_bytes"]) == (125.0, 3 << 30)


def test_steps_of_a_log_without_them_are_those_of_the_options(run: Path) -> None:
    """As zhllama 0.1 wrote its logs."""
    assert total_steps({"steps": 7}, {"step": 1}) == 7 and total_steps({"steps": 7}, {"steps": 9}) == 9
    assert total_steps({}, {}) is None


def test_the_view_of_a_stopped_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = line(run.parent, "watch", "run")
    assert told.code == 0, told.err
    rows = told.out.splitlines()
    assert "run (pretrain 2, stopped)" in rows[0] and "50/100, 256 tokens/s" in rows[1]
    assert "2 min so far, 2 min left" in rows[2] and "3.00 GiB at the peak" in rows[3]
    assert any("4.9500 → 2.5000  █" in row and row.rstrip().endswith("▁") for row in rows), told.out
    assert any("zh bits/char" in row and "8.0000 → 6.5000  █▁" in row for row in rows)
    assert max(map(len, rows)) <= 80
    assert json.loads(line(run.parent, "watch", "run", "--json").out)["step"] == 50
    monkeypatch.setenv("ZHLLAMA_LANG", "zh")
    assert "run（pretrain 2，已停止）" in line(run.parent, "watch", "run").out


def test_a_finished_run_and_no_run(run: Path, tmp_path: Path) -> None:
    manifest = {"command": "pretrain", "figures": {"steps": 50}, "inputs": [], "outputs": {}, "parents": []}
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert look(run)["state"] == "finished" and look(run)["seconds_left"] == 0
    told = line(tmp_path, "watch", ".")
    assert told.code == 1 and "is not a run of zhllama" in told.err
    (tmp_path / "config.yaml").write_text("command: merge-vocab\n", encoding="utf-8")
    assert "is not a training run" in line(tmp_path, "watch", ".").err


def test_curves_have_a_bounded_width() -> None:
    assert curve([1.0]) == "▁" and curve([]) == "" and curve([float("nan"), 2.0, 1.0]) == "█▁"
    falling = curve([1000 - n for n in range(1000)])
    assert len(falling) == 40 and falling[0] == "█" and falling[-1] == "▁"
    assert view(look_of({"loss": [float("nan")]})).row_count == 3


def look_of(curves: dict[str, list[float]]) -> dict[str, object]:
    return {"run": "r", "command": "sft", "stage": None, "state": "running", "step": 1, "steps": None,
            "tokens_per_second": None, "learning_rate": None, "seconds": None, "seconds_left": None,
            "peak_memory_bytes": None, "curves": curves}  # fmt: skip
