"""Judging without a server: verdicts, intervals, counts, questions and answers, reference metrics."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhllama.errors import InputError, OptionError
from zhllama.evaluation.judging import Pairwise, Scoring, pairs_of, reference_for
from zhllama.evaluation.questions import Question, collect_questions, read_answers, read_questions
from zhllama.evaluation.read_verdict import read_choice, read_score
from zhllama.evaluation.reference_metrics import agreement
from zhllama.evaluation.win_rates import Duel, bootstrap, standings, wilson
from zhllama.generation.tasks import Task
from zhllama.llm.journal import JournalRecord
from zhllama.llm.prompts import Prompts
from zhllama.llm.requests import Reply, Request
from zhllama.resources import shipped


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("A 更准确。\n结论：[[A]]", "first"),
        ("**结论：[[B]]**", "second"),
        ("结论：[[平局]]。", "tie"),
        ("[[C]]", "tie"),
        ("先说 [[A]] 的好处。\n结论：[[B]]", "second"),
        ("<think>应该是 [[A]]</think>\n结论：[[B]]", "second"),
        ("结论：［［Ａ］］", "first"),
        ("结论：助手 A 更好。", "first"),
        ("最终结论是：B 胜", "second"),
        ("Final verdict: tie", "tie"),
        ("结论：【A】", "first"),
        ("A", "first"),
        ("平局。", "tie"),
        ("结论：A 不如 B", None),
        ("结论：A 没有更好", None),
        ("结论：A 或 B", None),
        ("结论：[[A]]、[[B]] 或 [[平局]]", None),
        ("结论：[[甲]]", None),
        ("我更喜欢 A 的回答", None),
        ("<think>还在想 [[A]]", None),
        ("", None),
    ],
)
def test_choices(said: str, verdict: str | None) -> None:
    assert read_choice(said) == verdict


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("尚可。\n结论：[[8]]", 8),
        ("结论：[[8.5]]", 8.5),
        ("结论：[[10/10]]", 10),
        ("评分：7 分", 7),
        ("得分：８/10", 8),
        ("9", 9),
        ("结论：[[0]]", None),
        ("结论：[[11]]", None),
        ("结论：[[分数]]", None),
        ("结论：80/100", None),
        ("结论：7～8", None),
        ("[[7]] 或 [[8]]", None),
        ("共有 3 处错误", None),
    ],
)
def test_scores(said: str, score: float | None) -> None:
    assert read_score(said) == score


def test_a_reply_that_was_cut_off_counts_only_with_a_closed_verdict() -> None:
    assert read_score("结论：[[8]] 因为", complete=False) == 8
    assert read_score("结论：1", complete=False) is None, "perhaps 10"
    assert read_choice("A", complete=False) is None


PARTS = st.sampled_from(["结论", "：", ":", "[[", "]]", "A", "B", "平局", "10", "7.5", "分", "\n", "<think>", "</think>", "【", "助手", "更好", "不"])  # fmt: skip


@given(st.one_of(st.text(), st.lists(PARTS, max_size=30).map("".join)), st.booleans())
def test_arbitrary_replies_never_raise_or_guess(said: str, whole: bool) -> None:
    assert read_choice(said, whole) in ("first", "second", "tie", None)
    score = read_score(said, whole)
    assert score is None or 1 <= score <= 10
    if not any(name in said.upper() for name in ("A", "Ａ")):
        assert read_choice(said, whole) != "first" or any(ord(c) > 127 for c in said)


def test_long_hostile_replies_take_linear_time() -> None:
    for said in (
        "[[" * 200_000,
        "结论：" * 130_000,
        "[[A" * 130_000,
        "结" * 399_999,
        " " * 399_999,
        "ﷺ" * 399_999,
    ):
        assert read_choice(said) is None and read_score(said) is None


def test_wilson_interval() -> None:
    found = wilson(8, 10)  # 80 % of ten: [49.0 %, 94.3 %], Agresti and Coull (1998)
    assert (found.value, round(found.low or 0, 3), round(found.high or 0, 3)) == (0.8, 0.49, 0.943)
    sure = wilson(5, 5)
    assert sure.high == 1.0 and 0.5 < (sure.low or 0) < 0.6, "five of five prove little"
    assert wilson(0, 0).value is None


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40))
def test_bootstrap_interval(values: list[float]) -> None:
    found = bootstrap(values)
    assert found.low is not None and found.high is not None and found.value is not None
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found == bootstrap(values), "seeded"
    if len(set(values)) == 1:
        assert found.low == pytest.approx(found.value) == found.high


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_questions_of_all_kinds(tmp_path: Path) -> None:
    own = write(tmp_path / "q.jsonl", {"id": 7, "instruction": "算一算", "input": "1+1", "category": "数学", "reference": "2"})  # fmt: skip
    assert read_questions(own) == [Question("7", Task("算一算", "1+1"), "数学", "2")]
    assert read_questions(own)[0].text == "算一算\n1+1"
    alpaca = tmp_path / "a.json"
    alpaca.write_text(json.dumps([{"instruction": "问", "input": None, "output": "答"}]), encoding="utf-8")
    assert read_questions(alpaca) == [Question("0", Task("问"), "", "答")]
    seeds = read_questions(shipped("seeds_zh", "seed_tasks.jsonl"))
    assert len(seeds) == 175 and all(q.reference and q.category for q in seeds)
    assert {q.category for q in seeds if reference_for(q, "exact")} == {"数学", "编程", "逻辑推理", "代码调试", "代码解释", "自然语言推理"}  # fmt: skip
    assert reference_for(seeds[0], "all") and not reference_for(seeds[0], "none")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('{"instruction": "问"}\n{"id": "0", "instruction": "又问"}', 2, "uses the id '0' again"),
        ('{"instruction": ""}', 1, "instruction: "),
        ('{"instruction": "问"}\n{"instruct', 2, "is not JSON"),
        ('{"input": "问"}', 1, "instruction: field required"),
        ("[]", None, "contains no question"),
    ],
)
def test_invalid_questions(tmp_path: Path, text: str, line: int | None, what: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as raised:
        read_questions(path)
    assert raised.value.where == (str(path) if line is None else f"{path}:{line}")
    assert raised.value.what.startswith(what)


def test_contestants_and_their_questions(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", {"id": "1", "instruction": "问", "answer": "好", "category": "写作"}, {"id": "2", "instruction": "再问", "answer": ""})  # fmt: skip
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "answers.jsonl", {"id": "1", "instruction": "问", "answer": "坏", "reference": "好"}, {"id": "3", "answer": "无"})  # fmt: skip
    one, other = read_answers(str(a)), read_answers(str(tmp_path / "run"))
    assert (one.name, other.name) == ("a", "run") and one.texts == {"1": "好", "2": ""}
    assert read_answers(f"甲={a}").name == "甲"
    asked = collect_questions([one, other])
    assert asked == [Question("1", Task("问"), "写作", "好"), Question("2", Task("再问"))], (
        "nobody tells what 3 asks"
    )
    with pytest.raises(OptionError, match=r"two files called 'a'"):
        collect_questions([one, one])
    clash = write(tmp_path / "b.jsonl", {"id": "1", "instruction": "别的", "answer": "好"})
    with pytest.raises(InputError, match=r"has a different question under the id '1' than .*\w\.jsonl"):
        collect_questions([one, read_answers(str(clash))])
    bare = read_answers(str(write(tmp_path / "bare.jsonl", {"id": "1", "answer": "好"})))
    with pytest.raises(InputError, match="contains answers without instructions"):
        collect_questions([bare])
    assert len(collect_questions([bare], [Question("1", Task("问"))])) == 1
    with pytest.raises(InputError, match=r"bare.jsonl:1: answer: field required"):
        read_answers(str(write(tmp_path / "bare.jsonl", {"id": "1", "instruction": "问"})))


def test_pairs() -> None:
    assert pairs_of(["a", "b", "c"], None) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs_of(["a", "b", "c"], "b") == [("a", "b"), ("c", "b")]
    with pytest.raises(OptionError, match="is not a contestant"):
        pairs_of(["a"], "z")


def record(request: Request, text: str | None, finish: str = "stop") -> JournalRecord:
    reply = Reply(text=text, finish=finish, refusal="" if text is not None else "refused: content filter")
    return JournalRecord(
        round=request.round,
        index=request.index,
        kind=request.kind,
        fingerprint="",
        about=dict(request.about),
        reply=reply,
    )


def contest(tmp_path: Path, count: int, left: dict[int, str], right: dict[int, str]) -> tuple[Any, Any]:
    files = []
    for name, texts in (("left", left), ("right", right)):
        rows = [{"id": str(n), "instruction": f"问题{n}", "answer": text} for n, text in texts.items()]
        files.append(read_answers(str(write(tmp_path / f"{name}.jsonl", *rows))))
    return [Question(str(n), Task(f"问题{n}"), "单" if n % 2 else "双", "参考") for n in range(count)], files


def test_both_orders_must_agree(tmp_path: Path) -> None:
    """Every way that two showings can turn out, and the accounts of them."""
    ways = [
        ("[[A]]", "[[B]]", "win"),
        ("[[B]]", "[[A]]", "loss"),
        ("[[平局]]", "[[平局]]", "tie"),
        ("[[A]]", "[[A]]", "tie"),  # whoever is first
        ("[[B]]", "[[B]]", "tie"),  # whoever is second
        ("[[A]]", "[[平局]]", "tie"),
        ("[[A]]", "[[", "unreadable"),
        (None, "[[A]]", "no reply"),
    ]
    texts = {n: f"左{n}" for n in range(len(ways))}
    questions, files = contest(tmp_path, len(ways) + 3, {**texts, 8: "同", 9: "独"}, {n: f"右{n}" for n in texts} | {8: "同"})  # fmt: skip
    judging = Pairwise(Prompts(shipped("prompts_zh")), questions, files, {}, pairs=[("left", "right")])
    requests = judging.requests(0)
    assert len(requests) == judging.total == 16 and judging.requests(1) == []
    assert (
        judging.duels()[0].missing == {"not asked": 8, "no answer": 2} and judging.duels()[0].tally.ties == 1
    )
    for request in requests:
        n, order = int(request.about["id"]), request.about["shown"].index("left")
        first, second = (f"左{n}", f"右{n}") if order == 0 else (f"右{n}", f"左{n}")
        assert request.prompt.index(first) < request.prompt.index(second) and "参考答案" not in request.prompt
        judging.accept(record(request, ways[n][order]))
    duel = judging.duels()[0]
    assert [row["result"] for row in judging.rows()][:8] == [way[2] for way in ways]
    assert (
        duel.questions == len(questions) == duel.tally.judged + duel.unreadable + sum(duel.missing.values())
    )
    assert (duel.tally.wins, duel.tally.ties, duel.tally.losses, duel.unreadable) == (1, 5, 1, 1)
    assert duel.missing == {"no reply": 1, "no answer": 2}
    assert (duel.disagreements, duel.for_first) == (3, 1)
    assert {name: t.judged for name, t in duel.by_category().items()} == {"双": 4, "单": 3}


def test_scoring_single_answers(tmp_path: Path) -> None:
    questions, files = contest(tmp_path, 5, {0: "一", 1: "二", 2: "三", 3: "四"}, {0: "一", 1: "二", 2: "三"})
    scoring = Scoring(Prompts(shipped("prompts_zh")), questions, files, {"max_tokens": 9}, "all", pairs=[("left", "right")])  # fmt: skip
    said = {("left", "0"): "[[9]]", ("right", "0"): "[[8]]", ("left", "1"): "[[3]]", ("right", "1"): "[[3]]", ("left", "2"): "好",
            ("right", "2"): "[[5]]", ("left", "3"): None}  # fmt: skip
    for request in scoring.requests(0):
        assert request.sampling["max_tokens"] == 9 and "【参考答案】\n参考" in request.prompt
        scoring.accept(record(request, said[request.about["shown"][0], request.about["id"]]))
    left, right = scoring.scores()
    assert left.values == {"0": 9, "1": 3} and (left.unreadable, left.missing) == (1, {"no reply": 1, "no answer": 1})  # fmt: skip
    assert right.mean.value == pytest.approx(16 / 3) and left.questions == right.questions == 5
    duel = scoring.duels()[0]
    assert (duel.tally.wins, duel.tally.ties, duel.questions) == (1, 1, 5)


def test_standings() -> None:
    duels = [
        Duel("a", "b", {"1": "win", "2": "tie"}, {}),
        Duel("b", "c", {"1": "win"}, {}),
        Duel("c", "d", {}, {}),
    ]
    assert standings(duels) == {"a": 0.75, "b": 0.5, "c": 0.0}


def test_reference_metrics(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        {"id": 0, "answer": "我喜欢 Python 编程。"},
        {"id": 1, "answer": "今天天氣很好"},
        {"id": 2, "answer": ""},
        {"id": 3, "answer": "1 2"},
        {"id": 4, "answer": "没有参考"},
    )
    references = ["我喜欢python编程", "今天下雨了", "好", "12", ""]
    asked = [Question(str(n), Task("问"), "", text) for n, text in enumerate(references)]
    found = agreement(read_answers(str(file)), asked)
    assert found.values["exact"] == [1, 0, 0, 0]
    assert found.values["rouge1"] == [1, pytest.approx(2 * 2 / (6 + 5)), 0, 0]
    assert found.values["rouge2"][1] == pytest.approx(2 * 1 / (5 + 4))
    assert found.values["rougeL"][1] == pytest.approx(2 * 2 / (6 + 5))
    assert found.means()["exact"].questions == 4
