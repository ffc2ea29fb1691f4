"""The whole pipeline: nothing lost, noise found, killed and gone on with, on Ray and under Slurm, and the page."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.corpus_noise import edited, jaccard, plant_encodings, story
from zhllama.cli import app
from zhllama.corpus.stats import CleaningStats, StepStats
from zhllama.errors import BrokenPromise, InputError, OptionError, OutputError
from zhllama.pages.cleaning import cleaning_page


def clean(*arguments: object) -> dict[str, Any]:
    """`zhllama corpus clean ... --json` in this process, with the error raised that would be a line."""
    result = CliRunner().invoke(app, ["corpus", "clean", *map(str, arguments), "--workers", "1", "--json"])
    if result.exception is not None:
        raise result.exception
    return dict(json.loads(result.stdout))


def records(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]


def tree(out: Path) -> dict[str, bytes]:
    """All that must be the same however a run came about."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*"))
            if p.is_file() and p.name not in ("manifest.json", "config.yaml")}  # fmt: skip


def write_jsonl(path: Path, texts: dict[str, str]) -> None:
    path.write_text(
        "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in texts.items()), encoding="utf-8"
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files of stories, with exact and near duplicates across them, and some noise."""
    folder, rng = tmp_path_factory.mktemp("corpus"), random.Random(11)
    stories = [story(rng) for _ in range(120)]
    for number in range(6):
        texts = {f"{number}-{i}": text for i, text in enumerate(stories[number * 20 : number * 20 + 20])}
        texts |= {f"{number}-same": stories[(number * 20 + 50) % 120],
                  f"{number}-near": edited(stories[(number * 20 + 70) % 120], 0.85, rng),
                  f"{number}-short": "短", f"{number}-again": "哈哈哈哈" * 20,
                  f"{number}-mail": "写信到 a@b.cn 。<b>" + story(rng) + "</b>"}  # fmt: skip
        write_jsonl(folder / f"{number}.jsonl", texts)
    return folder


def test_planted_encodings_come_out_or_are_told(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    simplified, traditional = ("".join(c * 3 + "\n" for c in clauses) for clauses in (
        ("今天的天气很好，我们一起去公园散步，", "看见许多孩子在草地上放风筝，", "河边的老人说起从前的故事。"),
        ("今天的天氣很好，我們一起去公園散步，", "看見許多孩子在草地上放風箏，", "河邊的老人說起從前的故事。")))  # fmt: skip
    planted = plant_encodings(source, simplified, traditional)
    figures = clean(source, "--out", tmp_path / "out", "--no-exact", "--no-near", "--max-repeated", 1)
    out = {Path(r["source"]).name: r["text"] for r in records(tmp_path / "out/documents")}
    dropped = {Path(r["source"]).name: r["reason"] for r in records(tmp_path / "out/rejected")}
    for name, reason in planted.items():
        if reason is None:
            assert out[name].startswith((traditional if "big5" in name else simplified).strip()), name
        else:
            assert dropped[name].startswith(reason), name
    assert figures["documents_in"] == figures["documents_out"] + figures["rejected"] == len(planted)


def test_near_duplicates_are_found_and_others_left(tmp_path: Path) -> None:
    rng = random.Random(5)
    base = [story(rng) for _ in range(300)]
    near = {i: edited(base[i], 0.8 if i % 2 else 0.9, rng) for i in range(100)}
    far = {i: edited(base[i], 0.4, rng) for i in range(100, 200)}
    assert all(jaccard(base[i], text) >= 0.8 for i, text in near.items())
    assert all(jaccard(base[i], text) < 0.5 for i, text in far.items())
    texts = {f"base {i}": t for i, t in enumerate(base)}
    texts |= {f"near {i}": t for i, t in near.items()} | {f"far {i}": t for i, t in far.items()}
    shuffled = dict(rng.sample(list(texts.items()), len(texts)))
    write_jsonl(tmp_path / "in.jsonl", shuffled)
    clean(tmp_path / "in.jsonl", "--out", tmp_path / "out", "--language", "any")
    dropped = [r["id"] for r in records(tmp_path / "out/rejected/near")]
    pairs = [int(name.split()[1]) for name in dropped]
    assert all(number < 100 for number in pairs)
    assert len(set(pairs)) == len(pairs) >= 95  # one of each pair, never both


def test_each_step_drops_into_its_folder_and_the_books_balance(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "ads.txt").write_text("石桥\n风筝\n", encoding="utf-8")
    figures = clean(corpus, "--out", tmp_path / "out", "--word-list", tmp_path / "ads.txt", "--word-hits", 12)
    dropped = {step["step"]: step["reasons"] for step in figures["steps"] if step["dropped"]}
    assert dropped["length"] == {"too short": 6}
    assert dropped["repetition"] == {"repeated characters": 6}
    assert dropped["exact"] == {"exact duplicate": 6}
    assert dropped["near"] == {"near duplicate": 6}
    assert set(dropped.get("words", {"words of ads.txt": 0})) == {"words of ads.txt"}
    assert figures["documents_in"] == 6 * 25 == figures["documents_out"] + figures["rejected"]
    kept = {r["id"]: r for r in records(tmp_path / "out/documents")}
    assert kept["3-mail"]["text"].startswith("写信到 [邮箱] 。") and "<b>" not in kept["3-mail"]["text"]
    assert list(kept["3-mail"]) == ["id", "source", "text"]
    assert not list((tmp_path / "out").glob("*work*"))


def test_a_lost_document_is_an_error(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zhllama.corpus import stats as books

    monkeypatch.setattr(books, "_lines", lambda path: 0)
    with pytest.raises(BrokenPromise, match="150 documents came in, 0 went out"):
        clean(corpus, "--out", tmp_path / "out")


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough work to be caught at, in three files."""
    folder, rng = tmp_path_factory.mktemp("long"), random.Random(12)
    for number in range(3):
        write_jsonl(folder / f"{number}.jsonl", {f"{number}-{i}": story(rng, 400) for i in range(60)})
    return folder


@pytest.mark.parametrize(
    "mark",
    [
        "signatures/completions/00000",
        pytest.param("clean/completions/00000", marks=pytest.mark.slow),
        pytest.param("buckets/completions/00003", marks=pytest.mark.slow),
        pytest.param("write/stats/00000.json", marks=pytest.mark.slow),
    ],
)
def test_killed_and_gone_on_with_gives_the_same_bytes(long_corpus: Path, tmp_path: Path, mark: str) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    clean(long_corpus, "--out", whole)  # by one worker, where the other has two
    command = [
        sys.executable,
        "-m",
        "zhllama",
        "corpus",
        "clean",
        str(long_corpus),
        "--workers",
        "2",
        "--out",
        str(out),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (out / "work/logs" / mark).exists() and process.poll() is None:
            time.sleep(0.002)
        workers = _descendants(process.pid)
        process.kill()
    assert not (out / "manifest.json").exists()
    assert _gone(workers), "workers outlived their command"
    with pytest.raises(OutputError, match="contains an unfinished run"):
        clean(long_corpus, "--out", out)
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert tree(out) == tree(whole)


def _descendants(pid: int) -> list[int]:
    children = [
        int(c) for task in Path(f"/proc/{pid}/task").glob("*/children") for c in task.read_text().split()
    ]
    return children + [d for child in children for d in _descendants(child)]


def _gone(pids: list[int]) -> bool:
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() and "State:\tZ" not in _status(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return "State:\tZ"


def test_resume_refuses_other_files(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zhllama.corpus import executors

    def fail(*_: object) -> None:
        raise OutputError("here", "no room")

    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", {"a": story(random.Random(1))})
    with monkeypatch.context() as patched:
        patched.setattr(executors.workers, "run_apart", fail)
        with pytest.raises(OutputError, match="no room"):
            clean(tmp_path / "in", "--out", tmp_path / "out")
    write_jsonl(tmp_path / "in/b.jsonl", {"b": story(random.Random(2))})
    with pytest.raises(InputError, match="started with other files"):
        clean(tmp_path / "in", "--out", tmp_path / "out", "--resume")
    (tmp_path / "in/b.jsonl").unlink()
    assert clean(tmp_path / "in", "--out", tmp_path / "out", "--resume")["documents_out"] == 1


@pytest.mark.slow  # Ray starts its own processes for ten seconds
@pytest.mark.parametrize("steps", [("--no-exact", "--no-near"), ()])
def test_ray_gives_the_same_documents(corpus: Path, tmp_path: Path, steps: tuple[str, ...]) -> None:
    pytest.importorskip("ray")
    (tmp_path / "in").mkdir()
    for name in ("0.jsonl", "3.jsonl"):
        (tmp_path / "in" / name).write_bytes((corpus / name).read_bytes())
    clean(tmp_path / "in", *steps, "--out", tmp_path / "local")
    command = [
        sys.executable,
        "-m",
        "zhllama",
        "corpus",
        "clean",
        str(tmp_path / "in"),
        *steps,
        "--executor",
        "ray",
    ]
    # Ray gives its agents 15 seconds to come up, for which they need their byte code.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    more = ["--workers", "2", "--memory-gb", "1", "--out", str(tmp_path / "ray")]
    result = subprocess.run([*command, *more], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert _texts(tmp_path / "ray") == _texts(tmp_path / "local")


def _texts(out: Path) -> list[tuple[str, str]]:
    return [(r["id"], r["text"]) for r in records(out / "documents")]


SBATCH = """#!{python}
# Runs the tasks of a Slurm array one after the other, as the scheduler would on its nodes.
import os, re, subprocess, sys
script = open(sys.argv[-1], encoding="utf-8").read()
log = open({log!r}, "a", encoding="utf-8"); log.write(" ".join(sys.argv[1:-1]) + "\\n")
last = int(re.search(r"--array=0-(\\d+)", script)[1])
for task in range(last + 1 if "launch_pickled" in script else 0):
    environment = dict(os.environ, SLURM_ARRAY_TASK_ID=str(task), SLURM_NODELIST="node1", RUN_OFFSET="0")
    subprocess.run(["bash", sys.argv[-1]], env=environment, check=True, stdout=subprocess.DEVNULL, stderr=log)
print("Submitted batch job", 100 + len(open({log!r}, encoding="utf-8").readlines()))
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The commands of Slurm that datatrove calls, as scripts that do their work here."""
    tools = tmp_path / "tools"
    tools.mkdir()
    log = tmp_path / "sbatch.log"
    (tools / "sbatch").write_text(SBATCH.format(python=sys.executable, log=str(log)))
    (tools / "srun").write_text(
        '#!/bin/bash\nwhile [[ "$1" == -* ]]; do [[ "$1" == -n ]] && shift; shift; done\nexec "$@"\n'
    )
    (tools / "scontrol").write_text("#!/bin/bash\necho node1\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    yield {"PATH": f"{tools}:{os.environ['PATH']}"}


def test_slurm_gives_the_same_bytes(tmp_path: Path, zhllama: Any, slurm: dict[str, str]) -> None:
    rng = random.Random(4)
    text = story(rng)
    write_jsonl(tmp_path / "in.jsonl", {"a": text, "b": text, "c": story(rng)})
    command = ("corpus", "clean", tmp_path / "in.jsonl", "--no-near", "--out")
    clean(tmp_path / "in.jsonl", "--no-near", "--out", tmp_path / "local")
    queued = zhllama(*command, "slurm", "--executor", "slurm", "--partition", "cpu", env=slurm)
    assert queued.returncode == 0, queued.stderr + (tmp_path / "sbatch.log").read_text()
    if "queued" in queued.stdout:
        assert zhllama(*command, "slurm", "--resume").returncode == 0
    assert tree(tmp_path / "slurm") == tree(tmp_path / "local")
    assert "--dependency=afterok" in (tmp_path / "sbatch.log").read_text()


def test_errors_are_told_before_anything_is_written(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cases = [
        (OptionError, "needs --partition", [corpus, "--executor", "slurm"]),
        (OptionError, "unknown encoding", [corpus, "--encoding", "klingon"]),
        (OptionError, "more than --max-chars", [corpus, "--min-chars", 9, "--max-chars", 5]),
        (InputError, "no such file", [tmp_path / "none.txt"]),
        (InputError, "Fetch it first", ["skypile"]),
        (InputError, "neither a known source", ["nothing-of-the-kind"]),
        (InputError, "no such file", [corpus, "--word-list", tmp_path / "none"]),
    ]
    for kind, told, arguments in cases:
        with pytest.raises(kind, match=told):
            clean(*arguments, "--out", out)
    with pytest.raises(OutputError, match=r"has \[ in its path"):
        clean(corpus, "--out", tmp_path / "a[1]")
    with pytest.raises(OutputError, match="cannot be written"):
        clean(corpus, "--out", "/proc/nowhere")
    assert not out.exists()


def test_no_room_is_told(corpus: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small tmpfs")
    try:
        with pytest.raises(OutputError, match=r"No space left on device\. Free some room"):
            clean(corpus, "--out", small / "out")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_sample_of_the_project_stays(tmp_path: Path) -> None:
    figures = clean("sample", "--out", tmp_path / "out", "--no-near")
    assert figures["documents_out"] >= 0.9 * figures["documents_in"]
    again = clean(
        tmp_path / "out", "--out", tmp_path / "again", "--no-exact", "--no-near"
    )  # a run of ours is read by its documents
    assert again["documents_in"] == figures["documents_out"]
    assert json.loads((tmp_path / "again/manifest.json").read_text(encoding="utf-8"))["parents"] == [
        str(tmp_path / "out")
    ]


def test_the_page_holds_no_markup_of_strangers() -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"
    step = StepStats("length", True, 1, 1, 1, 0, {evil: 1}, {0: 1}, [[evil, evil, evil]], 0.1)
    edit = StepStats(evil, False, 1, 1, 0, 1, {}, {}, [[evil, evil]], 0.1)
    html = cleaning_page(CleaningStats(1, 0, 1, 0, 1, {}, [step, edit]), evil)
    assert html.count("<script") == 1 and "<img" not in html and "{{ 7 * 7 }}" in html
    assert "1 documents in = 0 out + 1 rejected" in html
    assert "http://" not in html and "https://" not in html  # nothing is fetched
    assert "prefers-color-scheme: dark" in html


def test_show(corpus: Path, tmp_path: Path) -> None:
    clean(corpus, "--out", tmp_path / "out", "--no-near")
    shown = CliRunner().invoke(app, ["corpus", "show", str(tmp_path / "out")])
    assert "150 documents in = " in shown.stdout and '{"id":"0-0"' in shown.stdout


def test_stopped_by_ctrl_c_leaves_no_worker(long_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "zhllama",
        "corpus",
        "clean",
        str(long_corpus),
        "--workers",
        "2",
        "--out",
        str(out),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "work/logs/clean/completions/00000").exists() and process.poll() is None:
            time.sleep(0.002)
        workers = _descendants(process.pid)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 130, told
    assert told.startswith("zhllama: stopped.") and "Traceback" not in told
    assert _gone(workers)
