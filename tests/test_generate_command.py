"""gen-zh and refilter as users run them, against a server that troubles them: exact accounts, kills, one-line errors."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
Served = Callable[..., str]
TROUBLE = {"messy": True, "busy": 0.05, "broken": 0.03, "cut": 0.03, "garbage": 0.03, "keep_alive": 2}


@pytest.fixture
def served() -> Iterator[Served]:
    """Start a fake server of the given manner and return its base URL."""
    started: list[subprocess.Popen[str]] = []

    def start(**manner: Any) -> str:
        process = subprocess.Popen([sys.executable, HERE / "fake_server.py", json.dumps(manner)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"

    yield start
    for process in started:
        process.kill()
        process.wait()


def stats(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/stats") as reply:
        return dict(json.load(reply))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def pieces(record: dict[str, Any]) -> int:
    """Candidates in one journalled reply, read by the parser alone."""
    from zhllama.generate.parse import Unreadable, read_tasks, without_thought

    text = without_thought(record["reply"]["text"] or "")
    return 1 if record["reply"]["text"] is None or isinstance(text, Unreadable) else len(read_tasks(text))


def check_accounts(run: Path, kept: int) -> None:
    """Every candidate of every journalled reply is kept or rejected, once."""
    journal, took, rejected = (rows(run / f"{n}.jsonl") for n in ("journal", "instructions", "rejected"))
    assert len(took) == kept == len(json.loads((run / "instructions.json").read_text(encoding="utf-8")))
    keys = Counter((r["round"], r["index"]) for r in journal)
    assert set(keys.values()) == {1}, "a request was journalled twice"
    assert sum(map(pieces, journal)) == len(took) + len(rejected)
    ids = [r["id"] for r in took] + [r["id"] for r in rejected]
    assert len(set(ids)) == len(ids), "a candidate was folded twice"
    assert len({(r["instruction"], r["input"]) for r in took}) == len(took)


def command(url: str, out: Path, *more: object) -> list[str]:
    return [sys.executable, "-m", "zhllama", "gen-zh", "--base-url", url, "--model", "fake", "--out", *map(str, (out, *more))]


def killed_and_resumed(url: str, out: Path, kept: int, kills: int, longest: float) -> None:
    chance = random.Random(7)
    environment = {**os.environ, "OPENAI_API_KEY": "", "PYTHONDONTWRITEBYTECODE": "1"}
    for number in range(kills):
        more = ("--resume",) if out.exists() and any(out.iterdir()) else ()
        process = subprocess.Popen(command(url, out, "--n", kept, *more), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        before = (out / "journal.jsonl").stat().st_size if (out / "journal.jsonl").exists() else 0
        deadline = time.monotonic() + 60
        # A kill before the first byte proves little: wait for some, then for a random moment.
        while time.monotonic() < deadline and process.poll() is None:
            if (out / "journal.jsonl").exists() and (out / "journal.jsonl").stat().st_size > before:
                break
            time.sleep(0.02)
        time.sleep(chance.uniform(0, longest))
        assert process.poll() is None, f"ended before kill {number}: {process.stderr.read() if process.stderr else ''!r}"
        process.send_signal(signal.SIGKILL)
        process.wait()
        if number % 3 == 1:
            with (out / "journal.jsonl").open("ab") as journal:
                journal.write('{"round":0,"index":99999,"kind":"ta'.encode())
    done = subprocess.run(command(url, out, "--n", kept, "--resume"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kills_lose_and_repeat_nothing(served: Served, tmp_path: Path) -> None:
    url = served(delay=0.2, jitter=0.2, tasks=5, **TROUBLE)
    killed_and_resumed(url, tmp_path / "run", 300, 4, 0.4)
    check_accounts(tmp_path / "run", 300)
    # What the server answered and the journal lacks was under way at a kill: at most `concurrency` each time.
    told, journal = stats(url), rows(tmp_path / "run" / "journal.jsonl")
    assert told["prompts"] >= len(journal)
    assert told["answered"] - len(journal) <= 4 * 32
    plain = subprocess.run(command(url, tmp_path / "plain", "--n", 300), capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    for name in ("instructions.json", "instructions.jsonl", "rejected.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name


@pytest.mark.slow
def test_twelve_kills_at_two_thousand(served: Served, tmp_path: Path) -> None:
    url = served(delay=0.2, jitter=0.3, tasks=5, **TROUBLE)
    killed_and_resumed(url, tmp_path / "run", 2000, 12, 1.0)
    check_accounts(tmp_path / "run", 2000)
    assert stats(url)["answered"] - len(rows(tmp_path / "run" / "journal.jsonl")) <= 12 * 32
    plain = subprocess.run(command(url, tmp_path / "plain", "--n", 2000), capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    assert (tmp_path / "run" / "instructions.jsonl").read_bytes() == (tmp_path / "plain" / "instructions.jsonl").read_bytes()
