"""Conversations and ranked answers: every form in use, and every bad row by its line and reason."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from zhllama.conversation.read_comparisons import read_comparisons
from zhllama.conversation.read_conversations import (
    BadRow,
    accepted_rows,
    prompt_fault,
    read_conversations,
    refuse_bad_rows,
    training_fault,
)
from zhllama.conversation.records import Comparison, Conversation, Turn
from zhllama.errors import InputError
from zhllama.io.rows import read_rows

ASKED, TOLD = Turn("user", "问？"), Turn("assistant", "答。")


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def only(path: Path) -> Conversation:
    (found,) = read_conversations(path, training_fault)
    assert isinstance(found, Conversation), found
    return found


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"instruction": "问？", "output": "答。"}, (ASKED, TOLD)),
        ({"instruction": " 问？\n", "input": None, "output": "答。 "}, (ASKED, TOLD)),
        ({"instruction": "译", "input": "猫", "output": "cat"}, (Turn("user", "译\n猫"), Turn("assistant", "cat"))),
        ({"instruction": "问？", "output": "答。", "history": [["问？", "答。"]], "system": "令"},
         (Turn("system", "令"), ASKED, TOLD, ASKED, TOLD)),
        ({"input": "问？", "target": "答。"}, (ASKED, TOLD)),
        ({"conversations": [{"from": "human", "value": "问？"}, {"from": "gpt", "value": "答。"}]}, (ASKED, TOLD)),
        ({"system": "令", "conversations": [{"from": "user", "value": "问？"}, {"from": "bard", "value": "答。"}]},
         (Turn("system", "令"), ASKED, TOLD)),
        ({"messages": [{"role": "user", "content": "问？"}, {"role": "assistant", "content": "答。"}]}, (ASKED, TOLD)),
        ({"conversation": [{"human": "问？", "assistant": "答。"}]}, (ASKED, TOLD)),
    ],
)  # fmt: skip
def test_forms(tmp_path: Path, row: dict[str, Any], turns: tuple[Turn, ...]) -> None:
    assert only(write(tmp_path / "a.jsonl", row)).turns == turns


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "", "output": "答。"}, "turn 1 (user) is empty"),
        ({"instruction": "问？", "output": ""}, "has no answer at its end"),
        ({"instruction": 7, "output": "答。"}, "instruction: input should be a valid string"),
        ({"instruction": "\ud800", "output": "答。"}, "instruction: contains a lone surrogate"),
        ({"conversations": []}, "contains no user turn"),
        (
            {"conversations": [{"from": "gpt", "value": "答。"}]},
            "turn 1 is assistant's where a user's is expected",
        ),
        ({"conversations": [{"from": "human"}]}, "conversations.0.value: field required"),
        (
            {"conversations": [{"from": "robot", "value": "x"}]},
            "unknown role 'robot'; known are system, human, user",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content: input should"),
        ({"messages": [{"role": "user", "content": "问？"}] * 2}, "turn 2 is user's where an assistant's is"),
        (
            {"messages": [{"role": "user", "content": "问？"}, {"role": "system", "content": "令"}]},
            "turn 2 is sys",
        ),
        ({"text": "x"}, "has none of the fields conversations, messages, conversation, instruction, input"),
        (["问？"], "is not a JSON object"),
    ],
)
def test_bad_rows_tell_line_and_reason(tmp_path: Path, row: Any, reason: str) -> None:
    path = write(tmp_path / "a.jsonl", {"instruction": "问？", "output": "答。"}, row)
    good, bad = read_conversations(path, training_fault)
    assert isinstance(good, Conversation) and isinstance(bad, BadRow)
    assert bad.where == f"{path}:2" and bad.reason.startswith(reason)


def test_lists_tell_the_line_of_each_member(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        '[\n{"instruction": "一",\n "output": "1"},\n\n{"instruction": "二"} ]\n', encoding="utf-8"
    )
    good, bad = read_conversations(path, training_fault)
    assert good.where == f"{path}:2" and bad.where == f"{path}:5"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="contains no rows"):
        list(read_conversations(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"a": 1}\n {"a": 2}]', r":2: is not JSON \(a comma is missing\)"),
        ('[{"a": 1},\n {"a": 2}', r":2: is not JSON \(the list ends too early\)"),
        ('[{"a": 1}]\n[]', r":2: is not JSON \(more text after the list\)"),
        ("[" * 100_000, r":1: is not JSON \(nested too deeply\)"),
        ('{"a": 1}\n{"a": ', r":2: is not JSON \(Expecting value"),
        ("[" + '{"a":' * 100_000, r":1: is not JSON"),
    ],
)
def test_broken_json(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        list(read_rows(path))


def test_prose_is_refused_as_a_whole_and_rows_after_few_broken_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("第一章\n\n" + "有人问，有人答。\n" * 30, encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl: contains no rows: none of its first 20 lines is JSON"):
        list(read_conversations(path))
    row = json.dumps({"instruction": "问？", "output": "答。"})
    path.write_text("no\n" * 19 + f"{row}\n" + "no\n" * 40, encoding="utf-8")
    rows = list(read_conversations(path))
    assert len(rows) == 60 and [r.where for r in rows if not isinstance(r, BadRow)] == [f"{path}:20"]


def test_packed_files_and_broken_lines(tmp_path: Path) -> None:
    line = json.dumps({"instruction": "问？", "output": "答。"}) + "\n"
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress((line + "\nno\n" + line).encode()))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(f"\ufeff[{line},{line}]".encode()))
    found = list(read_conversations(tmp_path / "a.jsonl.xz", training_fault))
    assert [type(row) for row in found] == [Conversation, BadRow, Conversation]
    assert found[1].where.endswith(":3") and found[2].where.endswith(":4")
    assert len(list(read_conversations(tmp_path / "a.json.gz", training_fault))) == 2
    with pytest.raises(InputError, match="no such file"):
        list(read_conversations(tmp_path / "none.json"))


def test_bad_rows_are_refused_or_kept_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"a": 1}, {"instruction": "问？", "output": "答。"}, {"b": 1})
    bad: list[BadRow] = []
    assert len(list(accepted_rows(read_conversations(path, training_fault), bad))) == 1 and len(bad) == 2
    with pytest.raises(InputError, match=r"a.jsonl:1: has none.*\. 1 more rows are bad.*`skip_bad`"):
        refuse_bad_rows(bad)
    refuse_bad_rows([])


QUESTION = Conversation((ASKED,), "")
PAIR = {"chosen": "好", "rejected": "坏"}
SAYS = [{"role": "user", "content": "问？"}]


@pytest.mark.parametrize(
    "row",
    [
        {"user_input": "问？", "completion_a": "好", "completion_b": "坏"},
        {"user_input": "问？", "responses_and_scores": [{"response": "坏", "score": 3}, {"response": "好", "score": "9"}]},
        {"user_input": "问？", "pairs": [PAIR], "responses_and_scores": [{"response": "坏", "score": 9}]},
        {"instruction": "问？", "input": "", "history": [], "ranked_outputs": ["好", "坏"]},
        {"instruction": "问？", "output": "不用", **PAIR},
        {"prompt": "问？", **PAIR},
        {"conversations": [{"from": "human", "value": "问？"}], "chosen": {"from": "gpt", "value": "好"},
         "rejected": {"from": "gpt", "value": "坏"}},
        {"chosen": [*SAYS, {"role": "assistant", "content": "好"}], "rejected": [*SAYS, {"role": "assistant", "content": "坏"}]},
        {"prompt": "问？", "chosen": [{"role": "assistant", "content": "好"}], "rejected": [{"role": "assistant", "content": "坏"}]},
        {"messages": SAYS, **PAIR},
    ],
)  # fmt: skip
def test_forms_of_ranked_answers(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = read_comparisons(write(tmp_path / "a.jsonl", row))
    assert isinstance(found, Comparison), found
    assert (found.prompt.turns, found.chosen, found.rejected) == ((ASKED,), "好", "坏")
    assert prompt_fault(found.prompt) is None


def test_every_better_answer_stands_before_every_worse_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"instruction": "问？", "ranked_outputs": ["甲", "乙", "丙"]})
    found = [(c.chosen, c.rejected) for c in read_comparisons(path) if isinstance(c, Comparison)]
    assert found == [("甲", "乙"), ("甲", "丙"), ("乙", "丙")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"user_input": "问？"}, "has neither completion_a and completion_b nor responses_and_scores"),
        (
            {"user_input": "问？", "responses_and_scores": [{"response": "好", "score": 1}] * 2},
            "has no answer that",
        ),
        ({"prompt": "问？", "chosen": "好", "rejected": "好"}, "has no answer that is better"),
        ({"prompt": "问？", "chosen": "好", "rejected": " "}, "has an empty answer"),
        ({"prompt": "", **PAIR}, "turn 1 (user) is empty"),
        ({"prompt": "问？", "chosen": "好", "rejected": SAYS}, "chosen and rejected are of different forms"),
        ({"chosen": SAYS, "rejected": SAYS}, "chosen and rejected do not both end with an answer"),
        ({"instruction": "问？"}, "has none of the fields user_input, ranked_outputs, chosen"),
    ],
)
def test_bad_ranked_rows(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    (bad,) = read_comparisons(write(tmp_path / "a.jsonl", row))
    assert isinstance(bad, BadRow) and bad.reason.startswith(reason)


def test_real_files(data: Path) -> None:
    for path in sorted((data / "instructions").glob("*.xz")):
        if path.name.startswith("rank_"):
            pairs = list(read_comparisons(path))
            assert sum(isinstance(pair, Comparison) for pair in pairs) > 0.99 * len(pairs), path
        else:
            rows = list(read_conversations(path, training_fault))
            bad = [row for row in rows if isinstance(row, BadRow)]
            # Two rows of this file have a tool's result without its call.
            assert len(rows) >= 33 and len(bad) == (2 if "toolcall" in path.name else 0), path
            assert all(b.reason == "turn 3 is tool's where a user's is expected" for b in bad), path
