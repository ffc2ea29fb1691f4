"""scripts/gpu_proof.sh: each leg's result outlives the failure of others, and each way of training runs at toy size."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))
bench_settings = dict(os.environ)
import gpu_legs  # noqa: E402 - after the path is set
import gpu_proof  # noqa: E402

os.environ.clear()  # bench.py sets the number of threads for its own process
os.environ.update(bench_settings)
TOY_LEGS = [
    ("stage1", "ours"), ("stage1", "published"), ("stage2", "ours"), ("stage2", "published"), ("stage2", "ours-sdpa"),
    ("sft", "ours"), ("sft", "published"),
]  # fmt: skip


def leg(name: str, folder: Path, code: str, seconds: float = 60) -> gpu_proof.Leg:
    file = folder / f"{name}.json"
    return gpu_proof.Leg(name, (sys.executable, "-c", code, str(file)), file, seconds, gpu_proof.read_figures)


def test_each_leg_keeps_its_result_whatever_befalls_the_others(tmp_path: Path) -> None:
    write = 'import sys; open(sys.argv[1], \'w\').write(\'{"tokens_per_second": 5, "device": "GPU"}\')'
    child = tmp_path / "child"
    hang = f"import subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); open({str(child)!r}, 'w').write(str(p.pid)); print('half of it', flush=True); time.sleep(600)"
    seen = (
        f"import json, sys; legs = json.load(open({str(tmp_path / 'out' / gpu_proof.JSON)!r}))['legs'];"
        "json.dump({'seen': [leg['leg'] for leg in legs]}, open(sys.argv[1], 'w'))"
    )
    planned = [
        leg("good", tmp_path, write),
        leg("broken", tmp_path, "print('first words'); raise RuntimeError('no kernel image')"),
        leg("hangs", tmp_path, hang, seconds=3),
        leg("killed", tmp_path, "import os; os.kill(os.getpid(), 9)"),
        leg("skipped", tmp_path, "import sys; open(sys.argv[1], 'w').write('{\"skipped\": \"no trl\"}')"),
        leg("halfway", tmp_path, "import sys; open(sys.argv[1], 'w').write('{\"tokens')"),
        leg("last", tmp_path, seen),
    ]
    results = gpu_proof.run_legs(planned, tmp_path / "out", 300)
    assert [r["status"] for r in results] == [
        "ok", "failed", "out of time", "failed", "skipped", "failed", "ok",
    ]  # fmt: skip
    assert "no kernel image" in results[1]["reason"] and "first words" in results[1]["reason"]
    assert results[2]["reason"] == "stopped after 3 s: half of it"
    assert results[3]["reason"] == "ended with code -9" and results[4]["reason"] == "no trl"
    assert results[6]["seen"] == ["good", "broken", "hangs", "killed", "skipped", "halfway"]
    pid = int(child.read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z"
    report = json.loads((tmp_path / "out" / gpu_proof.JSON).read_text(encoding="utf-8"))
    assert report["finished"] and report["legs"] == results and report["machine"]["gpu"] == "GPU"
    assert "RuntimeError: no kernel image" in (tmp_path / "out" / gpu_proof.LOG).read_text()


def test_the_time_of_all_legs_is_limited(tmp_path: Path) -> None:
    planned = [leg("long", tmp_path, "import time; time.sleep(60)"), leg("late", tmp_path, "pass")]
    results = gpu_proof.run_legs(planned, tmp_path / "out", 2)
    assert [r["status"] for r in results] == ["out of time", "not run"]
    assert "Not finished" not in (tmp_path / "out" / gpu_proof.MARKDOWN).read_text(encoding="utf-8")


def test_a_stop_ends_the_leg_at_work_and_keeps_what_is_written(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {
        "OUT": str(tmp_path / "out"), "PYTHON": sys.executable, "TMPDIR": str(temporary),
    }  # fmt: skip
    command = ["bash", str(SCRIPTS / "gpu_proof.sh"), "--legs", "stage2/ours", "stage2/published"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        deadline = time.monotonic() + 60
        log = tmp_path / "out" / gpu_proof.LOG
        started_leg = b"== stage2/ours"  # is written before the leg's process exists
        while time.monotonic() < deadline:
            if log.exists() and started_leg in log.read_bytes() and processes_of(temporary):
                break
            time.sleep(0.05)
        assert processes_of(temporary), "no leg has started"
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 143
    report = json.loads((tmp_path / "out" / gpu_proof.JSON).read_text(encoding="utf-8"))
    assert not report["finished"] and report["legs"] == []
    assert not list(temporary.iterdir()), "temporary files are left"
    assert not processes_of(temporary)


def processes_of(folder: Path) -> list[bytes]:
    """Return the command lines that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes())
    return [words for words in found if str(folder).encode() in words]


@pytest.mark.parametrize(("suite", "way"), TOY_LEGS)
def test_each_way_of_training_is_measured_at_toy_size(suite: str, way: str) -> None:
    figures = gpu_legs.measure(suite, way, gpu_legs.TOY, 0.0)
    assert figures["tokens_per_second"] > 0 and figures["micro_batch"] == 2 and figures["block_size"] == 64
    assert (figures["planned_bytes"] is not None) is way.startswith("ours")
    assert figures["attention"] == ("zhllama_documents" if way == "ours" else "sdpa")


