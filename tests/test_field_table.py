"""The table of row fields in docs/sft.md: each field that it names is treated as it says, and it names all of them."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.test_row_fields import ANSWER, ASK, WEATHER, A, Q, S, read
from zhllama.conversation.read_conversations import BadRow
from zhllama.conversation.records import Conversation, Turn
from zhllama.conversation.row_fields import LABELS, MEDIA, RANKED, SHARES, SWITCHES, THOUGHTS

PAGE = Path(__file__).parent.parent / "docs" / "sft.md"
SECTION = PAGE.read_text(encoding="utf-8").split("### What happens to each field", 1)[1].split("\n\n", 2)[1]
ROWS = [
    (re.findall(r"`([^`]+)`", field), field, outcome)
    for field, outcome in re.findall(r"^\| (.*?) \| (.*) \|$", SECTION, re.M)
    if field not in ("field", "---")
]
VALUES: dict[str, Any] = {
    "tools": [{"name": "weather"}],
    "functions": [{"name": "weather"}],
    "tool_calls": [WEATHER],
    "function_call": WEATHER["function"],
}
LAST = [ASK, ANSWER]


def row_with(name: str, outcome: str) -> dict[str, Any]:
    """A row with one field whose outcome the table gives."""
    if outcome.startswith("the system turn"):
        return {"messages": LAST, name: "令"}
    if outcome.startswith("earlier turns"):
        return {"instruction": "问？", "output": "答。", name: [["问？", "答。"]]}
    if "is context and is not trained" in outcome:
        return {"messages": [ASK, {**ANSWER, name: 0}, *LAST]}
    if "left out" in outcome:
        return {"messages": LAST, name: False}
    if outcome.startswith("the thought"):
        return {"messages": [ASK, {**ANSWER, name: "想"}]}
    if outcome.startswith("rendered in"):
        if name in ("tools", "functions"):
            return {"messages": LAST, name: VALUES[name]}
        return {"messages": [ASK, {"role": "assistant", "content": "", name: VALUES[name]}]}
    return {"messages": LAST, name: "x.png"}


def check(found: Any, unused: dict[str, int], name: str, outcome: str) -> None:
    if outcome.startswith("the system turn"):
        assert found.turns == (S, Q, A)
    elif outcome.startswith("earlier turns"):
        assert found.turns == (Q, A, Q, A)
    elif "is context and is not trained" in outcome:
        assert found.turns == (Q, Turn("assistant", "答。", trained=False), Q, A)
    elif "left out" in outcome:
        assert isinstance(found, BadRow) and found.marked and name in found.reason
        assert ("bad answer" in found.reason) == ("bad answer" in outcome)
    elif outcome.startswith("the thought"):
        assert found.turns == (Q, Turn("assistant", "答。", "想"))
    elif outcome.startswith("rendered in"):
        assert isinstance(found, Conversation) and (found.tools or found.turns[-1].calls)
    elif outcome.startswith("refused"):
        assert isinstance(found, BadRow) and not found.marked and found.reason.startswith(name)
    elif outcome.startswith("ignored"):
        assert found.turns == (Q, A) and not unused
    else:
        raise AssertionError(f"no test for the outcome {outcome!r}")
    assert not unused


CASES = [
    (name, outcome)
    for names, field, outcome in ROWS
    for name in (SWITCHES if field == "the same on a row" else dict.fromkeys(names))
    if not outcome.startswith(("not used", "as if")) and not name.endswith((".py", "METADATA"))
]


@pytest.mark.parametrize(("name", "outcome"), CASES)
def test_each_field_has_its_outcome(tmp_path: Path, name: str, outcome: str) -> None:
    (found,), reading = read(tmp_path, row_with(name, outcome))
    check(found, reading.unused, name, outcome)


def test_any_other_field_is_counted_and_empty_ones_do_not_exist(tmp_path: Path) -> None:
    outcomes = [outcome for _, _, outcome in ROWS if outcome.startswith(("not used", "as if"))]
    assert len(outcomes) == 2
    (found,), reading = read(tmp_path, {"messages": LAST, "心情": "好"})
    assert isinstance(found, Conversation) and reading.unused == {"心情": 1}
    for value in (None, "", [], {}):
        row = {"messages": LAST, "心情": value, "images": value, "chosen": value, "loss_mask": value}
        (found,), reading = read(tmp_path, row)
        assert isinstance(found, Conversation) and not reading.unused


def test_the_table_names_every_field_that_the_reader_knows() -> None:
    named = {name for names, _, _ in ROWS for name in names}
    assert not {*MEDIA, *RANKED, *SHARES, *SWITCHES, *LABELS, *THOUGHTS} - named
