"""Every field of a row is used, refused by its name, or counted: nothing is dropped in silence."""

import json
from pathlib import Path
from typing import Any

import pytest

from zhllama.conversation.read_comparisons import read_comparisons
from zhllama.conversation.read_conversations import BadRow, read_conversations, training_fault
from zhllama.conversation.records import Comparison, Conversation, ToolCall, Turn
from zhllama.conversation.row_fields import RowReading, parse_field_map
from zhllama.conversation.sharegpt import sharegpt_row
from zhllama.conversation.stored_conversations import from_json, to_json
from zhllama.errors import InputError, OptionError

Q, A = Turn("user", "问？"), Turn("assistant", "答。")
S = Turn("system", "令")
ASK, ANSWER = {"role": "user", "content": "问？"}, {"role": "assistant", "content": "答。"}
WEATHER = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "杭州"}'}}
CALL = Turn("assistant", "", calls=(ToolCall("weather", '{"city": "杭州"}'),))
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def read(tmp_path: Path, *rows: Any, **field_map: str) -> tuple[list[Conversation | BadRow], RowReading]:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    reading = RowReading(field_map)
    return list(read_conversations(path, training_fault, None, reading)), reading


def turns(tmp_path: Path, row: Any, **field_map: str) -> tuple[Turn, ...]:
    ((found,), reading) = read(tmp_path, row, **field_map)
    assert isinstance(found, Conversation), found
    assert not reading.unused
    return found.turns


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        # a system prompt beside every form
        ({"system": "令", "messages": [ASK, ANSWER]}, (S, Q, A)),
        ({"system": "令", "messages": [{"role": "system", "content": "令"}, ASK, ANSWER]}, (S, Q, A)),
        ({"system": "令", "conversation": [{"human": "问？", "assistant": "答。"}]}, (S, Q, A)),
        ({"system": "令", "conversation": [["问？", "答。"]]}, (S, Q, A)),
        ({"system": "令", "input": "问？", "target": "答。"}, (S, Q, A)),
        ({"system_prompt": "令", "query": "问？", "response": "答。"}, (S, Q, A)),
        ({"system": "令", "prompt": [ASK], "completion": [ANSWER]}, (S, Q, A)),
        ({"conversation": [{"system": "令", "input": "问？", "output": "答。"}, {"input": "问？", "output": "答。"}]}, (S, Q, A, Q, A)),
        ({"messages": [{"role": "developer", "content": "令"}, ASK, ANSWER]}, (S, Q, A)),
        # empty ones mean none
        ({"system": "", "messages": [{"role": "system", "content": ""}, ASK, ANSWER]}, (Q, A)),
        ({"instruction": "", "input": "问？", "output": "答。"}, (Q, A)),
        ({"instruction": "问？", "output": "答。", "conversations": None, "messages": None, "history": None, "tools": []}, (Q, A)),
        ({"messages": [{**ASK, "tool_calls": None}, {**ANSWER, "tool_calls": [], "reasoning_content": None, "images": []}]}, (Q, A)),
        # forms
        ({"prompt": "问？", "completion": "答。"}, (Q, A)),
        ({"question": "问？", "answer": "答。"}, (Q, A)),
        ({"input": "问？", "output": "答。"}, (Q, A)),
        ({"prompt": [ASK], "completion": "答。"}, (Q, A)),
        ({"prompt": [ASK], "completion": ANSWER}, (Q, A)),
        ({"prompt": [ASK, ANSWER, ASK], "completion": [ANSWER]}, (Q, Turn("assistant", "答。", trained=False), Q, A)),
        ({"query": "问？", "response": "答。", "history": [["问？", "答。"]]}, (Q, A, Q, A)),
        ({"conversations": [ASK, ANSWER]}, (Q, A)),
        ({"messages": [{"from": "human", "value": "问？"}, {"from": "gpt", "value": "答。"}]}, (Q, A)),
        ({"messages": [{"role": "User", "content": "问？"}, {"role": "MODEL", "content": "答。"}]}, (Q, A)),
        ({"conversations": [{"role": "HUMAN", "content": "问？"}, {"role": "Bot", "content": "答。"}]}, (Q, A)),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "问？"}]}, ANSWER]}, (Q, A)),
        ({"messages": json.dumps([ASK, ANSWER])}, (Q, A)),
        # switches
        ({"messages": [ASK, {**ANSWER, "loss": False}, ASK, ANSWER]}, (Q, Turn("assistant", "答。", trained=False), Q, A)),
        ({"messages": [ASK, {**ANSWER, "weight": 0}, ASK, {**ANSWER, "weight": 1}]}, (Q, Turn("assistant", "答。", trained=False), Q, A)),
        ({"conversations": [{"from": "human", "value": "问？", "train": False}, {"from": "gpt", "value": "答。", "train": "false"}, ASK, ANSWER]},
         (Q, Turn("assistant", "答。", trained=False), Q, A)),
        ({"conversation": [{"human": "问？", "assistant": "答。", "loss": 0}, {"human": "问？", "assistant": "答。"}]},
         (Q, Turn("assistant", "答。", trained=False), Q, A)),
        ({"prompt": "问？", "completion": "答。", "label": True, "weight": 1}, (Q, A)),
        ({"messages": [ASK, ANSWER], "kto_tag": True}, (Q, A)),
        # thoughts
        ({"messages": [ASK, {**ANSWER, "reasoning_content": "想"}]}, (Q, Turn("assistant", "答。", "想"))),
        ({"messages": [ASK, {**ANSWER, "thinking": "想"}]}, (Q, Turn("assistant", "答。", "想"))),
        ({"instruction": "问？", "output": "<think>\n想\n</think>\n\n答。"}, (Q, Turn("assistant", "答。", "想"))),
        ({"instruction": "问？", "output": "<think>\n\n</think>\n\n答。"}, (Q, A)),
        ({"instruction": "问？", "output": "想</think>答。"}, (Q, Turn("assistant", "答。", "想"))),
        ({"input": "问？", "output": "答。", "reasoning_content": "想"}, (Q, Turn("assistant", "答。", "想"))),
        ({"input": "问？", "output": "答。", "<think>": "想"}, (Q, Turn("assistant", "答。", "想"))),
        # tools
        ({"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [WEATHER]}, {"role": "tool", "content": "晴"}, ANSWER]},
         (Q, CALL, Turn("tool", "晴"), A)),
        ({"messages": [ASK, {"role": "assistant", "content": "", "function_call": WEATHER["function"]}, {"role": "function", "content": "晴"}, ANSWER]},
         (Q, CALL, Turn("tool", "晴"), A)),
        ({"conversations": [{"from": "human", "value": "问？"}, {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "杭州"}}'},
                            {"from": "observation", "value": "晴"}, {"from": "gpt", "value": "答。"}]}, (Q, CALL, Turn("tool", "晴"), A)),
        ({"messages": [ASK, {"role": "tool_call", "content": '{"name": "a", "arguments": {}}'}, {"role": "tool_call", "content": '{"name": "b"}'},
                       {"role": "tool_response", "content": "1"}, {"role": "tool_response", "content": "2"}, ANSWER]},
         (Q, Turn("assistant", "", calls=(ToolCall("a", "{}"), ToolCall("b", "{}"))), Turn("tool", "1"), Turn("tool", "2"), A)),
    ],
)  # fmt: skip
def test_fields_are_honored(tmp_path: Path, row: Any, wanted: tuple[Turn, ...]) -> None:
    assert turns(tmp_path, row) == wanted


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [ASK, ANSWER], "images": ["a.png"]}, "images: only text can be trained on"),
        ({"messages": [{**ASK, "audio": "a.wav"}, ANSWER]}, "messages.0.audio: only text"),
        ({"instruction": "问？", "output": "答。", "videos": "v.mp4"}, "videos: only text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER]}, "messages.0.content.0: is image_url; only text"),
        ({"messages": [ASK, {**ANSWER, "weight": 0.5}]}, "messages.1.weight: is 0.5; only 0 and 1"),
        ({"messages": [ASK, ANSWER], "weight": 0.5}, "weight: is 0.5"),
        ({"messages": [{**ASK, "loss": True}, ANSWER]}, "messages.0.loss: is on at a user's turn"),
        ({"messages": [ASK, {**ANSWER, "loss_mask": [1]}]}, "messages.1.loss_mask: only loss, weight or train"),
        ({"instruction": "问？", "output": "答。", "rejected": "坏"}, "rejected: is of a ranked pair"),
        ({"messages": [ASK, ANSWER], "rejected_response": "坏"}, "rejected_response: is of a ranked pair"),
        ({"instruction": "问？", "output": ["好", "坏"]}, "output: input should be a valid string"),
        ({"instruction": "问？", "output": "答。", "response": "另"}, "has both output and response, which differ"),
        ({"instruction": "问？", "prompt": "另问", "output": "答。"}, "has both instruction and prompt, which differ"),
        ({"system": "令", "messages": [{"role": "system", "content": "别"}, ASK, ANSWER]}, "system: differs from the system turn"),
        ({"messages": [ASK, ANSWER], "reasoning_content": "想"}, "reasoning_content: is a thought without its answer"),
        ({"messages": [ASK, {"role": "assistant", "content": "<think>想"}]}, "messages.1.content: has <think> without </think>"),
        ({"messages": [ASK, {"role": "assistant", "content": "<think>想</think>"}]}, "turn 2 (assistant) is empty"),
        ({"messages": [ASK, {"role": "assistant", "content": None, "refusal": "不"}]}, "messages.1.content: field required"),
        ({"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": ""}}]}]}, "messages.1.tool_calls.0: is not a tool call"),
        ({"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": [WEATHER]}, ANSWER]}, "turn 3 is assistant's where a tool's is expected"),
        ({"messages": [ASK, {"role": "tool", "content": "晴"}, ANSWER]}, "turn 2 is tool's where an assistant's is expected"),
        ({"messages": [ASK, ANSWER], "tools": [{"x": 1}]}, "tools.0: is not a tool with a name"),
        ({"conversation": [["问？", "答。", "?"]]}, "conversation.0: has 3 members"),
        ({"messages": [ASK, {"content": "答。"}]}, "messages.1.role: field required"),
        ({"instruction": "", "input": "", "output": "答。"}, "turn 1 (user) is empty"),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_honored_are_refused_by_name(tmp_path: Path, row: Any, reason: str) -> None:
    (found,), _ = read(tmp_path, row)
    assert isinstance(found, BadRow) and not found.marked
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"prompt": [ASK], "completion": [ANSWER], "label": False},
            "is marked as a bad answer (label: false)",
        ),
        ({"messages": [ASK, ANSWER], "kto_tag": False}, "is marked as a bad answer (kto_tag: false)"),
        (
            {"prompt": "问？", "completion": "答。", "label": "False"},
            "is marked as a bad answer (label: False)",
        ),
        (
            {"instruction": "问？", "output": "答。", "weight": 0},
            "is marked as not to be trained on (weight: 0)",
        ),
        ({"messages": [ASK, ANSWER], "loss": False}, "is marked as not to be trained on (loss: false)"),
        ({"messages": [ASK, {**ANSWER, "train": False}]}, "has no answer that is to be trained on"),
    ],
)
def test_rows_that_must_not_be_learned(tmp_path: Path, row: Any, reason: str) -> None:
    (found,), _ = read(tmp_path, row)
    assert isinstance(found, BadRow) and found.marked and found.reason == reason


