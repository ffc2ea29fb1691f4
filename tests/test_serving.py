"""The cost of serving: rates and paired ratios, the text that is served, both engines, and the arithmetic for a shape."""

import json
import sys
from pathlib import Path

import pytest

from tests.model_toys import (
    CHINESE,
    base_vocabulary,
    larger_vocabulary,
    line,
    write_model,
    write_run,
    write_tokenizer,
)
from zhllama.errors import InputError, OptionError
from zhllama.evaluation.serving import Passage, ReplyTime, Spread, measure_engine, passages
from zhllama.evaluation.serving_arithmetic import serving_cost
from zhllama.evaluation.serving_engines import TransformersEngine
from zhllama.model.grow import grow
from zhllama.model.load import open_model
from zhllama.training.model_info import read_shape
from zhllama.training.model_shape import shape_of
from zhllama.vocab.any_tokenizer import load_any_tokenizer

TEXT = CHINESE * 12


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    base = write_model(folder / "base")
    grow(base, write_tokenizer(larger_vocabulary(), folder / "larger"), folder / "grown")
    (folder / "zh.txt").write_text(TEXT, encoding="utf-8")
    return folder


class Clocked:
    """An engine that takes a second for each token, times how slow the machine is at the moment."""

    def __init__(self, log: list[str], name: str, speed: float, slowness: dict[int, float]) -> None:
        self.log, self.name, self.speed, self.slowness = log, name, speed, slowness

    def reply(self, passage: Passage) -> ReplyTime:
        self.log.append(self.name)
        slow = self.slowness.get(passage.prompt[0], 1.0) / self.speed
        return ReplyTime(slow * len(passage.prompt), slow * (len(passage.reply) - 1))

    def cache_bytes(self) -> float:
        return 8.0


def test_ratios_are_paired_by_round_and_order_alternates() -> None:
    """The machine is ten times slower in one round: the rates spread, and the ratios do not."""
    rounds = [Passage((number, 0, 0, 0), (0, 0, 0), 8, 6) for number in range(3)]
    fewer = [Passage((number, 0), (0, 0), 8, 6) for number in range(3)]
    log: list[str] = []
    slow = {1: 10.0}
    told: list[int] = []
    figures = measure_engine(
        "toy", ("old", "new"), (Clocked(log, "old", 1, slow), Clocked(log, "new", 1, slow)),
        [[rounds], [fewer]], lambda: told.append(1),
    )  # fmt: skip
    assert log == ["old", "new", "old", "new", "new", "old", "old", "new"] and len(told) == len(log)
    old, new = figures.speeds
    assert (old.first_token.median, old.first_token.high) == (4.0, 40.0)
    assert (old.read.median, old.read.low) == (2.0, pytest.approx(0.2))
    # 6 characters in 3 tokens, of which 2 took a second each; and in 2 tokens, of which 1 did.
    assert (old.written.median, new.written.median) == (pytest.approx(2.0), pytest.approx(3.0))
    assert old.read_ratio is None and old.written_ratio is None
    assert new.read_ratio == Spread(2.0, 2.0, 2.0)
    assert new.written_ratio is not None
    assert (new.written_ratio.low, new.written_ratio.high) == (pytest.approx(1.5), pytest.approx(1.5))
    assert figures.cache_bytes == (8.0, 8.0) and old.prompt_tokens == 4


def test_passages_are_the_text_itself(models: Path) -> None:
    for name in ("base", "grown"):
        tokenizer = load_any_tokenizer(models / name)
        cut = passages(tokenizer, 1, TEXT, (10, 40), 20, 4)
        assert [len(rounds) for rounds in cut] == [4, 4]
        step = (len(TEXT) - 60) // 3
        for length, rounds in zip((10, 40), cut, strict=True):
            for number, passage in enumerate(rounds):
                begin = number * step
                assert passage.prompt[0] == 1
                assert tokenizer.decode(passage.prompt[1:]) == TEXT[begin : begin + length]
                written = b"".join(tokenizer.surface(id) for id in passage.reply).decode()
                assert written == TEXT[begin + length : begin + length + 20]
                assert (passage.prompt_characters, passage.reply_characters) == (length, 20)
    with pytest.raises(OptionError, match="has 10 characters, and a prompt with its reply takes 60"):
        passages(tokenizer, 1, TEXT[:10], (10, 40), 20, 4)
    with pytest.raises(OptionError, match="more than the model's context of 30"):
        passages(tokenizer, 1, TEXT, (10, 40), 20, 4, context=30)
    with pytest.raises(InputError, match="a single token"):
        passages(tokenizer, 1, CHINESE, (2,), 2, 1)  # 今天


