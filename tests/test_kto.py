"""kto on a two-layer model: labels are read, it moves to the right side, its run is a model, kills change nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.align_toys import WORSE, ranked_rows
from tests.model_toys import WORDS, line, write_model
from tests.test_reward import MEASURED, SETTINGS, figures, killed_at
from tests.test_row_fields import ANSWER, ASK, A, Q, S
from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.read_conversations import BadRow
from zhllama.conversation.read_labelled import labelled_of, read_labelled
from zhllama.conversation.records import LabelledAnswer
from zhllama.conversation.row_fields import RowReading
from zhllama.conversation.template import template_for
from zhllama.errors import InputError
from zhllama.model.load import load_transformers_tokenizer
from zhllama.training.examples import read_examples
from zhllama.training.kto import Judgment, balance_note
from zhllama.training.labelled_answers import LABELLED, TokenizedAnswer, to_rows


def labelled_rows(count: int) -> list[dict[str, Any]]:
    """Rows of four forms; answers in Chinese are good, answers in English bad."""
    rows: list[dict[str, Any]] = []
    for n in range(count):
        good = n % 2 == 0
        asked, answer = f"说说{WORDS[n % 28]}{n}", WORDS[n * 5 % 28] + "很好" if good else WORSE[n // 2 % 4]
        forms: list[dict[str, Any]] = [
            {"instruction": asked, "input": "", "output": answer, "kto_tag": good},
            {"prompt": asked, "completion": answer, "label": str(good)},
            {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}], "kto_tag": int(good)},
            {"prompt": [{"role": "user", "content": asked}], "completion": [{"role": "assistant", "content": answer}], "label": good},
        ]  # fmt: skip
        rows.append(forms[n // 2 % 4])
    return rows


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kto")
    write_model(folder / "base")
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in labelled_rows(60))
    (folder / "answers.jsonl").write_text(rows, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def encoder(ground: Path) -> ConversationEncoder:
    tokenizer = load_transformers_tokenizer(ground / "base")
    return ConversationEncoder(tokenizer, template_for("alpaca", tokenizer))


def train(*arguments: object) -> tuple[object, ...]:
    return ("kto", "--model", "base", "--data", "answers.jsonl", *SETTINGS, *arguments)


@pytest.mark.parametrize(
    ("row", "turns", "good"),
    [
        ({"instruction": "问？", "output": "答。", "kto_tag": True}, (Q, A), [True]),
        ({"messages": [ASK, ANSWER], "label": False}, (Q, A), [False]),
        ({"messages": [ASK, ANSWER], "label": 0}, (Q, A), [False]),
        ({"conversation": [["问？", "答。"]], "label": "TRUE"}, (Q, A), [True]),
        ({"system": "令", "query": "问？", "response": "答。", "label": "false"}, (S, Q, A), [False]),
        (
            {"prompt": "问？", "completion": "答。", "label": True, "kto_tag": True, "weight": 1},
            (Q, A),
            [True],
        ),
        ({"prompt": "问？", "chosen": "答。", "rejected": "坏"}, (Q, A), [True, False]),
        ({"instruction": "问？", "output": ["答。", "坏"]}, (Q, A), [True, False]),
    ],
)
def test_labels_are_read(row: Any, turns: Any, good: list[bool]) -> None:
    reading = RowReading()
    found = labelled_of(row, "a:1", reading)
    assert found[0].conversation.turns == turns and [one.good for one in found] == good
    assert not reading.unused


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [ASK, ANSWER]}, "has no kto_tag or label as true or false, and no ranked answers"),
        ({"messages": [ASK, ANSWER], "label": "正面"}, "has no kto_tag or label as true or false"),
        ({"messages": [ASK, ANSWER], "label": True, "kto_tag": False}, "has kto_tag and label, which differ"),
        ({"messages": [ASK], "label": True}, "has no answer at its end"),
        ({"messages": [ASK, ANSWER], "label": True, "images": ["a.png"]}, "images: only text"),
        (
            {"messages": [ASK, ANSWER], "label": True, "weight": 0},
            "is marked as not to be trained on (weight: 0)",
        ),
        ({"instruction": "问？", "ranked_outputs": ["甲", "乙", "丙"]}, "ranks its answers in 3 pairs"),
    ],
)
def test_rows_without_a_label_say_what_is_missing(tmp_path: Path, row: Any, reason: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (found,) = read_labelled(tmp_path / "a.jsonl")
    assert isinstance(found, BadRow) and found.reason.startswith(reason)


def test_answers_are_accounted_for_and_ids_are_those_of_the_template(
    ground: Path, encoder: ConversationEncoder, tmp_path: Path
) -> None:
    rows = [
        *labelled_rows(8),
        ranked_rows(1)[0],
        {"instruction": "长", "output": "好" * 400, "kto_tag": True},
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    found = read_examples(LABELLED, [path], encoder, 256, validation_share=0.3)
    counts = found.figures()
    assert counts["answers_read"] == 11 and counts["answers_left_out"] == 1
    assert counts["good"] + counts["bad"] == counts["answers"] == len(found.training)
    prompts = [{tuple(one.prompt) for one in some} for some in (found.training, found.validation)]
    assert not prompts[0] & prompts[1], "a prompt is learned or measured, never both"
    one = read_examples(LABELLED, [path], encoder, 256, validation_share=0).training[1]
    (row,) = [next(iter(labelled_of(rows[1], "", RowReading())))]
    assert isinstance(row, LabelledAnswer) and not one.good and not row.good
    asked = [
        {"role": "user", "content": rows[1]["instruction"]},
        {"role": "assistant", "content": rows[1]["output"]},
    ]
    tokenizer = encoder.tokenizer
    wanted = tokenizer.apply_chat_template(asked, chat_template=encoder.template.jinja)["input_ids"]
    assert one.prompt + one.answer == wanted and wanted[-1] == tokenizer.eos_token_id
    for kept, kind in ((rows[0::2], "bad"), (rows[1:8:2], "good")):
        path.write_text(json.dumps(kept[:4], ensure_ascii=False), encoding="utf-8")
        with pytest.raises(InputError, match=f"leaves no {kind} answer to train on"):
            read_examples(LABELLED, [path], encoder, 256, validation_share=0)


def test_the_other_answer_belongs_to_another_prompt() -> None:
    def answers(prompts: str) -> list[TokenizedAnswer]:
        return [TokenizedAnswer([ord(prompt)], [number], True) for number, prompt in enumerate(prompts)]

    for prompts in ("abc", "aabbc", "abab", "aaab", "ab", "abba"):
        rows = to_rows(answers(prompts))
        for row in rows:
            (other,) = row["KL_completion_ids"]
            assert prompts[other] != chr(row["prompt_ids"][0]), prompts
    assert [row["KL_completion_ids"] for row in to_rows(answers("aaa"))] == [[1], [2], [0]]
    assert [row["KL_completion_ids"] for row in to_rows(answers("aabbc"))] == [[2], [2], [4], [4], [0]]


def test_kinds_out_of_balance_are_told_with_the_weight_that_mends_it() -> None:
    assert balance_note(10, 10, Judgment()) is None and balance_note(10, 18, Judgment()) is None
    assert (
        balance_note(10, 50, Judgment())
        == "10 good and 50 bad answers: a weight of 5 for good ones would make both count equally"
    )
    assert (
        balance_note(50, 10, Judgment())
        == "50 good and 10 bad answers: a weight of 5 for bad ones would make both count equally"
    )
    assert balance_note(50, 10, Judgment(bad_weight=5)) is None
    assert balance_note(0, 2, Judgment()) is None and balance_note(2, 0, Judgment()) is None


@pytest.mark.parametrize("full", [False, True])
def test_it_moves_to_the_right_side_and_its_run_is_a_model(ground: Path, full: bool) -> None:
    out, more = ("full", ("--full", "--lr", 1e-3)) if full else ("lora", ("--lr", 1e-2))
    before = (ground / "base" / "model.safetensors").read_bytes()
    made = figures(ground, *train("--out", out, "--steps", 10, *more))
    assert made["accuracy_validation"]["before"] == 0.5 and made["accuracy_validation"]["after"] > 0.8
    assert made["margin_validation"]["before"] == 0 and made["margin_validation"]["after"] > 0.1
    assert made["answers"] + made["validation_answers"] == made["answers_read"] == 60
    assert (ground / "base" / "model.safetensors").read_bytes() == before
    first = json.loads((ground / out / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["loss"] == pytest.approx(0.5, abs=1e-4) and first["kl"] == pytest.approx(0, abs=1e-4)
    told = line(ground, "export", out, "--out", f"{out}-plain")
    assert told.code == 0, told.err
    if full:
        return
    (ground / "q.jsonl").write_text('{"id": 1, "instruction": "说说历史"}\n', encoding="utf-8")
    said = []
    for model in (out, f"{out}-plain"):
        asked = ("--questions", "q.jsonl", "--reply-tokens", 12, "--out", f"{model}-said")
        assert line(ground, "answer", model, *asked).code == 0
        said.append(
            json.loads((ground / f"{model}-said" / "answers.jsonl").read_text(encoding="utf-8"))["answer"]
        )
    assert said[0] == said[1], "the exported model says what the run says"


@pytest.mark.slow  # as dpo, whose own test is quick enough
def test_killed_anywhere_a_kto_run_ends_with_the_same_bytes(ground: Path) -> None:
    settings = ("--steps", 6, "--save-every", 2, "--eval-every", 3, "--lr", 1e-3)
    assert line(ground, *train("--out", "whole", *settings)).code == 0
    arguments = train("--out", "killed", *settings, "--resume")
    assert killed_at(ground, arguments, ground / "killed", 4)
    told = line(ground, *arguments)
    assert told.code == 0, told.err
    one, other = (ground / way / "adapter/adapter_model.safetensors" for way in ("killed", "whole"))
    assert one.read_bytes() == other.read_bytes()
    logs = [
        [{k: v for k, v in json.loads(row).items() if k not in MEASURED} for row in (ground / way / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        for way in ("killed", "whole")
    ]  # fmt: skip
    assert logs[0] == logs[1]


def test_what_does_not_fit_is_one_line(ground: Path) -> None:
    told = line(ground, *train("--out", "one", "--micro-batch", 1))
    assert told.code == 1 and "--micro-batch 1: is too small" in told.err
    told = line(ground, "kto", "--model", "base", "--out", "none")
    assert told.code == 1 and told.err == "zhllama: --data: is missing. Give a file of labelled answers.\n"
    told = line(ground, *train("--dry-run"))
    assert told.code == 0, told.err
