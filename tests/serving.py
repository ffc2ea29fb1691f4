"""The fake server as a fixture: `served(delay=0.2)` starts one of that manner and returns its base URL."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Served = Callable[..., str]


@pytest.fixture
def served() -> Iterator[Served]:
    started: list[subprocess.Popen[str]] = []

    def start(**manner: Any) -> str:
        command = [sys.executable, "-I", str(Path(__file__).parent / "fake_server.py"), json.dumps(manner)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        started.append(process)
        assert process.stdout is not None
        return f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"

    yield start
    for process in started:
        process.kill()
        process.wait()
