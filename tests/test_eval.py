"""Bits per byte and character: equal to the plain sum, whatever the window and the vocabulary; and lm-eval's tasks."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from tests.model_toys import (
    CHINESE,
    ENGLISH,
    base_vocabulary,
    larger_vocabulary,
    line,
    write_model,
    write_run,
    write_tokenizer,
)
from zhllama.errors import InputError, OptionError
from zhllama.evaluation.bits_per_byte import measure_bits, read_text
from zhllama.model.grow import grow
from zhllama.model.load import open_model
from zhllama.vocab.any_tokenizer import load_any_tokenizer


def _plain_bits(folder: Path, text: str) -> float:
    model = open_model(folder).model
    ids = torch.tensor([[1, *base_vocabulary().processor.encode(text)]])
    with torch.inference_mode():
        losses = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
    return float(losses) / math.log(2)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "bloom"])
def test_one_window_equals_the_plain_sum(tmp_path: Path, kind: str) -> None:
    base = write_model(tmp_path, kind)
    bits = measure_bits(open_model(base).model, load_any_tokenizer(base), ENGLISH)
    assert bits.bits == pytest.approx(_plain_bits(base, ENGLISH), rel=1e-5)
    assert (bits.bytes, bits.characters) == (len(ENGLISH), len(ENGLISH))
    assert bits.per_byte == bits.per_character == bits.bits / len(ENGLISH)


@pytest.mark.parametrize(("window", "stride"), [(8, 4), (16, 1), (7, 6), (64, 32)])
def test_strided_windows_score_each_token_once(tmp_path: Path, window: int, stride: int) -> None:
    """Against one pass a token: its context is cut where the window that scores it begins."""
    base = write_model(tmp_path)
    model, tokenizer = open_model(base).model, load_any_tokenizer(base)
    ids = [1, *base_vocabulary().processor.encode(ENGLISH)]
    nats, scored = 0.0, 1
    while scored < len(ids):
        end = min(len(ids), window + 1 if scored == 1 else scored + stride)
        for at in range(scored, end):
            context = torch.tensor([ids[max(0, end - 1 - window) : at]])
            with torch.inference_mode():
                nats -= float(model(context).logits[0, -1].log_softmax(-1)[ids[at]])
        scored = end
    told: list[float] = []
    bits = measure_bits(model, tokenizer, ENGLISH, window=window, stride=stride, advance=told.append)
    assert bits.bits == pytest.approx(nats / math.log(2), rel=1e-5)
    assert bits.tokens == len(ids) - 1 and sum(told) == pytest.approx(len(ENGLISH))


def test_vocabularies_share_their_unit(tmp_path: Path) -> None:
    """A grown model has fewer tokens for the same bytes; a uniform model needs tokens * log2(rows) bits."""
    base = write_model(tmp_path / "base")
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    rows = grow(base, larger, tmp_path / "grown").rows
    model = open_model(tmp_path / "grown").model
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    bits = measure_bits(model, load_any_tokenizer(tmp_path / "grown"), CHINESE)
    assert bits.tokens == len(larger_vocabulary().processor.encode(CHINESE)) < len(CHINESE.encode())
    assert bits.bits == pytest.approx(bits.tokens * math.log2(rows), rel=1e-5)
    assert bits.per_character == pytest.approx(bits.per_byte * len(CHINESE.encode()) / len(CHINESE))


def test_invalid_inputs(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    larger = load_any_tokenizer(write_tokenizer(larger_vocabulary(), tmp_path / "larger"))
    model = open_model(base).model
    with pytest.raises(InputError, match=r"gives id .* and the model has 600 rows"):
        measure_bits(model, larger, CHINESE)
    with pytest.raises(OptionError, match="does not lie between"):
        measure_bits(model, larger, ENGLISH, window=8, stride=8)


@pytest.mark.parametrize("wrong", [1000, 600, -1])
def test_a_text_begins_with_an_id_that_has_a_row(tmp_path: Path, wrong: object) -> None:
    base = write_model(tmp_path / "base")
    model, tokenizer = open_model(base).model, load_any_tokenizer(base)
    for key in ("bos_token_id", "eos_token_id"):
        model.config.bos_token_id, model.config.eos_token_id = None, None
        setattr(model.config, key, wrong)
        with pytest.raises(InputError, match=rf"base: has .* as its {key}, and the model has \d+ rows"):
            measure_bits(model, tokenizer, ENGLISH)
    model.config.bos_token_id, model.config.eos_token_id = None, [wrong, 1]
    with pytest.raises(InputError, match=r"base: has .* as its eos_token_id"):
        measure_bits(model, tokenizer, ENGLISH)
    model.config.eos_token_id = []
    with pytest.raises(InputError, match="base: has neither BOS nor EOS"):
        measure_bits(model, tokenizer, ENGLISH)


@pytest.mark.parametrize(
    "content", ['{"eos_token_id": {"a": 1}}', '{"eos_token_id": 2, "eos_token_id": 3}', "[1]"]
)
def test_a_generation_config_is_checked_though_nothing_is_generated(tmp_path: Path, content: str) -> None:
    base = write_model(tmp_path / "base")
    (base / "generation_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="base"):
        open_model(base)


def test_texts_are_read_as_documents(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "one\\ntwo"}\n{"text": "三"}\n', encoding="utf-8")
    assert read_text(path) == "one\ntwo\n\n三"
    assert read_text(path, 4) == "one\n"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_model(tmp_path / "base")
    run = write_run(tmp_path / "run", base, range(500, 600), lora=True)
    (tmp_path / "zh.txt").write_text(CHINESE, encoding="utf-8")
    (tmp_path / "en.txt").write_text(ENGLISH, encoding="utf-8")
    done = line(tmp_path, "eval", "base", run, "--text", "zh.txt", "--text", "en.txt", "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["texts"]
    assert [(r["model"], r["text"]) for r in rows] == [
        (m, t) for m in ("base", str(run)) for t in ("zh.txt", "en.txt")
    ]
    assert rows[1]["bits_per_byte"] == pytest.approx(_plain_bits(base, ENGLISH) / len(ENGLISH), rel=1e-5)
    assert rows[1]["bits_per_byte"] != rows[3]["bits_per_byte"]
    monkeypatch.setenv("COLUMNS", "80")
    named = write_model(tmp_path / "a-model-with-a-name-that-does-not-fit")
    drawn = line(tmp_path, "eval", named, "--text", "zh.txt", "--limit", 10)
    assert drawn.code == 0 and "bits/byte  bits/character  tokens/character" in drawn.out
    assert max(map(len, drawn.out.splitlines())) <= 80
    assert re.search(r"zh\.txt +\d+\.\d{4} +\d+\.\d{4} +\d+\.\d{3}\s", drawn.out)
    nothing = line(tmp_path, "eval", "base")
    assert (nothing.code, nothing.err) == (
        1, "zhllama: eval: has nothing to measure. Give --text FILE or --tasks NAME\n")  # fmt: skip
    offline = line(tmp_path, "eval", "nobody/nothing", "--text", "zh.txt")
    assert offline.code == 1 and offline.err.count("\n") == 1 and "nobody/nothing" in offline.err


TASK = """
task: toy_cloze
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


