"""Proves zhllama on a GPU: tests, speed and memory, one leg after the other; started by scripts/gpu_proof.sh.

Each leg is a process with a time limit of its own. The results are written after every leg, so that a leg that fails, hangs
or is killed costs its own result alone. Without a GPU the same runs at toy size on the CPU.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine
from zhllama.io.files import to_json, write_whole

HERE = Path(__file__).parent
ROOT = HERE.parent
JSON, MARKDOWN, LOG = "gpu-proof.json", "gpu-proof.md", "gpu-proof.log"
TOTAL = 470  # seconds of all legs: the whole stays under eight minutes
TAIL = 2000  # characters of a failed leg's output that its result keeps
# In the order of their worth: what comes last is left out first where time is short.
LEGS = (
    "tests", "stage2/ours", "stage2/published", "sft/ours", "sft/published", "stage1/ours", "stage1/published",
    "stage2/ours-flex", "stage2/ours-sdpa", "stage2/ours-flash", "stage2/ours-compiled", "stage2/published-liger",
    "sft/trl", "sft/trl-liger",
)  # fmt: skip
Result = dict[str, Any]


@dataclass(frozen=True)
class Leg:
    """One part of the proof: `command` writes what `read` reads from the file; `seconds` is its time limit."""

    name: str
    command: tuple[str, ...]
    file: Path
    seconds: float
    read: Callable[[Path], Result]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or ROOT / "runs" / "gpu-proof"),
                        help="folder of the results; by default $OUT, or runs/gpu-proof")  # fmt: skip
    parser.add_argument(
        "--legs", nargs="+", default=list(LEGS), choices=LEGS, metavar="LEG", help=", ".join(LEGS)
    )
    parser.add_argument("--size", choices=["auto", "card", "toy"], default="auto",
                        help="card: hidden size 2048, 16 layers, 49,953 rows, 4,096 tokens; auto: card on a GPU, else toy")  # fmt: skip
    parser.add_argument("--limit", type=float, default=TOTAL, help="seconds of all legs together")
    args = parser.parse_args()
    # A stop by a signal ends the leg at work and keeps what is written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="zhllama-gpu-proof-"))
    try:
        results = run_legs(legs(args.legs, args.size, work), args.out, args.limit)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print((args.out / MARKDOWN).read_text(encoding="utf-8"))
    sys.exit(any(result["status"] in ("failed", "out of time") for result in results))


def legs(names: Iterable[str], size: str, work: Path) -> list[Leg]:
    """Return the legs by their names, with files in the folder `work`."""
    made = []
    for number, name in enumerate(names):
        if name == "tests":
            file = work / "tests.xml"
            command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-vv", "-m", "cuda", "tests/test_gpu.py",
                       f"--junitxml={file}")  # fmt: skip
            made.append(Leg(name, command, file, 180, read_tests))
        else:
            file = work / f"{number}.json"
            command = (sys.executable, str(HERE / "gpu_legs.py"), name, str(file), "--size", size)
            seconds = 90 if name.endswith(("compiled", "flex")) else 60
            made.append(Leg(name, command, file, seconds, read_figures))
    return made


def run_legs(planned: Sequence[Leg], out: Path, limit: float) -> list[Result]:
    """Run the legs in turn, write the results after each, and return them.

    `limit`: seconds of all. A result has the leg's name, its status (ok, skipped, failed, out of time, not run), its
    seconds, the reason of what is not ok, and the leg's figures.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + limit
    results: list[Result] = []
    _write(out, results, finished=False)
    with (out / LOG).open("w", encoding="utf-8") as log:
        for leg in planned:
            print(leg.name, file=sys.stderr, flush=True)
            results.append(run_leg(leg, end - time.monotonic(), log))
            _write(out, results, finished=len(results) == len(planned))
    return results


