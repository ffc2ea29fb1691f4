"""The command `watch`, which shows a training run at work in the terminal: curves, rate, remaining time and memory, from its log."""

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from zhllama.commands.progress import duration
from zhllama.commands.shared import AsJson, print_json, screen
from zhllama.commands.training_screen import measured_name
from zhllama.commands.translation import chinese, comma, translated
from zhllama.errors import InputError, OutputError
from zhllama.io.files import read_utf8
from zhllama.io.json import parse_row
from zhllama.manifest import read_config, read_manifest
from zhllama.run_folder import CONFIG, MANIFEST, refuse_if_running

LOG = "log.jsonl"
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # columns of a curve


def watch(
    folder: Annotated[
        Path, typer.Argument(help="A training run.", metavar="RUN", show_default=False, readable=False)
    ],
    every: Annotated[float, typer.Option("--every", help="Seconds between two looks.", min=0.2)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once, also while the run goes on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a training run at work: its curves, rate, remaining time and memory; ends with the run, or by Ctrl-C."""
    state = look(folder)
    if as_json:
        print_json(state)
        return
    if once or not screen.is_terminal or state["state"] != "running":
        screen.print(view(state))
        return
    with Live(view(state), console=screen, auto_refresh=False) as live:
        while state["state"] == "running":
            time.sleep(every)
            state = look(folder)
            live.update(view(state), refresh=True)


def look(folder: Path) -> dict[str, Any]:
    """What a run's files say now. Errors: InputError for a folder that is no training run."""
    if not (folder / CONFIG).is_file():
        raise InputError(folder, "is not a run of zhllama", "Name the --out of a training command")
    config = read_config(folder)
    events = log_events(folder / LOG)
    finished = (folder / MANIFEST).is_file()
    if (
        not events
        and not finished
        and config.get("command") not in ("pretrain", "sft", "reward", "dpo", "kto")
    ):
        raise InputError(folder, "is not a training run", "Name the --out of a training command")
    losses = [event for event in events if "loss" in event]
    last = losses[-1] if losses else {}
    step = max((event.get("step", 0) for event in events), default=0)
    steps = read_manifest(folder)["figures"].get("steps") if finished else total_steps(config, last)
    speed = last.get("tokens_per_second")
    tokens = last.get("tokens", 0) / last["step"] if last.get("step") else 0
    left = (steps - step) * tokens / speed if isinstance(steps, int) and speed and tokens else None
    curves = {"loss": [event["loss"] for event in losses]}
    for key in dict.fromkeys(key for event in events for key in event if key.endswith("_bits_per_character")):
        curves[key] = [event[key] for event in events if key in event]
    return {
        "run": str(folder), "command": str(config.get("command")), "stage": config.get("stage"),
        "state": "finished" if finished else "running" if is_running(folder) else "stopped",
        "step": step, "steps": steps, "tokens_per_second": speed, "learning_rate": last.get("learning_rate"),
        "seconds": last.get("seconds"), "seconds_left": 0 if finished else left,
        "peak_memory_bytes": last.get("peak_memory_bytes"), "curves": curves,
    }  # fmt: skip


def total_steps(config: Mapping[str, Any], last: Mapping[str, Any]) -> int | None:
    """The steps of a run: as its log says, since most runs get them from their text, or as its options say."""
    steps = last.get("steps", config.get("steps"))
    return steps if isinstance(steps, int) else None


def is_running(folder: Path) -> bool:
    """Whether a process is at work on a run."""
    try:
        refuse_if_running(folder)
    except OutputError:
        return True
    return False


def log_events(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that are whole: the last one may be half written."""
    events = []
    for line in read_utf8(path).splitlines() if path.is_file() else []:
        try:
            event = parse_row(line, any_number=True)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("step"), int):
            events.append(event)
    return events


def view(state: Mapping[str, Any]) -> Table:
    """The state as rows of a name, a value and a curve, within 80 columns."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    stage = f" {state['stage']}" if state["stage"] else ""
    about = comma().join([f"{state['command']}{stage}", translated(state["state"])])
    table.add_row(
        translated("run"), f"{state['run']}（{about}）" if chinese() else f"{state['run']} ({about})"
    )
    steps = f"/{state['steps']:,}" if isinstance(state["steps"], int) else ""
    parts = [f"{state['step']:,}{steps}"]
    if state["tokens_per_second"]:
        parts.append(translated(f"{state['tokens_per_second']:,.0f} tokens/s"))
    table.add_row(translated("steps"), comma().join(parts))
    times = []
    if state["seconds"]:
        times.append(translated(f"{duration(state['seconds'])} so far"))
    if state["seconds_left"]:
        times.append(translated(f"{duration(state['seconds_left'])} left"))
    if times:
        table.add_row(translated("time"), comma().join(times))
    if state["peak_memory_bytes"]:
        table.add_row(
            translated("memory"), translated(f"{state['peak_memory_bytes'] / 2**30:.2f} GiB at the peak")
        )
    if state["learning_rate"] is not None:
        table.add_row(translated("learning rate"), f"{state['learning_rate']:.2e}")
    for name, values in state["curves"].items():
        if values:
            table.add_row(
                measured_name(name) or translated(name),
                f"{values[0]:.4f} → {values[-1]:.4f}  {curve(values)}",
            )
    return table


def curve(values: Sequence[float], width: int = WIDTH) -> str:
    """Values as a line of blocks, at most `width` of them, each the mean of its share of the values."""
    finite = [value for value in values if value == value and abs(value) != float("inf")]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [round(number * len(finite) / count) for number in range(count + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)
