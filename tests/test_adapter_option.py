"""--adapter of the commands that take a model: the model that `export --model --adapter` writes, kept once in the cache."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.model_toys import ENGLISH, larger_vocabulary, line, write_model, write_run, write_tokenizer
from tests.test_foreign_adapters import write_adapter
from zhllama.model import folded_models
from zhllama.model.chain import resolve_chain

SHORT = ("--steps", 2, "--batch", 2, "--micro-batch", 2, "--precision", "fp32", "--log-every", 1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZHLLAMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folded-models"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A base, two adapters of which the first has more rows and a tokenizer, and what export makes of them: `plain`."""
    base = write_model(tmp_path / "base")
    write_tokenizer(larger_vocabulary(), write_adapter(tmp_path / "one", base))
    write_adapter(tmp_path / "two", base, seed=2, whole=False)
    done = line(tmp_path, "export", "--model", "base", *ADAPTERS, "--out", "plain")
    assert done.code == 0, done.err
    (tmp_path / "text.txt").write_text(f"{ENGLISH}\n\n" * 40, encoding="utf-8")
    (tmp_path / "prompts.jsonl").write_text('{"id": "1", "instruction": "the river"}\n', encoding="utf-8")
    rows = [{"instruction": f"say {n}", "output": "the people"} for n in range(8)]
    (tmp_path / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


ADAPTERS = ("--adapter", "one", "--adapter", "two")


def told(world: Path, *arguments: object) -> dict[str, Any]:
    done = line(world, *arguments, "--json")
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def config(run: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))


def test_every_command_opens_the_same_model(
    world: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = ["bits_per_byte", "tokens"]
    rows = [
        told(world, "eval", *m, "--text", "text.txt")["texts"][0] for m in (("plain",), ("base", *ADAPTERS))
    ]
    assert [rows[0][name] for name in bits] == [rows[1][name] for name in bits]
    assert rows[1]["model"] == "base"
    (folder,) = [path for path in cache.iterdir() if path.is_dir()]
    assert (folder / "model.safetensors").read_bytes() == (world / "plain" / "model.safetensors").read_bytes()
    monkeypatch.setattr(folded_models, "plan_fold", lambda *_: pytest.fail("folded again"))
    sampling = ("--prompt", "the river", "--greedy", "--max-tokens", 8, "--template", "alpaca")
    said = [told(world, "chat", *m, *sampling)["answer"] for m in (("plain",), ("base", *ADAPTERS))]
    assert said[0] == said[1]
    for out, model in (("a", ("plain",)), ("b", ("base", *ADAPTERS))):
        told(world, "answer", *model, "-q", "prompts.jsonl", "--reply-tokens", 8, "--out", out)
    answers = [json.loads((world / out / "answers.jsonl").read_text(encoding="utf-8")) for out in "ab"]
    assert answers[0]["answer"] == answers[1]["answer"]
    assert config(world / "b")["adapter"] == [str(world / "one"), str(world / "two")]


def test_a_run_finds_its_model_again(world: Path, cache: Path) -> None:
    text = ("--text", "zh=text.txt", "--eval-text", "zh=text.txt")
    size = ("--old-rows", 600, *text, "--block-size", 32, *SHORT)
    told(world, "pretrain", "--stage", 2, "--model", "base", *ADAPTERS, *size, "--out", "run")
    told(world, "pretrain", "--stage", 2, "--model", "plain", *size, "--out", "same")
    recorded = config(world / "run")
    assert (recorded["model"], recorded["adapter"]) == (
        str(world / "base"),
        [str(world / n) for n in ("one", "two")],
    )
    rows, same = ((world / name / "rows.safetensors").read_bytes() for name in ("run", "same"))
    assert rows == same
    shutil.rmtree(cache)
    for run in ("run", "same"):
        assert line(world, "export", run, "--out", f"{run}-out").code == 0
    one, two = ((world / f"{run}-out" / "model.safetensors").read_bytes() for run in ("run", "same"))
    assert one == two
    assert "adapter" not in config(world / "same")
    data = ("--data", "data.json", "--max-length", 256, *SHORT)
    told(world, "sft", "--model", "base", *ADAPTERS, *data, "--out", "tuned")
    assert resolve_chain(world / "tuned").runs == (world / "tuned",)


def test_what_it_does_not_go_with(world: Path) -> None:
    def refusal(*arguments: object) -> str:
        done = line(world, *arguments)
        assert done.code == 1 and done.err.count("\n") == 1, done
        return done.err

    text = ("--text", "text.txt")
    assert "--adapter: is for one model" in refusal("eval", "base", "plain", "--adapter", "one", *text)
    assert "gone: is not the folder of a PEFT adapter" in refusal("eval", "base", "--adapter", "gone", *text)
    run = write_run(world / "run", world / "base", lora=True)
    assert "run: is no plain model, into which adapters" in refusal("eval", run, "--adapter", "one", *text)
    asked = (
        "answer",
        "x",
        "--adapter",
        "one",
        "-q",
        "prompts.jsonl",
        "--base-url",
        "http://127.0.0.1:1/v1",
        "--out",
        "out",
    )
    assert "--adapter: is for a local model" in refusal(*asked)
    for command in ("pretrain --stage 2", "sft", "reward", "dpo", "kto"):
        assert "--model: is missing" in refusal(*command.split(), "--adapter", "one", "--out", "out"), command


def test_a_wrong_base_is_told_each_time(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = iter([1.0, 2.0])
    monkeypatch.setattr(folded_models, "_bits_per_byte", lambda *_: next(bits))
    for _ in range(2):
        done = line(world, "eval", "base", "--adapter", "one", "--text", "text.txt")
        assert done.code == 0 and "2.00 bits per byte on English text and its base 1.00" in done.err, done.err
