"""Rows of any format in the forms of LLaMA-Factory, TRL and OpenAI: read back they are equal, or they are rejected by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model_toys import line
from tests.test_row_fields import ANSWER, ASK, CALL, TOOL, WEATHER, A, Q, S
from zhllama.conversation.export_files import records_of
from zhllama.conversation.other_forms import Record, Target, conversation_in, row_for
from zhllama.conversation.records import Comparison, Conversation, LabelledAnswer, ToolCall, Turn
from zhllama.conversation.row_fields import RowReading
from zhllama.conversation.row_files import find_row_files
from zhllama.errors import InputError

TARGETS: tuple[Target, ...] = ("llama-factory", "trl", "openai")
TOOLS = json.dumps([TOOL])
THOUGHT = replace(A, thought="想\n再想")
MANY = Turn("assistant", "", calls=(ToolCall("f", '{"a": 1}'), ToolCall("g", "{}")))
CONVERSATIONS = [
    Conversation((Q, A), ""),
    Conversation((S, Q, A, Q, THOUGHT), "", "号1"),
    Conversation((Q, CALL, Turn("tool", "晴"), A), "", tools=TOOLS),
    Conversation((Q, MANY, Turn("tool", ""), A, Q, CALL), "", "7", TOOLS),
]
RECORDS: list[Record] = [
    *CONVERSATIONS,
    *(Comparison(Conversation(c.turns[:-1], "", c.id, c.tools), "好", "坏") for c in CONVERSATIONS[:2]),
    *(LabelledAnswer(c, good) for c in CONVERSATIONS[:3] for good in (True, False)),
]


def without_places(record: Record) -> Record:
    """The record without ids and places, which are no content."""

    def plain(one: Conversation) -> Conversation:
        turns = tuple(
            replace(t, call_id="", calls=tuple(replace(c, id="") for c in t.calls)) for t in one.turns
        )
        return replace(one, turns=turns, where="", id="")

    if isinstance(record, Comparison):
        return replace(record, prompt=plain(record.prompt))
    return (
        replace(record, conversation=plain(record.conversation))
        if isinstance(record, LabelledAnswer)
        else plain(record)
    )


def read_back(row: Any) -> Record:
    reading = RowReading()
    (record,) = records_of(json.loads(json.dumps(row, ensure_ascii=False)), "", reading)
    assert not reading.unused
    return record


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("record", RECORDS)
def test_what_is_written_is_read_back_equal(record: Record, target: Target) -> None:
    if target == "openai" and isinstance(record, LabelledAnswer):
        with pytest.raises(InputError, match="is a labelled answer, for which OpenAI has no form"):
            row_for(record, target)
        return
    assert without_places(read_back(row_for(record, target))) == without_places(record)


texts = st.text(st.sampled_from('问答。{}[]"\\\n <think>/:'), min_size=1, max_size=12).filter(
    lambda text: text == text.strip() and "think" not in text
)
calls = st.lists(st.builds(ToolCall, st.sampled_from("fg"), st.dictionaries(texts, texts, max_size=2).map(
    lambda value: json.dumps(value, ensure_ascii=False))), min_size=1, max_size=2).map(tuple)  # fmt: skip
answers = st.one_of(
    st.builds(Turn, st.just("assistant"), texts, st.one_of(st.just(""), texts), trained=st.booleans()),
    st.builds(lambda some: Turn("assistant", "", calls=some), calls),
)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    turns = [Turn("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Turn("user", draw(texts)), answer := draw(answers)]
        if answer.calls:
            turns += [Turn("tool", draw(texts)) for _ in range(draw(st.integers(1, len(answer.calls))))]
            turns.append(Turn("assistant", draw(texts)))
    if not any(turn.trained for turn in turns if turn.role == "assistant"):
        turns[-1] = replace(turns[-1], trained=True)
    return Conversation(tuple(turns), "")


@given(conversations(), st.sampled_from(TARGETS))
def test_any_conversation_comes_back_equal_or_is_refused(conversation: Conversation, target: Target) -> None:
    try:
        row = row_for(conversation, target)
    except InputError as error:
        assert "turn " in error.what
        return
    assert without_places(read_back(row)) == without_places(conversation)
    if target == "llama-factory":  # its own rule: a person or a tool, then the model, in turns
        turns = [turn["from"] for turn in row["conversations"] if turn["from"] != "system"]
        assert set(turns[0::2]) <= {"human", "observation"} and set(turns[1::2]) <= {"gpt", "function_call"}
    if target == "openai":
        ids = [call["id"] for message in row["messages"] for call in message.get("tool_calls", [])]
        assert len(set(ids)) == len(ids) and all(ids)


@pytest.mark.parametrize(
    ("turns", "target", "reason"),
    [
        ((Q, replace(A, trained=False), Q, A), "llama-factory", "turn 2 has an answer that is not trained"),
        ((Q, replace(A, trained=False), Q, A), "trl", "turn 2 has an answer that is not trained"),
        (
            (Q, MANY, Turn("tool", "1"), Turn("tool", "2"), A),
            "llama-factory",
            "turn 4 is a second tool result",
        ),
        (
            (Q, replace(CALL, text="看看"), Turn("tool", "晴"), A),
            "llama-factory",
            "turn 2 has text beside tool calls",
        ),
        (
            (Q, CALL, Turn("tool", "1"), Turn("tool", "2"), A),
            "openai",
            "turn 4 is a tool result without a call",
        ),
    ],
)
def test_what_a_form_cannot_express_is_refused(turns: Any, target: Target, reason: str) -> None:
    with pytest.raises(InputError) as raised:
        row_for(Conversation(turns, ""), target)
    assert reason in str(raised.value)


def test_openai_keeps_switches_and_ids() -> None:
    turns = (Q, replace(MANY, calls=(replace(MANY.calls[0], id="x"), MANY.calls[1])),
             Turn("tool", "1", call_id="x"), Turn("tool", "2"), replace(A, trained=False), Q, A)  # fmt: skip
    row = row_for(Conversation(turns, ""), "openai")
    assert [call["id"] for call in row["messages"][1]["tool_calls"]] == ["x", "call_2_2"]
    assert [message.get("tool_call_id") for message in row["messages"][2:4]] == ["x", "call_2_2"]
    assert row["messages"][4]["weight"] == 0 and row["messages"][1]["content"] is None


def test_trl_takes_the_rows_for_what_they_are() -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    from datasets import Dataset

    for record in RECORDS:
        row = Dataset.from_list([row_for(record, "trl")])[0]
        assert data_utils.is_conversational(row)


ROWS: list[dict[str, Any]] = [
    {"instruction": "问？", "input": "", "output": "答。", "mood": "好"},
    {"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": [{**WEATHER, "id": "c1"}]}, {"role": "tool", "content": "晴", "tool_call_id": "c1"}, ANSWER], "tools": [TOOL]},
    {"prompt": "问？", "chosen": "好", "rejected": "坏"},
    {"instruction": "问？", "ranked_outputs": ["甲", "乙", "丙"]},
    {"query": "问？", "response": "答。", "label": False},
    {"messages": [ASK, ANSWER], "weight": 0},
    {"messages": [ASK], "id": 3},
    {"messages": [ASK, {**ANSWER, "loss": False}, ASK, ANSWER]},
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_writes_every_row_or_rejects_it_and_reads_it_again(
    tmp_path: Path, target: Target
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    told = line(tmp_path, "sharegpt", "export", data, "--export-to", target, "--out", "out", "--json")
    assert told.code == 0, told.err
    figures = json.loads(told.out)
    labelled = {} if target == "openai" else {"labelled.jsonl": 1}
    kept = 3 if target == "openai" else 2
    assert figures["written"] == {"conversations.jsonl": kept, "pairs.jsonl": 4, **labelled}
    assert figures["rows"] == 8 == figures["kept"] + figures["rejected"] and figures["unused_fields"] == {
        "mood": 1
    }
    assert figures["reasons"] == {"bad row": 2, "not for training": 1}
    assert figures["call_ids_left_out"] == (1 if target == "llama-factory" else 0)
    rejected = [
        json.loads(row)
        for row in (tmp_path / "out" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    named = {Path(name).name for name in manifest["outputs"]} - {"dataset_info.json", "config.yaml"}
    assert named == {*figures["written"], "rejected.jsonl"}
    assert len(rejected) == 3 and all(row["detail"] and row["row"] in ROWS for row in rejected)
    again = ("sharegpt", "export", *(tmp_path / "out" / name for name in figures["written"]))
    told = line(tmp_path, *again, "--export-to", target, "--out", "again", "--json")
    assert json.loads(told.out)["rejected"] == 0
    for name in figures["written"]:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_dataset_info_describes_what_was_written_and_is_read_again(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS[:5]), encoding="utf-8")
    export = ("sharegpt", "export", "--export-to", "llama-factory")
    assert line(tmp_path, *export, data, "--out", "out").code == 0
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text(encoding="utf-8"))
    assert list(info) == ["zhllama", "zhllama_pairs", "zhllama_labelled"]
    assert info["zhllama"]["columns"] == {"messages": "conversations", "tools": "tools"}
    assert info["zhllama_pairs"]["ranking"] and info["zhllama_labelled"]["columns"]["kto_tag"] == "kto_tag"
    for number, name in enumerate(info):
        source = f"out/dataset_info.json#{name}"
        (path,) = find_row_files([tmp_path / source]).files
        assert line(tmp_path, *export, source, "--out", f"again{number}").code == 0
        assert (tmp_path / f"again{number}" / path.name).read_bytes() == path.read_bytes()
    for record in map(
        read_back,
        map(json.loads, (tmp_path / "out" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()),
    ):
        assert isinstance(record, Comparison) and conversation_in(record).turns == (Q,)
