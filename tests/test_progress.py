"""The progress of a command: moving on a terminal, a line now and then in a file, each naming its stage, rate and remaining time."""

import io
import re
import time

import pytest

from zhllama.commands import progress, shared, training_screen
from zhllama.commands.console import SafeConsole
from zhllama.commands.progress import duration, progress_on
from zhllama.commands.training_screen import hooks_for, show_step


def console(terminal: bool) -> tuple[SafeConsole, io.StringIO]:
    made, written = SafeConsole(), io.StringIO()
    made.file, made._force_terminal, made.width = written, terminal, 80  # type: ignore[attr-defined]
    made.is_interactive = terminal
    return made, written


def test_a_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.1)
    screen, written = console(False)
    with progress_on(screen, "encoding", 1000, "bytes") as bar:
        for _ in range(5):
            time.sleep(0.05)
            bar(100)
        bar.note("a note")
        time.sleep(0.15)
    lines = written.getvalue().splitlines()
    assert 2 <= len(lines) <= 6
    assert re.fullmatch(r"\d\d:\d\d:\d\d encoding: 50 %, [\d.]+ kB/s, \d s left, a note", lines[-1]), lines


def test_a_stage_that_counts_nothing_still_tells_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.1)
    screen, written = console(False)
    with progress_on(screen, "folding", None, "share"):
        time.sleep(0.15)
    assert re.fullmatch(r"\S+ folding: 0 s\n", written.getvalue())


def test_nothing_is_told_of_short_work() -> None:
    screen, written = console(False)
    with progress_on(screen, "encoding", 10, "bytes") as bar:
        bar(10)
    assert written.getvalue() == ""


def test_a_terminal_moves_while_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    screen, written = console(True)
    with progress_on(screen, "proving", None, "lines"):
        time.sleep(0.5)
    shown = written.getvalue()
    assert "proving" in shown and len(set(re.findall("[⠀-⣿]", shown))) > 2
    assert max(len(re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", row)) for row in re.split(r"[\r\n]", shown)) <= 80


def test_no_figure_is_torn_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the figures of a real training, its note left them 8 columns: `12,427/20,…`."""
    monkeypatch.setenv("TERM", "xterm-256color")
    screen, written = console(True)
    with progress_on(screen, "training", 20_000, "steps") as bar:
        bar.note("loss 6.8054, 12,408 tokens/s")
        for step in range(12_400, 12_430):
            bar.at(step)
            time.sleep(0.01)
        time.sleep(0.2)
    rows = re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written.getvalue()))
    assert any(" 12,429/20,000 steps " in row for row in rows) and "…" not in "".join(rows), rows
    assert any(row.strip() == "loss 6.8054, 12,408 tokens/s" for row in rows)
    assert max(map(len, rows)) <= 80


def test_figures_of_a_step_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {f"{label}_bits_per_{unit}": 5.1602 for label in ("zh", "en") for unit in ("character", "byte")}
    for terminal, expected in (
        (True, ["step 1,200: zh bits/char 5.1602, zh bits/byte 5.1602, en bits/char 5.1602,", "            en bits/byte 5.1602"]),
        (False, ["step 1,200: zh bits/char 5.1602, zh bits/byte 5.1602, en bits/char 5.1602, en bits/byte 5.1602"]),
    ):  # fmt: skip
        screen, written = console(terminal)
        monkeypatch.setattr(training_screen, "notes", screen)
        monkeypatch.setattr(shared, "notes", screen)
        with progress_on(console(False)[0], "training", None, "steps") as bar:
            show_step(bar, {"step": 1200, "steps": 2000, **figures})
        assert written.getvalue().splitlines() == expected


def test_stages_of_training_have_their_own_names_counts_and_rates() -> None:
    screen, _ = console(False)
    with progress_on(screen, "reading", None, "bytes") as bar:
        hooks = hooks_for(bar, "encoding", True)
        hooks.read(3_000_000)
        assert bar.line().startswith("encoding: 3.0 MB")
        hooks.step({"step": 51, "steps": 100})  # of a resumed run
        time.sleep(0.02)
        hooks.step({"step": 52, "steps": 100, "loss": 2.5, "tokens_per_second": 1234.5})
        told = bar.line()
    assert told.startswith("training: 52/100 steps, ") and told.endswith(", loss 2.5000, 1,234 tokens/s")
    (rate,) = re.findall(r"([\d.]+)/s, \d", told)
    assert float(rate) < 120, "the steps of an earlier start say nothing about the rate"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (99, "99 s"), (101, "2 min"), (3000, "50 min"), (5400, "1.5 h"), (200_000, "2.3 days")],
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told
