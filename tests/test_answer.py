"""answer: a two-layer model in batches, a server, kills in the middle, accounts and one-line errors."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.model_toys import line, write_model
from tests.serving import Served, served
from tests.test_gen_zh import Started, rows, stats

__all__ = ["served"]
QUESTIONS = [
    {
        "id": f"q{n}",
        "instruction": "说说" + "很" * (n * 7 % 23) + "长的故事",
        "category": "写作",
        "reference": "好",
    }
    for n in range(11)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("answer") / "model")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(q, ensure_ascii=False) + "\n" for q in QUESTIONS), encoding="utf-8")
    return path


def run(*arguments: Any) -> dict[str, Any]:
    told = line(Path("/"), "answer", *arguments, "--json")
    assert told.code == 0, told.err
    return dict(json.loads(told.out))


def texts(out: Path) -> list[str]:
    return [row["answer"] for row in rows(out / "answers.jsonl")]


def test_batches_padded_on_the_left_answer_as_single_questions_do(
    model: Path, questions: Path, tmp_path: Path
) -> None:
    import torch

    from zhllama.conversation.records import Turn
    from zhllama.inference.transformers_chat_model import open_chat_model

    arguments = (model, "--questions", questions, "--reply-tokens", 24)
    result = run(*arguments, "--out", tmp_path / "many", "--at-once", 4)
    assert (result["answered"], result["refused"], result["missing"], result["template"]) == (
        11,
        0,
        0,
        "alpaca",
    )
    found = rows(tmp_path / "many" / "answers.jsonl")
    assert [row["id"] for row in found] == [q["id"] for q in QUESTIONS] and found[0]["reference"] == "好"
    assert {k: v for k, v in found[3].items() if k in QUESTIONS[3]} == QUESTIONS[3]
    run(*arguments, "--out", tmp_path / "single", "--at-once", 1)
    assert texts(tmp_path / "many") == texts(tmp_path / "single") and len(set(texts(tmp_path / "many"))) > 1
    speaker = open_chat_model(model)
    ids = speaker.tokenizer(
        speaker.template.render(speaker.tokenizer, [Turn("user", QUESTIONS[0]["instruction"])], opened=True),
        add_special_tokens=False,
        return_tensors="pt",
    ).input_ids
    with torch.inference_mode():
        made = speaker.model.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1] :]
    assert speaker.tokenizer.decode(made, skip_special_tokens=True).strip() == found[0]["answer"]


def test_a_killed_run_equals_an_uninterrupted_run(model: Path, questions: Path, tmp_path: Path) -> None:
    arguments = (
        model,
        "--questions",
        questions,
        "--reply-tokens",
        200,
        "--at-once",
        2,
        "--temperature",
        1,
        "--seed",
        5,
    )
    run(*arguments, "--out", tmp_path / "whole")
    out, journal = tmp_path / "run", tmp_path / "run" / "journal.jsonl"
    process = Started(out, "answer", *arguments, "--out", out)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size):
        assert process.running(), process.logs[1].read_text()
        time.sleep(0.005)
    process.kill()
    kept = len(rows(journal))
    assert 0 < kept < 11 and not (out / "answers.jsonl").exists()
    with journal.open("rb+") as file:  # the second half of a batch is lost, too
        lines = file.read().splitlines(keepends=True)
        file.truncate(len(b"".join(lines[:-1])) + 20)
    run(*arguments, "--out", out, "--resume")
    assert (out / "answers.jsonl").read_bytes() == (tmp_path / "whole" / "answers.jsonl").read_bytes()


def test_a_server_answers_and_a_judge_reads_it(served: Served, questions: Path, tmp_path: Path) -> None:
    url = served()
    for name in ("甲", "乙"):
        asked = ("fake", "--base-url", url, "--questions", questions, "--out", tmp_path / name)
        code, told, said = Started(tmp_path / name, "answer", *asked, *(("--reply-tokens", 9) if name == "甲" else ()), "--json").wait()  # fmt: skip
        assert code == 0, said
        assert json.loads(told)["answered"] == 11 and json.loads(told)["replies"] == 11
    assert stats(url)["answered"] == 22
    code, told, said = Started(
        tmp_path / "judged", "judge", "--answers", tmp_path / "甲", "--answers", tmp_path / "乙", "--out", tmp_path / "judged", "--json"
    ).wait()  # fmt: skip
    assert code == 0, said
    assert json.loads(told)["contestants"] == {"甲": 11, "乙": 11}
    manifest = json.loads((tmp_path / "judged" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["parents"] == [str(tmp_path / "乙"), str(tmp_path / "甲")], (
        "lineage from answers to verdicts"
    )


def test_prompts_beyond_the_context_are_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    rows_ = [{"id": "long", "instruction": "长" * 600}, {"id": "short", "instruction": "短"}]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_), encoding="utf-8")
    result = run(model, "--questions", path, "--out", tmp_path / "run", "--reply-tokens", 8)
    assert (result["questions"], result["answered"], result["refused"]) == (2, 1, 1)
    refused = rows(tmp_path / "run" / "refused.jsonl")
    assert refused[0]["id"] == "long" and refused[0]["reason"].endswith("exceed the context of 512")


def test_user_errors_are_one_line_and_leave_no_folder(model: Path, questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for arguments, told in [
        ((tmp_path, "--questions", questions), f"{tmp_path}: contains neither a model (config.json) nor a zhllama run"),
        ((model, "--questions", tmp_path / "no.jsonl"), f"{tmp_path}/no.jsonl: no such file"),
        ((model, "--questions", questions, "--template", "chatml"), "--template chatml: needs the special token"),
        ((model, "--questions", questions, "--template", "x"), "--template: 'x' is not known"),
        ((model, "--questions", questions, "--temperature", 9), "--temperature 9.0: is not from 0 to 5."),
        ((model, "--questions", questions, "--at-once", 0), "--at-once 0: is below 1."),
        (("x", "--questions", questions, "--base-url", "http://127.0.0.1:9/v1", "--system", "你好"), "--system: is for a local model."),
    ]:  # fmt: skip
        shown = line(tmp_path, "answer", *arguments, "--out", out)
        assert (shown.code, shown.out, shown.err.count("zhllama: ")) == (1, "", 1), shown.err
        assert f"zhllama: {told}" in shown.err and not out.exists()


def test_a_run_of_answer_is_not_a_model(model: Path, questions: Path, tmp_path: Path) -> None:
    run(model, "--questions", questions, "--out", tmp_path / "run", "--n", 1, "--reply-tokens", 2)
    shown = line(tmp_path, "answer", tmp_path / "run", "--questions", questions, "--out", tmp_path / "x")
    assert shown.code == 1 and "is a run that trained no model" in shown.err
