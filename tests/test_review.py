"""Review without a browser: rows of every form, filters, journals that lose nothing, agreement, export."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.model_toys import line
from tests.review_toys import HOSTILE, opened_index, opened_session, task, write_generated, write_rows
from zhllama.corpus.edits import masked, masked_spans
from zhllama.errors import InputError, OutputError
from zhllama.review.agreement import agreement, agreements, disagreements
from zhllama.review.decisions import JOURNAL, Decision, JournalReader, OwnJournal
from zhllama.review.filters import RowQuery
from zhllama.review.row_facts import fault_of
from zhllama.review.row_parts import prompt_of, row_parts, text_at, with_choice, with_texts
from zhllama.review.session import ReviewSession, path_text

TALK = [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "你好！"}]
MESSAGES = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}]


@pytest.mark.parametrize(
    ("row", "kind", "names", "answers"),
    [
        ({"instruction": "译", "input": "cat", "output": "猫"}, "task", "instruction input output", 0),
        ({"instruction": "问", "output": ""}, "task", "instruction output", 0),
        ({"prompt": "问", "completion": "答"}, "task", "prompt completion", 0),
        ({"query": "问", "response": "答", "history": [["甲", "乙"]]}, "conversation", "user assistant query response", 0),
        ({"system": "规则", "conversations": TALK}, "conversation", "system user assistant", 0),
        ({"messages": MESSAGES}, "conversation", "user assistant", 0),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "你好"}]}, MESSAGES[1]]}, "conversation", "user assistant", 0),
        ({"conversation": [{"human": "问", "assistant": "答"}]}, "conversation", "user assistant", 0),
        ({"conversations": json.dumps(TALK)}, "conversation", "user assistant", 0),
        ({"messages": [MESSAGES[0], {**MESSAGES[1], "reasoning_content": "想"}]}, "conversation", "user thought assistant", 0),
        ({"messages": [MESSAGES[0], {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]}, "conversation", "user call", 0),
        ({"prompt": "问", "chosen": "好", "rejected": "坏"}, "pair", "prompt", 2),
        ({"prompt": MESSAGES[:1], "chosen": [MESSAGES[1]], "rejected": [{"role": "assistant", "content": "坏"}]}, "pair", "user", 2),
        ({"chosen": MESSAGES, "rejected": [MESSAGES[0], {"role": "assistant", "content": "坏"}]}, "pair", "user", 2),
        ({"messages": MESSAGES, "rejected_response": "坏"}, "pair", "user", 2),
        ({"query": "问", "response": "好", "rejected_response": ["坏", "更坏"]}, "pair", "query", 3),
        ({"user_input": "问", "completion_a": "好", "completion_b": "坏"}, "pair", "user", 2),
        ({"user_input": "问", "responses_and_scores": [{"response": "坏", "score": 1}, {"response": "好", "score": 9}]}, "pair", "user", 2),
        ({"instruction": "问", "ranked_outputs": ["一", "二", "三"]}, "pair", "instruction", 3),
        ({"instruction": "问", "input": "", "output": ["好", "坏"]}, "pair", "instruction input", 2),
        ({"id": "1", "left": "a", "right": "b", "result": "win", "orders": [{"shown": ["a", "b"], "verdict": "first", "said": "A"}]}, "verdict", "judge", 0),
        ({"id": "1", "of": "a", "score": 7.0, "said": "[[7]]"}, "score", "score judge", 0),
        ({"text": "一段文字"}, "other", "text", 0),
        ([1, 2], "other", "json", 0),
        (None, "other", "json", 0),
    ],
)  # fmt: skip
def test_rows_of_every_form(row: Any, kind: str, names: str, answers: int) -> None:
    parts = row_parts(row)
    found = [part.name for part in parts.parts if part.text or part.name in ("output", "response")]
    assert (parts.kind, " ".join(found), len(parts.answers)) == (
        kind, names.replace(" input", "") if "input" in names and not row.get("input") else names, answers,
    )  # fmt: skip
    for part in (*parts.parts, *parts.answers):
        assert part.path is None or text_at(row, part.path) == part.text
    if kind == "pair":
        assert parts.answers[0].text in ("好", "你好！", "一") and prompt_of(parts) in ("问", "你好")


PAIRS = [
    {"prompt": "问", "chosen": "好", "rejected": "坏"},
    {"prompt": MESSAGES[:1], "chosen": [{**MESSAGES[1], "content": "好"}], "rejected": [{"role": "assistant", "content": "坏"}]},
    {"prompt": "问", "chosen": {"role": "assistant", "content": "好", "reasoning_content": "想"}, "rejected": {"role": "assistant", "content": "坏"}},
    {"messages": [MESSAGES[0], {"role": "assistant", "content": "好"}], "rejected_response": "坏"},
    {"user_input": "问", "completion_a": "好", "completion_b": "坏"},
    {"user_input": "问", "responses_and_scores": [{"response": "坏", "score": 1}, {"response": "好", "score": 9}],
     "pairs": [{"chosen": "好", "rejected": "坏"}]},
    {"instruction": "问", "ranked_outputs": ["好", "坏"]},
    {"instruction": "问", "input": "", "output": ["好", "坏"]},
]  # fmt: skip


@pytest.mark.parametrize("row", PAIRS)
def test_the_chosen_answer_becomes_the_better_one(row: dict[str, Any], tmp_path: Path) -> None:
    from zhllama.conversation.read_comparisons import read_comparisons
    from zhllama.conversation.records import Comparison

    before = json.dumps(row)
    other = with_choice(row, row_parts(row).answers, 1)
    assert json.dumps(row) == before
    (found,) = read_comparisons(write_rows(tmp_path / "a.jsonl", [other]))
    assert isinstance(found, Comparison)
    assert "坏" in found.chosen and "好" in found.rejected and "坏" not in found.rejected
    assert ("想" in found.rejected) == ("reasoning_content" in before), "a thought stays with its answer"
    assert with_choice(row, row_parts(row).answers, 0) == row
    with_four = {"instruction": "问", "ranked_outputs": list("一二三四")}
    assert with_choice(with_four, row_parts(with_four).answers, 2)["ranked_outputs"] == list("三一二四")


def test_marks_are_what_cleaning_masks() -> None:
    pieces = ["13812345678", "+86 139 1234 5678", "someone@example.com", "11010519491231002X", "010-62345678", "（0755）26001234",
              "电话", " ", "，", "a", "1", "😀", "2024年12月", "110105194912310021", "@", "-"]  # fmt: skip
    generator = random.Random(7)
    for _ in range(3000):
        text = "".join(generator.choices(pieces, k=generator.randint(0, 7)))
        shown, at = "", 0
        for begin, end, mask in masked_spans(text):
            assert at <= begin < end
            shown, at = shown + text[at:begin] + mask, end
        assert shown + text[at:] == masked(text), text


def test_kappa() -> None:
    ours = dict(enumerate(["keep"] * 25 + ["drop"] * 25))
    theirs = dict(enumerate(["keep"] * 20 + ["drop"] * 5 + ["keep"] * 10 + ["drop"] * 15))
    found = agreement("甲", "乙", ours, theirs)  # the example of Cohen's kappa in most textbooks
    assert (found.rows, found.agreed) == (50, 35) and found.kappa == pytest.approx(0.4)
    assert agreement("甲", "乙", ours, ours).kappa == 1
    assert agreement("甲", "乙", {0: "keep"}, {0: "keep"}).kappa is None
    assert agreement("甲", "乙", {0: "keep"}, {1: "keep"}).figures() == {"first": "甲", "second": "乙", "rows": 0, "agreed": 0, "kappa": None}  # fmt: skip
    assert agreement("甲", "乙", {0: "keep", 1: "drop"}, {0: "drop", 1: "keep"}).kappa == -1
    assert [(one.first, one.second) for one in agreements({"a": {}, "b": {}, "c": {}})] == [("a", "b"), ("a", "c"), ("b", "c")]  # fmt: skip
    assert disagreements({"a": {0: "keep", 1: "keep"}, "b": {1: "drop"}, "c": {0: "keep", 2: "tie"}}) == {1}


@pytest.mark.slow  # its import takes seconds
def test_kappa_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = random.Random(3)
    for _ in range(20):
        ours, theirs = ({row: generator.choice(["1", "2", "tie"]) for row in range(40)} for _ in "ab")
        assert agreement("", "", ours, theirs).kappa == pytest.approx(
            metrics.cohen_kappa_score(list(ours.values()), list(theirs.values()))
        )


# ---- filters


def chosen(session: ReviewSession, **query: Any) -> list[int]:
    asked = RowQuery.model_validate(query)
    version = session.select(asked, None)["version"]
    return [row["number"] for row in session.rows(asked, version, 0, 200)["rows"]]


def test_filters(tmp_path: Path) -> None:
    with opened_session(write_generated(tmp_path / "run")) as session:
        summary = session.summary()
        assert summary["rows"] == 43 and summary["groups"] == {"accepted": 40, "rejected": 3}
        assert summary["reasons"] == {"near duplicate": 1, "too short": 1, "format": 1}
        assert summary["models"] == {"qwen3": 23, "deepseek-chat": 20}
        assert summary["flags"] == {"was Traditional": 4, "e-mail": 1, "telephone": 1, "cannot be read": 1}
        assert chosen(session, group="rejected") == [40, 41, 42]
        assert chosen(session, reason="too short") == [41] and chosen(session, reason="none") == []
        assert chosen(session, flag="telephone") == [5] and chosen(session, flag="was Traditional") == [
            3,
            13,
            23,
            33,
        ]
        assert chosen(session, flag="cannot be read") == [42] and chosen(session, flag="none") == []
        assert chosen(session, model="deepseek-chat", status="undecided")[:3] == [1, 3, 5]
        assert chosen(session, q="第13") == [13] and chosen(session, q="SOMEONE@example") == [5]
        assert chosen(session, q="<img onerror=window") == [6] and chosen(session, q="instruction") == []
        assert chosen(session, q="光合作用 第1次") == [1, 40], "every word counts"
        assert chosen(session, category="explanation")[:2] == [1, 2]
        assert 41 in chosen(session, longest=20) and chosen(session, shortest=100) == [6]
        assert chosen(session, sort="longest")[0] == 6 and chosen(session, sort="shortest")[0] == 42
        assert chosen(session, kind="other") == [42]
        for number, verdict in ((3, "keep"), (4, "drop"), (40, "keep")):
            session.decide(number, session.row(number)["key"], verdict, {}, "")
        session.decide(7, session.row(7)["key"], None, {"output": "改过。"}, "看")
        assert chosen(session, status="keep") == [3, 40] and chosen(session, status="drop") == [4]
        assert chosen(session, status="decided") == [3, 4, 40] and chosen(session, status="edited") == [7]
        assert chosen(session, status="commented") == [7] and len(chosen(session, status="undecided")) == 40
        query = RowQuery()
        version = session.select(query, 30)
        assert version["position"] == 30
        assert session.next_undecided(query, version["version"], 3) == {"position": 5}
        nearest = RowQuery(near=0.9)
        session.nearness.start()
        session.nearness._thread.join(20)  # type: ignore[union-attr]
        found = chosen(session, near=0.9)
        assert 40 in found and 0 not in found and session.row(40)["near"] == {"row": 1, "score": 1.0}
        assert chosen(session, sort="nearest")[0] in found and nearest.needs_nearness


def test_search_finds_what_is_escaped_in_json(tmp_path: Path) -> None:
    texts = ['他说"好"', "第一行\n第二行", "反斜杠\\n", "tab\there", HOSTILE, "É", "\ud800 lone"]
    rows = [{"instruction": f"{n}", "output": text} for n, text in enumerate(texts)]
    with opened_session(write_rows(tmp_path / "a.jsonl", rows)) as session:
        for number, term in enumerate(('"好"', "第二行", "\\n", "THERE", "${hit}", "É", "lone")):
            assert number in chosen(session, q=term if term != "THERE" else "here"), term
        assert chosen(session, q='"') == [0], "not the quotes of JSON"
        assert chosen(session, q="output") == []


# ---- decisions


def test_a_decision_is_on_the_disk_when_it_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    data = write_rows(tmp_path / "a.jsonl", [task(n) for n in range(3)])
    with opened_session(data) as session:
        key = session.row(1)["key"]
        row = session.decide(1, key, "keep", {"output": "新。", "instruction": task(1)["instruction"]}, "好")
        assert row["mine"]["edit"] == {"output": "新。"}, "a text that is as it was is no edit"
        assert len(synced) == 1
        journal = tmp_path / "a.jsonl.review" / "甲" / JOURNAL
        (written,) = journal.read_text(encoding="utf-8").splitlines()
        assert json.loads(written) | {"time": ""} == {"row": 1, "key": key, "verdict": "keep", "edit": {"output": "新。"}, "comment": "好", "time": ""}  # fmt: skip
        for bad in ({"verdict": "maybe"}, {"verdict": "1"}, {"edit": {"none": "x"}}, {"key": "0" * 16}):
            given = {"number": 1, "key": key, "verdict": "keep", "edit": {}, "comment": "", **bad}
            with pytest.raises(InputError):
                session.decide(**given)
        with pytest.raises(IndexError):
            session.decide(3, key, "keep", {}, "")
        assert len(journal.read_bytes().splitlines()) == 1
    with opened_session(data) as session:
        assert session.row(1)["mine"]["comment"] == "好" and session.row(1)["parts"][-1]["text"] == "新。"
        session.decide(1, key, None, {}, "")
        assert session.row(1)["mine"] is None and chosen(session, status="decided") == []


def test_a_line_that_was_cut_off_is_removed_and_a_broken_one_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "甲" / JOURNAL
    with OwnJournal(tmp_path, "甲") as own:
        own.append(Decision(0, "0" * 16, "keep"))
    whole = journal.read_bytes()
    for cut in range(1, len(whole)):
        journal.write_bytes(whole + whole[:cut])
        reader = JournalReader(journal)
        assert len(reader.refresh()) == 1, "another's journal may be read while a line is written"
        with OwnJournal(tmp_path, "甲") as own:
            assert journal.read_bytes() == whole
    with OwnJournal(tmp_path, "甲") as own:
        assert reader.refresh() == []
        own.append(Decision(1, "1" * 16, "drop"))
        assert [one.row for one in reader.refresh()] == [1]
    for broken in (
        b"{\n",
        b"[]\n",
        b'{"row": -1, "key": "x"}\n',
        b'{"row": 1, "key": "x", "verdict": "perhaps"}\n',
        b"\xff\n",
    ):
        journal.write_bytes(whole + broken + whole)
        with pytest.raises(InputError, match=rf"{JOURNAL}:2: "):
            JournalReader(journal).refresh()


def test_two_reviewers_have_a_file_each_and_one_reviewer_one_server(tmp_path: Path) -> None:
    data = write_generated(tmp_path / "run")
    with opened_session(data, "甲") as ours:
        with (
            pytest.raises(OutputError, match="'甲' has this data open in another process"),
            opened_session(data, "甲"),
        ):
            pass
        with opened_session(data, "乙", ours.index) as theirs:
            key = ours.row(0)["key"]
            theirs.decide(0, key, "drop", {}, "太短")
            seen = ours.row(0)
            assert seen["others"] == [] and seen["hidden"] == 1, "hidden until one has decided oneself"
            seen = ours.decide(0, key, "keep", {}, "")
            assert [(one["reviewer"], one["verdict"], one["comment"]) for one in seen["others"]] == [
                ("乙", "drop", "太短")
            ]
            theirs.decide(1, ours.row(1)["key"], "keep", {}, "")
            ours.decide(1, ours.row(1)["key"], "keep", {}, "")
            assert chosen(ours, status="disagreed") == [0] == chosen(theirs, status="disagreed")
            (found,) = ours.summary()["agreement"]
            assert (found["rows"], found["agreed"], found["kappa"]) == (2, 1, 0.0)
    assert sorted(path.name for path in (tmp_path / "run.review").iterdir()) == ["乙", "甲"]
    assert [path.name for path in (tmp_path / "run.review" / "甲").iterdir()] == [JOURNAL]
    with opened_session(data, "丙"):
        pass
    assert not (tmp_path / "run.review" / "丙").exists(), "a reviewer without decisions leaves nothing"


def test_decisions_follow_rows_that_moved(tmp_path: Path) -> None:
    rows = [task(n) for n in range(6)]
    data = write_rows(tmp_path / "a.jsonl", [*rows, rows[2]])
    with opened_session(data) as session:
        for number, verdict in ((2, "keep"), (6, "drop"), (4, "drop"), (5, "keep")):
            session.decide(number, session.row(number)["key"], verdict, {}, "")
    write_rows(data, [task(9), *rows[:4], rows[2], {**rows[4], "output": "另一个"}, rows[5]])
    with opened_session(data) as session:
        assert chosen(session, status="decided") == [3, 5, 7]
        assert {session.row(n)["mine"]["verdict"] for n in (3, 5)} == {"keep", "drop"}, (
            "of two equal rows each has one"
        )
        assert session.summary()["reviewers"][0]["lost"] == 1


# ---- answers to choose from


def test_the_order_of_answers_reveals_no_rank(tmp_path: Path) -> None:
    rows = [{"prompt": f"问题{n}", "chosen": "好", "rejected": "坏"} for n in range(60)]
    with opened_session(write_rows(tmp_path / "a.jsonl", rows)) as session:
        first = [session.row(n)["answers"][0]["choice"] for n in range(60)]
        assert 15 < first.count("1") < 45
        row = session.row(0)
        assert row["own"] is None and "chosen" not in row["fields"]
        assert session.decide(0, row["key"], "2", {}, "")["own"] == "1"
        with pytest.raises(InputError, match="no verdict 'keep'"):
            session.decide(1, session.row(1)["key"], "keep", {}, "")


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in path.read_text(encoding="utf-8").split("\n") if row]


def test_export(tmp_path: Path) -> None:
    data = write_generated(tmp_path / "run")
    with opened_session(data, "甲") as ours, opened_session(data, "乙", ours.index) as theirs:

        def decide(session: ReviewSession, number: int, verdict: str | None, edit: dict[str, str] | None = None, comment: str = "") -> None:  # fmt: skip
            session.decide(number, session.row(number)["key"], verdict, edit or {}, comment)

        decide(ours, 0, "keep")
        decide(ours, 1, "drop", comment="跑题")
        decide(ours, 2, "keep", {"output": "改好了。"})
        decide(ours, 3, "keep")
        decide(theirs, 3, "drop")
        decide(ours, 40, "keep")  # a reject that is rescued
        decide(ours, 4, None, {"output": "只改了字。"})
        decide(ours, 42, "keep")  # a reply that could not be parsed
    told = line(tmp_path, "review", "run", "--export", "--out", "out", "--json")
    assert told.code == 0, told.err
    figures = json.loads(told.out)
    assert (figures["rows"], figures["kept"], figures["rejected"]) == (43, 40, 3)
    assert figures["reasons"] == {"dropped": 1, "reviewers disagree": 1, "too short": 1}
    assert figures["kept_rows"] == {"not reviewed": 35, "kept": 3, "edited": 2} and figures["unreadable"] == 1
    kept = written(tmp_path / "out" / "reviewed.jsonl")
    assert [row["output"] for row in kept[1:3]] == ["改好了。", "只改了字。"] and kept[-2] == {
        "id": "1.0.0",
        **task(1),
        "model": "qwen3",
    }
    rejected = written(tmp_path / "out" / "rejected.jsonl")
    assert [(row["reason"], row["detail"]) for row in rejected[:2]] == [
        ("dropped", "甲: 跑题"),
        ("reviewers disagree", ""),
    ]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert sorted(manifest["outputs"]) == [
        "agreement.json",
        "config.yaml",
        "decisions.jsonl",
        "rejected.jsonl",
        "reviewed.jsonl",
    ]
    assert [Path(one["path"]).name for one in manifest["inputs"]] == [
        "instructions.jsonl",
        "rejected.jsonl",
        JOURNAL,
        JOURNAL,
    ]
    told = line(
        tmp_path,
        "review",
        "run",
        "--export",
        "--out",
        "own",
        "--reviewer",
        "乙",
        "--undecided",
        "leave-out",
        "--json",
    )
    assert json.loads(told.out)["reasons"]["not reviewed"] == 39 and json.loads(told.out)["kept"] == 0
    with opened_session(tmp_path / "out", "丁") as again:
        assert again.summary()["groups"] == {"accepted": 40, "rejected": 3}, "reviewed data is reviewed again"


def test_reviewed_pairs_and_verdicts(tmp_path: Path) -> None:
    pairs = write_rows(
        tmp_path / "pairs.jsonl", [{"prompt": f"问{n}", "chosen": "好", "rejected": "坏"} for n in range(4)]
    )
    verdict = {"id": "1", "left": "a", "right": "b", "result": "win", "orders": []}
    with opened_session(pairs) as session:
        for number, choice in enumerate(("1", "2", "tie")):
            session.decide(number, session.row(number)["key"], choice, {}, "")
    told = line(tmp_path, "review", "pairs.jsonl", "--export", "--out", "out", "--json")
    assert json.loads(told.out)["reasons"] == {"tie": 1} and json.loads(told.out)["kept_rows"] == {
        "chosen": 2,
        "not reviewed": 1,
    }
    kept = [row["chosen"] for row in written(tmp_path / "out" / "reviewed.jsonl")]
    assert kept == ["好", "坏", "好"]
    run = tmp_path / "judged"
    write_rows(run / "verdicts.jsonl", [verdict, {**verdict, "id": "2", "result": "unreadable"}])
    for name in "ab":
        write_rows(
            tmp_path / f"{name}.jsonl",
            [{"id": n, "instruction": f"问{n}", "answer": f"{name}{n}"} for n in "12"],
        )
    (run / "config.yaml").write_text(
        f"command: judge\nanswers: [甲={tmp_path}/a.jsonl, {tmp_path}/b.jsonl]\n", encoding="utf-8"
    )
    from zhllama.review.sources import judged_texts

    texts = judged_texts(run)
    assert texts.questions == {"1": "问1", "2": "问2"} and texts.answers == {
        "甲": {"1": "a1", "2": "a2"},
        "b": {"1": "b1", "2": "b2"},
    }


@pytest.mark.parametrize("row", [*PAIRS, task(1), {"conversations": TALK}, {"messages": MESSAGES}])
def test_an_edit_changes_its_text_alone(row: dict[str, Any]) -> None:
    parts = row_parts(row)
    assert fault_of(row, parts, "") == ""
    for part in (*parts.parts, *parts.answers):
        if part.path:
            changed = with_texts(row, {part.path: "新的文字"})
            assert text_at(changed, part.path) == "新的文字"
            assert with_texts(changed, {part.path: part.text}) == row
    paths = [path_text(part.path) for part in (*parts.parts, *parts.answers) if part.path]
    assert len(set(paths)) == len(paths)
    assert path_text(("a/b", 0, "c~d")) == "a~1b/0/c~0d"


# ---- files


def test_broken_and_odd_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "一", "output": "二"}\n{broken\n[1]\n"text"\n{"instruction": "三", "output": "四"}\n', encoding="utf-8")  # fmt: skip
    with opened_session(tmp_path / "a.jsonl") as session:
        assert session.summary()["kinds"] == {"task": 2, "other": 2, "broken": 1}
        row = session.row(1)
        assert (
            row["kind"] == "broken" and row["where"].endswith("a.jsonl:2") and "is not JSON" in row["fault"]
        )
        assert (
            session.rows(RowQuery(), session.select(RowQuery(), None)["version"], 0, 50)["rows"][1]["where"]
            == "2"
        )
    (tmp_path / "b.json").write_text(
        '[\n{"instruction": "一", "output": "二"},\n{"instruction": "三"', encoding="utf-8"
    )
    with opened_session(tmp_path / "b.json") as session:
        summary = session.summary()
        assert summary["rows"] == 1 and "b.json:3: is not JSON" in summary["faults"][0]
    (tmp_path / "c.json").write_text(json.dumps([task(n) for n in range(5)], indent=2), encoding="utf-8")
    (tmp_path / "d.csv").write_text("instruction,output\n一,二\n三,四\n", encoding="utf-8")
    (tmp_path / "e.json").write_text(json.dumps(task(0), indent=2), encoding="utf-8")
    for name, rows in (("c.json", 5), ("d.csv", 2), ("e.json", 1)):
        with opened_session(tmp_path / name) as session:
            assert session.summary()["kinds"] == {"task": rows}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", " \n\n", "contains no rows"),
        ("a.json", "[]", "contains no rows"),
        ("a.json", "[{", "a.json:1: is not JSON"),
        ("a.jsonl", "\udcff{}\n", "a.jsonl:1: is not UTF-8"),
    ],
)
def test_data_without_rows_is_refused(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    for more in (("--port", 0), ("--export", "--out", "o")):
        (tmp_path / f"{name}.review" / "甲").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.review" / "甲" / JOURNAL).write_bytes(Decision(0, "0" * 16, "keep").line())
        found = line(tmp_path, "review", name, *more)
        assert found.code == 1 and told in found.err and found.err.count("\n") == 1, found.err
        assert not (tmp_path / "o").exists()


def test_one_line_errors(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [task(0)])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").write_text("command: gen-zh\n", encoding="utf-8")
    for words, told in (
        (("none.jsonl",), "none.jsonl: no such file"),
        (("a.jsonl", "--reviewer", "../x"), "--reviewer: '../x' is not the name of a reviewer"),
        (("a.jsonl", "--reviewer", ""), "--reviewer: '' is not the name"),
        (("a.jsonl", "--export"), "--out: is missing"),
        (("a.jsonl", "--out", "o"), "--out: is used with --export alone"),
        (("a.jsonl", "--export", "--out", "o"), "a.jsonl.review: contains no decisions"),
        (("empty",), "empty: has none of reviewed.jsonl, instructions.jsonl"),
        (("a.jsonl", "--decisions", "/proc/x"), "/proc/x: cannot be written"),
        (("a.jsonl", "--decisions", "a.jsonl"), "a.jsonl: cannot be written"),
    ):
        found = line(tmp_path, "review", *words, "--port", 0)
        assert found.code == 1 and told in found.err and found.err.count("\n") == 1, found.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "empty"]
    assert "Required with --export." in " ".join(
        line(tmp_path, "review", "--help").out.replace("│", " ").split()
    )


def test_a_file_that_changes_while_it_is_open(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", [task(n) for n in range(10)])
    with opened_session(data) as session:
        write_rows(data, [task(99)])
        assert session.row(7)["parts"][0]["text"] == task(7)["instruction"], "the snapshot stays"
        session.decide(7, session.row(7)["key"], "keep", {}, "")
        data.unlink()
        assert chosen(session, status="keep") == [7]


def test_rows_are_indexed_while_others_are_read(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", [task(n) for n in range(5000)])
    with opened_index(data) as index:
        assert len(index) == 5000 and index.read(4999).facts.row == task(4999)
        columns = index.columns()
        assert len(set(columns["key"].tolist())) == 5000 and (columns["characters"] > 10).all()


def test_another_reviewers_journal_stops_nobody(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", [task(n) for n in range(3)])
    other = tmp_path / "a.jsonl.review" / "乙" / JOURNAL
    with opened_session(data) as session:
        other.parent.mkdir()
        other.write_bytes(Decision(1, session.row(1)["key"], "drop").line())
        assert [one["name"] for one in session.summary()["reviewers"]] == ["甲", "乙"]
        with other.open("ab") as file:
            file.write(b"{broken\n")
        session.decide(1, session.row(1)["key"], "keep", {}, "")
        assert f"乙/{JOURNAL}:2: is not JSON" in session.summary()["faults"][0]
        other.unlink()
        assert session.summary()["faults"] == [] and session.row(1)["others"][0]["verdict"] == "drop"