def test_unknown_fields_are_counted_once_a_row_and_metadata_is_not(tmp_path: Path) -> None:
    row = {"id": 1, "source": "x", "lang": "zh", "category": "y", "hint": "?", "label": "正面", "empty": ""}
    messages = [{**ASK, "mood": "好"}, ANSWER, {**ASK, "mood": "坏"}, ANSWER]
    found, reading = read(tmp_path, {**row, "messages": messages}, {**row, "input": "问？", "output": "答。"})
    assert all(isinstance(one, Conversation) for one in found)
    assert reading.unused == {"hint": 2, "label": 2, "messages.mood": 1}


def test_field_map(tmp_path: Path) -> None:
    assert turns(tmp_path, {"题目": "问？", "答案": "答。"}, instruction="题目", output="答案") == (Q, A)
    (found,), _ = read(tmp_path, {"题目": "问？", "instruction": "另"}, instruction="题目")
    assert isinstance(found, BadRow) and found.reason.startswith("has instruction beside 题目, which")
    assert parse_field_map(["instruction=题目", "output = 答案"]) == {"instruction": "题目", "output": "答案"}
    for wrong in (["a"], ["=b"], ["a="], ["a=b", "a=c"]):
        with pytest.raises(OptionError, match="field_map"):
            parse_field_map(wrong)