def test_transformers_reads_the_prompt_once_and_writes_the_reply(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(models / "base").model
    passed: list[list[int]] = []
    forward = model.forward

    def recorded(*arguments: object, **named: object) -> object:
        passed.append(named["input_ids"].tolist()[0])  # type: ignore[attr-defined]
        return forward(*arguments, **named)

    monkeypatch.setattr(model, "forward", recorded)
    engine = TransformersEngine(model)
    time = engine.reply(Passage((1, 300, 301), (302, 303, 304), 3, 3))
    assert passed == [[1, 300, 301], [302], [303]]
    assert time.first_token > 0 and time.later_tokens > 0
    # Keys and values of 2 layers with 2 heads of width 16 in float32.
    assert engine.cache_bytes() == 2 * 2 * 2 * 16 * 4


def test_arithmetic_of_a_7b() -> None:
    """Against the formulas with LLaMA's sizes written out; short prompts cost tokens, long ones more than tokens."""
    shape = shape_of(read_shape(None, "llama-7b"))
    body = 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096
    old = serving_cost("old", shape, 32_000, 1.2, 100)
    new = serving_cost("new", shape, 52_000, 0.8, 100, old)
    assert old.bytes_written == pytest.approx(1.2 * (2 * (body + 32_000 * 4096) + 120 * 2 * 32 * 4096 * 2))
    assert old.operations_read == pytest.approx(
        (120 * (2 * body + 4 * 32 * 4096 * 60) + 2 * 32_000 * 4096) / 100
    )
    assert old.cache_bytes == pytest.approx(1.2 * 524_288)
    assert old.read_ratio is None and new.written_ratio == pytest.approx(
        old.bytes_written / new.bytes_written
    )
    # A larger head takes back a little of what fewer tokens save when writing, and nearly nothing when reading.
    assert new.written_ratio is not None and new.read_ratio is not None
    assert 1.45 < new.written_ratio < 1.5 < new.read_ratio + 0.01
    far = serving_cost("new", shape, 52_000, 0.8, 100_000, serving_cost("old", shape, 32_000, 1.2, 100_000))
    assert far.written_ratio is not None and 2 < far.written_ratio < 1.5**2


def test_the_command_measures_in_both_engines(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    run = write_run(tmp_path / "run", models / "base", range(500, 600), lora=True)
    words = ("eval", "base", "grown", run, "--serving", "--text", "zh.txt", "--prompt", 10, "--prompt", 40,
             "--reply", 20, "--rounds", 3)  # fmt: skip
    done = line(models, *words, "--json", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8")) == result
    assert "written per second" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "manifest.json").is_file()
    served = result["serving"]
    assert (served["basis"], served["rounds"], served["reply_characters"]) == ("measured", 3, 20)
    places = [(s["engine"], s["prompt_characters"], s["model"]) for s in served["speeds"]]
    assert places == [
        (engine, length, model)
        for engine in ("transformers", "llama.cpp")
        for length in (10, 40)
        for model in ("base", "grown", str(run))
    ]
    for speed in served["speeds"]:
        assert speed["read"]["low"] <= speed["read"]["median"] <= speed["read"]["high"]
        assert (speed["written_ratio"] is None) == (speed["model"] == "base")
    base, grown, _ = served["models"]
    texts = {row["model"]: row for row in result["texts"]}
    assert base["bits"] == texts["base"]["bits_per_character"]
    assert base["tokens_per_character"] == texts["base"]["tokens_per_character"]
    assert grown["tokens_per_character"] < base["tokens_per_character"]
    assert base["context_characters"] == pytest.approx(512 / base["tokens_per_character"])
    ids = base_vocabulary().processor.encode(TEXT)
    assert base["cache_megabytes"]["transformers"] == pytest.approx(512 * len(ids) / len(TEXT) / 1e3)
    # llama.cpp caches in 16 bits; a file of it holds the ids and a header too.
    assert base["cache_megabytes"]["llama.cpp"] == pytest.approx(256 * len(ids) / len(TEXT) / 1e3, rel=0.15)
    drawn = line(models, *words)
    assert drawn.code == 0, drawn.err
    assert "llama.cpp" in drawn.out and max(map(len, drawn.out.splitlines())) <= 80
    again = line(models, *words, "--out", tmp_path / "out")
    assert again.code == 1 and "contains a finished run" in again.err


def test_without_llamacpp_the_rest_is_measured(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    words = ("eval", "base", "--serving", "--text", "zh.txt", "--prompt", 10, "--reply", 10, "--rounds", 1)
    done = line(models, *words, "--json")
    assert done.code == 0 and "not measured in llama.cpp" in done.err and "xllamacpp" in done.err
    assert {s["engine"] for s in json.loads(done.out)["serving"]["speeds"]} == {"transformers"}
    asked = line(models, *words, "--engine", "llamacpp")
    assert asked.code == 1 and "xllamacpp" in asked.err and asked.err.count("\n") == 1


def test_a_shape_is_computed_and_says_so(models: Path) -> None:
    done = line(models, "eval", "base", "larger", "--serving", "--shape", "llama-7b", "--json")
    assert done.code == 0, done.err
    served = json.loads(done.out)["serving"]
    assert (served["basis"], served["speeds"], len(served["costs"])) == ("arithmetic", [], 6)
    assert served["text"] == "corpora/sample"
    drawn = line(models, "eval", "base", "larger", "--serving", "--shape", "llama-7b")
    assert "nothing was measured" in drawn.out and max(map(len, drawn.out.splitlines())) <= 80
    unknown = line(models, "eval", "base", "--serving", "--shape", "no-such")
    assert unknown.code == 1 and "neither a config.json nor a shipped shape" in unknown.err
    tasks = line(models, "eval", "base", "--serving", "--shape", "llama-7b", "--tasks", "zhllama_zh")
    assert tasks.code == 1 and "--tasks: needs a model, and --shape only computes" in tasks.err


@pytest.mark.parametrize(
    "words", [("--shape", "llama-7b"), ("--prompt", 20), ("--reply", 20), ("--rounds", 2), ("--engine", "llamacpp"), ("--gguf", "f16")]
)  # fmt: skip
def test_options_of_serving_alone_are_refused(models: Path, words: tuple[object, ...]) -> None:
    alone = line(models, "eval", "base", "--text", "zh.txt", *words)
    assert alone.code == 1 and f"{words[0]}: is for --serving" in alone.err