def test_kernels_of_gpus_are_refused_by_name_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_legs.py", "stage2/ours-flex", str(tmp_path / "result")])
    gpu_legs.main()
    result = gpu_proof.read_figures(tmp_path / "result")
    assert (
        result["status"] == "skipped"
        and "flex" in result["reason"]
        and "needs a CUDA GPU" in result["reason"]
    )
    monkeypatch.setattr(sys, "argv", ["gpu_legs.py", "stage2/published-liger", str(tmp_path / "liger")])
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    gpu_legs.main()
    assert "liger_kernel" in gpu_proof.read_figures(tmp_path / "liger")["reason"]


def test_the_micro_batch_fills_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    from zhllama.training.hardware import named_hardware

    chosen = {}
    for name in ("H200", "H100", "A10"):
        monkeypatch.setattr(gpu_legs, "this_hardware", lambda name=name: named_hardware(name))
        options = gpu_legs.options_of("stage2", "ours", gpu_legs.CARD)
        chosen[name] = count = gpu_legs.filling_micro_batch(options, gpu_legs.CARD)
        scale = gpu_legs.replace(gpu_legs.CARD, blocks=count)
        assert gpu_legs.planned(options, scale).peak <= gpu_legs.FILL * named_hardware(name).memory
        plan = gpu_legs.planned(options, scale)
        assert plan.shape.rows == 49_953 and plan.shape.layers == 16 and plan.shape.width == 2048
    assert chosen["H200"] >= 2 * chosen["A10"] and chosen["H100"] >= 4, chosen


def test_half_as_many_blocks_where_the_memory_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    tried = []

    def measured(suite: str, way: str, scale: Any, *rest: Any) -> dict[str, Any]:
        tried.append(scale.blocks)
        if scale.blocks > 2:
            raise torch.cuda.OutOfMemoryError("too large")
        return {"micro_batch": scale.blocks}

    monkeypatch.setattr(gpu_legs, "_measured", measured)
    scale = gpu_legs.replace(gpu_legs.TOY, blocks=8)
    assert gpu_legs.measure("stage2", "published", scale, 0)["micro_batch"] == 2 and tried == [8, 4, 2]


def test_counts_and_reasons_of_the_tests(tmp_path: Path) -> None:
    path = tmp_path / "tests.xml"
    case = '<testcase name="{}" classname="t">{}</testcase>'
    failed = '<failure message="assert 1 ==&#10; 2">long</failure>'
    cases = [case.format("a", ""), case.format("b", failed), case.format("c", '<skipped message="no GPU"/>')]
    head = '<testsuites><testsuite name="pytest" tests="{}" failures="{}" errors="0" skipped="1">'
    path.write_text(head.format(3, 1) + "".join(cases) + "</testsuite></testsuites>", encoding="utf-8")
    result = gpu_proof.read_tests(path)
    assert (result["passed"], result["failed"], result["skipped"]) == (1, 1, 1)
    assert result["status"] == "failed" and result["reason"] == "b: assert 1 == 2"
    assert result["skip_reasons"] == ["no GPU"]
    path.write_text(head.format(1, 0) + cases[2] + "</testsuite></testsuites>", encoding="utf-8")
    assert gpu_proof.read_tests(path)["reason"] == "no test passed"


def test_the_table() -> None:
    machine = {"gpu": "NVIDIA H200", "cores": 16, "python": "3.12", "packages": {"torch": "2.11"}}
    legs = [
        {"leg": "tests", "status": "ok", "seconds": 61.2, "passed": 19, "failed": 0, "skipped": 1, "skip_reasons": ["no x"]},
        {"leg": "stage2/ours", "status": "ok", "seconds": 30, "tokens_per_second": 3000.0, "mfu": 0.4123, "micro_batch": 8,
         "peak_bytes": 2**31, "planned_bytes": 3 * 2**30, "attention": "zhllama_varlen"},
        {"leg": "stage2/published", "status": "ok", "seconds": 30, "tokens_per_second": 1500.0, "micro_batch": 8},
        {"leg": "sft/trl", "status": "skipped", "seconds": 9, "reason": "No module named\n'trl'"},
    ]  # fmt: skip
    lines = gpu_proof.markdown({"machine": machine, "finished": True, "legs": legs}).splitlines()
    assert lines[0] == "Device: NVIDIA H200; 16 cores; Python 3.12; torch 2.11."
    assert lines[4] == "| tests | 19 passed, 0 failed, 1 skipped |  |  |  |  |  |  |  |  | 61 |"
    assert (
        lines[5]
        == "| stage2/ours | ok | zhllama_varlen | 3,000 | 2.00 | 41.2 % | 8 | 2.00 | 3.00 | 1.50 | 30 |"
    )
    assert lines[-1] == "- sft/trl: No module named 'trl'"


def test_every_way_is_a_leg_and_the_scripts_are_valid() -> None:
    ways = {f"{suite}/{way}" for suite, names in gpu_legs.WAYS.items() for way in names}
    assert {*gpu_proof.LEGS} == {"tests", *ways}
    assert sum(one.seconds for one in gpu_proof.legs(["tests"], "toy", Path("/x"))) < gpu_proof.TOTAL < 480
    for script in ("gpu_proof.sh", "gpu_proof_wheels.sh"):
        subprocess.run(["bash", "-n", SCRIPTS / script], check=True)


@pytest.mark.slow
def test_the_whole_proof_at_toy_size(tmp_path: Path) -> None:
    environment = os.environ | {"OUT": str(tmp_path), "PYTHON": sys.executable}
    told = subprocess.run(
        ["bash", str(SCRIPTS / "gpu_proof.sh"), "--size", "toy", "--limit", "1200"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout
    report = json.loads((tmp_path / gpu_proof.JSON).read_text(encoding="utf-8"))
    assert report["finished"] and {one["status"] for one in report["legs"]} == {"ok", "skipped"}