def test_tools_and_every_field_survive_writing_and_storing(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "令"}, ASK,
        {"role": "assistant", "content": "", "tool_calls": [{**WEATHER, "id": "c1"}], "reasoning_content": "想"},
        {"role": "tool", "content": "晴", "tool_call_id": "c1"}, {**ANSWER, "loss": False}, ASK, ANSWER,
    ]  # fmt: skip
    (first,), _ = read(tmp_path, {"id": "r", "messages": messages, "tools": [TOOL["function"]]})
    assert isinstance(first, Conversation) and json.loads(first.tools) == [TOOL]
    (again,), reading = read(tmp_path, sharegpt_row(first))
    assert again == first and not reading.unused
    assert from_json(json.loads(json.dumps(to_json(first)))) == first


def test_an_indented_object_and_several(tmp_path: Path) -> None:
    row = {"instruction": "问？", "output": "答。"}
    path = tmp_path / "a.json"
    indented = json.dumps(row, ensure_ascii=False, indent=2)
    for text, places in (
        (indented, [1]), (f"{indented}\n{indented}\n", [1, 5]), (f"\n{json.dumps(row)}\n{indented}\n{json.dumps(row)}", [2, 3, 7]),
    ):  # fmt: skip
        path.write_text(text, encoding="utf-8")
        found = list(read_conversations(path, training_fault))
        assert [one.where for one in found] == [f"{path}:{n}" for n in places]
        assert all(isinstance(one, Conversation) and one.turns == (Q, A) for one in found)
    path.write_text('{"a": \n' * 5000 + json.dumps(row) + "\n", encoding="utf-8")
    found = list(read_conversations(path, training_fault))
    assert [type(one) for one in found] == [BadRow] * 5000 + [Conversation]