def test_lm_eval_with_own_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    base = write_model(tmp_path / "base")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    questions = [
        {"question": f"{n} + 1 =", "choices": [f" {n + 1}", f" {n + 2}"], "answer": 0} for n in range(6)
    ]
    (tasks / "toy.jsonl").write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    (tasks / "toy.yaml").write_text(TASK % (tasks / "toy.jsonl"), encoding="utf-8")
    capfd.readouterr()
    done = line(tmp_path, "eval", "base", "--tasks", "toy_cloze", "--task-path", tasks, "--json")
    assert done.code == 0, done.err
    # Neither lm-eval's bars and remarks, nor git's outside a repository.
    assert capfd.readouterr().err == "" and "it/s" not in done.err and "kwarg" not in done.err
    (score,) = json.loads(done.out)["tasks"]
    model, tokenizer = open_model(base)

    def likelihood(question: str, choice: str) -> float:
        ids = tokenizer(question + choice).input_ids
        begin = len(tokenizer(question).input_ids)
        with torch.inference_mode():
            chances = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(chances[i - 1, ids[i]]) for i in range(begin, len(ids)))

    right = [
        likelihood(q["question"], q["choices"][0]) > likelihood(q["question"], q["choices"][1])
        for q in questions
    ]
    assert (score["task"], score["metric"]) == ("toy_cloze", "acc")
    assert score["value"] == pytest.approx(sum(right) / len(right))


@pytest.mark.slow  # lm-eval reads the list of all its tasks
def test_unknown_lm_eval_task(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    write_model(tmp_path / "base")
    unknown = line(tmp_path, "eval", "base", "--tasks", "no_such_task")
    assert unknown.code == 1 and "lm-eval knows no 'no_such_task'" in unknown.err