def run_leg(leg: Leg, left: float, log: Any) -> Result:
    """Run one leg within its own limit and the time that is left."""
    if left < 1:
        return {"leg": leg.name, "status": "not run", "seconds": 0.0, "reason": "no time was left"}
    log.write(f"== {leg.name}\n")
    log.flush()
    at, started = log.tell(), time.monotonic()
    process = subprocess.Popen(leg.command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
    limit, late = min(leg.seconds, left), False
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        late = True
    finally:  # also ends the leg when this process is told to stop
        _kill(process)
    seconds = round(time.monotonic() - started, 1)
    result: Result = {"leg": leg.name, "status": "ok", "seconds": seconds}
    if late:
        reason = f"stopped after {limit:.0f} s: {_tail(Path(log.name), at)}"
        return result | {"status": "out of time", "reason": reason.removesuffix(": ")}
    try:
        return result | leg.read(leg.file)
    except (OSError, ValueError, KeyError, ElementTree.ParseError):
        reason = _tail(Path(log.name), at) or f"ended with code {process.returncode}"
        return result | {"status": "failed", "reason": reason}


def _tail(log: Path, start: int) -> str:
    """Return the end of what a leg wrote into the log, from the byte `start` on."""
    with log.open("rb") as written:
        written.seek(start)
        return written.read().decode(errors="replace")[-TAIL:].strip()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a leg with all processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_figures(path: Path) -> Result:
    """Return the figures that gpu_legs.py wrote; OSError or ValueError if it wrote none."""
    figures: Result = json.loads(path.read_text(encoding="utf-8"))
    if "skipped" in figures:
        return {"status": "skipped", "reason": figures["skipped"], "device": figures.get("device")}
    return figures


def read_tests(path: Path) -> Result:
    """Return the counts of a pytest run from its XML, with the reasons of what failed and what was skipped."""
    suite = next(ElementTree.parse(path).getroot().iter("testsuite"))
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    broken = [
        f"{case.attrib['name']}: {' '.join(fault.attrib.get('message', '').split())[:200]}"
        for case in suite.iter("testcase")
        for fault in case
        if fault.tag in ("failure", "error")
    ]
    skipped = sorted({element.attrib.get("message", "") for element in suite.iter("skipped")})
    bad = counts["failures"] + counts["errors"]
    passed = counts["tests"] - bad - counts["skipped"]
    result: Result = {"passed": passed, "failed": bad, "skipped": counts["skipped"], "skip_reasons": skipped}
    if bad or not passed:
        result |= {"status": "failed", "reason": "; ".join(broken) or "no test passed"}
    return result


def _write(out: Path, results: Sequence[Result], finished: bool) -> None:
    device = next((result["device"] for result in results if result.get("device")), None)
    report = {"machine": machine() | {"gpu": device}, "finished": finished, "legs": results}
    write_whole(out / JSON, to_json(report))
    write_whole(out / MARKDOWN, markdown(report))


def markdown(report: Result) -> str:
    """Return the results as a table in Markdown."""
    facts, results = report["machine"], report["legs"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    lines = [
        f"Device: {facts['gpu'] or 'unknown'}; {facts['cores']} cores; Python {facts['python']}; {packages}.",
        "",
        "| leg | result | attention | tokens/s | to published | MFU | micro-batch | peak GiB | planned GiB | planned/peak | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    speeds = {result["leg"]: result.get("tokens_per_second") for result in results}
    for result in results:
        lines.append("| " + " | ".join(_cells(result, speeds)) + " |")
    for result in results:
        for reason in [result.get("reason"), *result.get("skip_reasons", [])]:
            if reason:
                lines += ["", f"- {result['leg']}: {' '.join(reason.split())}"]
    if not report["finished"]:
        lines += ["", "Not finished: the remaining legs have not run."]
    return "\n".join(lines) + "\n"


def _cells(result: Result, speeds: dict[str, float | None]) -> list[str]:
    status = result["status"]
    if "passed" in result:
        status = f"{result['passed']} passed, {result['failed']} failed, {result['skipped']} skipped"
    speed = result.get("tokens_per_second")
    other = speeds.get(f"{result['leg'].split('/')[0]}/published")
    peak, planned = result.get("peak_bytes"), result.get("planned_bytes")
    return [
        result["leg"],
        status,
        result.get("attention") or "",
        "" if speed is None else f"{speed:,.0f}",
        "" if speed is None or not other else f"{speed / other:.2f}",
        "" if result.get("mfu") is None else f"{100 * result['mfu']:.1f} %",
        str(result.get("micro_batch", "")),
        "" if peak is None else f"{peak / 2**30:.2f}",
        "" if planned is None else f"{planned / 2**30:.2f}",
        "" if planned is None or not peak else f"{planned / peak:.2f}",
        f"{result['seconds']:.0f}",
    ]


if __name__ == "__main__":
    main()