def test_csv_and_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = tmp_path / "a.csv"
    table.write_text(
        'instruction,input,output,label\n"问？",,"答。",True\n"问，\n又问？","",答。,False\n问？,x\n',
        encoding="utf-8",
    )
    found = list(read_conversations(table, training_fault))
    assert isinstance(found[0], Conversation) and found[0].turns == (Q, A)
    assert found[1:] == [
        BadRow(f"{table}:3", "is marked as a bad answer (label: False)", marked=True),
        BadRow(f"{table}:5", "does not have 4 cells as the first line does"),
    ]
    rows = [
        {"messages": [ASK, ANSWER], "id": 1},
        {"messages": [ASK, {**ANSWER, "loss": False}, ASK, ANSWER], "id": 2},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = list(read_conversations(tmp_path / "a.parquet", training_fault))
    assert [one.where for one in found] == [f"{tmp_path / 'a.parquet'}:{n}" for n in (1, 2)]
    assert isinstance(found[1], Conversation) and [turn.trained for turn in found[1].turns] == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASK], "chosen": [{"role": "assistant", "content": "好"}], "rejected": [{"role": "assistant", "content": "坏"}]},
        {"prompt": [ASK], "chosen": "好", "rejected": "坏"},
        {"prompt": "问？", "chosen": {"role": "assistant", "content": "好"}, "rejected": {"role": "assistant", "content": "坏"}},
        {"messages": [ASK, {"role": "assistant", "content": "好"}], "rejected_response": "坏"},
        {"messages": [ASK, {"role": "assistant", "content": "好"}], "rejected_response": ["坏"]},
        {"messages": [ASK, {"role": "assistant", "content": "好"}], "rejected_messages": [ASK, {"role": "assistant", "content": "坏"}]},
        {"query": "问？", "response": "好", "rejected_response": "坏"},
        {"instruction": "问？", "input": "", "output": ["好", "坏"]},
        {"question": "问？", "chosen": "好", "rejected": "坏"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("system", [None, "令"])
def test_forms_of_pairs(tmp_path: Path, row: dict[str, Any], system: str | None) -> None:
    path, reading = tmp_path / "a.jsonl", RowReading()
    path.write_text(json.dumps({**row, "system": system}), encoding="utf-8")
    (found,) = read_comparisons(path, None, reading)
    assert isinstance(found, Comparison), found
    before = (Turn("system", system),) if system else ()
    assert (found.prompt.turns, found.chosen, found.rejected) == ((*before, Q), "好", "坏")
    assert not reading.unused


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"images": ["a.png"]}, "images: only text can be trained on"),
        ({"weight": 0}, "is marked as not to be trained on (weight: 0)"),
        ({"system": 7}, "system: input should be a valid string"),
        ({"chosen": [{"role": "assistant", "content": "", "tool_calls": [WEATHER]}], "rejected": [ANSWER]}, "chosen: tool calls are not supported"),
        ({"rejected": None}, "rejected: field required"),
    ],
)  # fmt: skip
def test_fields_of_pairs_are_refused_by_name(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({"prompt": "问？", "chosen": "好", "rejected": "坏", **more}), encoding="utf-8"
    )
    (found,) = read_comparisons(path)
    assert isinstance(found, BadRow) and found.reason.startswith(reason)


def test_a_row_that_is_no_object_names_its_line() -> None:
    with pytest.raises(InputError, match="a:3: is not a JSON object"):
        RowReading().fields(["x"], "a:3")
