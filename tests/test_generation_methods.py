"""Every generation method with a scripted server: its requests, their order, and the accepted replies."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zhllama.errors import InputError
from zhllama.generation.method_options import GenerationPlan
from zhllama.generation.methods import GenerationMethod
from zhllama.generation.tasks import Task
from zhllama.llm.journal import Journal
from zhllama.llm.requests import Reply, Request
from zhllama.llm.rounds import Rounds, replay
from zhllama.llm.spending import Spending

OPTIONS: dict[str, Any] = {"method": "alpaca", "api": "chat", "seed": 0}
NOUNS = "梅兰竹菊松柏桃李杏梨枣栗桂荷葵葱姜蒜茄瓜"


class Script:
    """Answers from a function, and notes what it was asked."""

    def __init__(self, answer: Callable[[Request], str | Reply]) -> None:
        self.answer, self.asked = answer, list[Request]()

    async def ask(
        self, request: Request, may: Callable[[], Awaitable[bool]], store: Callable[[bytes], None]
    ) -> Reply | None:
        if not await may():
            return None
        self.asked.append(request)
        # Later requests come back first: the fold must not care.
        await asyncio.sleep(0.001 * (5 - request.index % 5))
        said = self.answer(request)
        return (
            said
            if isinstance(said, Reply)
            else Reply(text=said, finish="stop", model="m", prompt_tokens=10, completion_tokens=10)
        )


def run(
    folder: Path, answer: Callable[[Request], str | Reply], spending: Spending | None = None, **options: Any
) -> tuple[GenerationMethod, Script, list[dict[str, Any]], bool]:
    rejected: list[dict[str, Any]] = []
    method = GenerationPlan.from_options({**OPTIONS, **options}).create_method(rejected.append)
    script = Script(answer)

    async def work() -> bool:
        with Journal(folder / "journal.jsonl") as journal:
            return await Rounds(method, journal, script, spending or Spending()).run()

    whole = asyncio.run(work())
    method.finish()
    return method, script, rejected, whole


def given(folder: Path, *tasks: dict[str, str]) -> str:
    (folder / "given.json").write_text(json.dumps(tasks), encoding="utf-8")
    return str(folder / "given.json")


def unlike(number: int) -> str:
    """Instructions of which no two are near."""
    return "".join(chr(0x4E00 + number * 40 + k) for k in range(12))


def whole_tasks(request: Request) -> str:
    at = request.round * 1000 + request.index * 8
    return "\n".join(
        f"{n}. 指令：{unlike(at + n)}\n{n}. 输入：<无>\n{n}. 输出：好的{NOUNS[n]}" for n in range(4)
    )


def test_alpaca_requests_only_the_missing_tasks(tmp_path: Path) -> None:
    method, script, rejected, whole = run(tmp_path, whole_tasks, n=30)
    assert whole and len(method.pool.accepted) == 30 and len(rejected) == len(script.asked) * 4 - 30
    assert [k.origin.id for k in method.pool.accepted[:5]] == ["0.0.0", "0.0.1", "0.0.2", "0.0.3", "0.1.0"]
    first = script.asked[0]
    assert first.about["shots"] and first.sampling == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 3072}
    assert first.prompt.count("###\n") == 3 and len({r.prompt for r in script.asked}) == len(script.asked)


def test_empty_rounds_end_a_run(tmp_path: Path) -> None:
    method, script, rejected, whole = run(tmp_path, lambda r: "不会", n=2000)
    assert whole and not method.pool.accepted and len(script.asked) == len(rejected) < 200


def test_structured_sends_a_schema(tmp_path: Path) -> None:
    task = {"instruction": unlike(1), "input": "", "output": "好"}
    method, script, _, _ = run(tmp_path, lambda r: json.dumps({"tasks": [task]}), n=1, structured=True)
    assert (
        script.asked[0].sampling["response_format"]["type"] == "json_schema"
        and len(method.pool.accepted) == 1
    )


def self_instruct(request: Request) -> str | Reply:
    if request.kind == "instructions":
        return "\n".join(f"{n}. {unlike(request.round * 500 + request.index * 10 + n)}" for n in range(4))
    if request.kind == "classify":
        return "是" if request.index % 2 else "否"
    if request.about["is_classification"]:
        return "标签：好\n输入：很好\n标签：坏\n输入：很坏"
    if request.index % 5 == 0:
        return "输入：甲\n输出：一\n输入：甲\n输出：二"
    return (
        Reply(text="输入：<无>\n输出：好\n输入：半", finish="length")
        if request.index % 5 == 2
        else "输入：<无>\n输出：好"
    )


def test_self_instruct_runs_its_three_steps(tmp_path: Path) -> None:
    method, script, rejected, whole = run(tmp_path, self_instruct, method="self-instruct", n=40)
    kinds = [(r.round, r.kind) for r in script.asked]
    assert whole and len(method.pool.accepted) == 40
    assert [kind for _, kind in dict.fromkeys(kinds)][:4] == [
        "instructions",
        "classify",
        "instances",
        "instructions",
    ]
    later = [r for r in script.asked if r.kind == "instructions" and r.round > 0]
    assert later and all(sum(s.startswith("kept ") for s in r.about["shots"]) == 2 for r in later)
    row = next(k.row() for k in method.pool.accepted if k.origin.about["is_classification"])
    assert (
        row["from"]["instruction_from"].startswith("0.") and row["output"] == "好" and row["input"] == "很好"
    )
    reasons = {r["reason"] for r in rejected}
    assert {"same input, other output", "cut off"} <= reasons


def test_replay_with_other_filters(tmp_path: Path) -> None:
    method, _, _, _ = run(tmp_path, self_instruct, method="self-instruct", n=20)
    for options in ({}, {"min_output": 2}, {"min_instruction": 50}, {"n": 10}):
        rejected: list[dict[str, Any]] = []
        again = GenerationPlan.from_options(
            {**OPTIONS, "method": "self-instruct", "n": 20, **options}
        ).create_method(rejected.append)
        with Journal(tmp_path / "journal.jsonl", write=False) as journal:
            replay(again, journal, Spending())
        again.finish()
        assert again.pool.candidates == len(again.pool.accepted) + len(rejected)
        if not options:
            assert [k.row() for k in again.pool.accepted] == [k.row() for k in method.pool.accepted]
        else:
            assert (
                len(again.pool.accepted)
                == {"min_output": 0, "min_instruction": 0, "n": 10}[next(iter(options))]
            )


def rewritten(request: Request) -> str | Reply:
    if request.kind == "rewrite":
        number = int(request.about["id"].rstrip("+"))
        return "不会" if number == 1 else f"指令：{unlike(number)}\n输入：<无>"
    return (
        Reply(text="半", finish="length")
        if request.about["id"].startswith("3")
        else f"答案之{request.about['id']}"
    )


def test_translation_keeps_ids(tmp_path: Path) -> None:
    file = given(
        tmp_path, *({"instruction": f"Say number {n}", "input": "", "output": "x"} for n in range(200))
    )
    method, script, rejected, whole = run(tmp_path, rewritten, method="translate", given=file)
    assert whole and len(method.pool.accepted) == 188
    assert all(
        k.row()["output"] == f"答案之{k.row()['id']}"
        and k.task == replace(method.pool.prepare(Task(unlike(int(k.row()["id"]))))[0], output=k.task.output)
        for k in method.pool.accepted
        if not k.row()["id"].startswith("3")
    )
    assert {(r["reason"], r["detail"]) for r in rejected} >= {("format", "no instruction")}
    assert [r.round for r in script.asked][::70] == sorted(r.round for r in script.asked)[::70]
    assert "Say number 0" in script.asked[0].prompt


def test_evolution_in_depth_and_breadth(tmp_path: Path) -> None:
    file = given(
        tmp_path, *({"instruction": f"请讲一讲第{unlike(n)[:4]}件事", "output": ""} for n in range(20, 50))
    )
    method, script, _, _ = run(tmp_path, rewritten, method="evolve", given=file, n=30)
    ways = {r.about["way"] for r in script.asked if r.kind == "rewrite"}
    assert "widen" in ways and len(ways) > 3
    assert {k.row()["from"]["of"] for k in method.pool.accepted} <= {str(n) for n in range(30)} and len(
        method.pool.accepted
    ) > 15


def ranked(request: Request) -> str | Reply:
    if request.kind == "answer":
        if request.about["id"] == "3":
            return "都一样的回答"
        return f"第{request.about['answer']}种回答"
    shown = request.about["shown"]
    best = {"0": sorted(shown), "1": shown, "2": None}[request.about["id"]]
    return "说不好" if best is None else " > ".join(str(shown.index(n) + 1) for n in best)


def test_ranking_in_both_orders(tmp_path: Path) -> None:
    file = given(
        tmp_path, *({"instruction": f"{unlike(n)}说说", "input": "春天来了，花开了。"} for n in range(4))
    )
    method, script, rejected, whole = run(tmp_path, ranked, method="rank", given=file, answers=3)
    assert whole and [r["reason"] for r in rejected] == ["too few answers", "orders disagree", "format"]
    (row,) = method.products()["comparisons.json"]
    assert [r["response"] for r in row["responses_and_scores"]] == ["第0种回答", "第1种回答", "第2种回答"]
    assert [r["score"] for r in row["responses_and_scores"]] == [2, 1, 0] and len(row["pairs"]) == 3
    assert (
        row["user_input"].endswith("说说\n春天来了，花开了。")
        and method.pool.accepted[0].task.output == "第0种回答"
    )
    orders = [r.about["shown"] for r in script.asked if r.kind == "rank" and r.about["id"] == "0"]
    assert orders == [[0, 1, 2], [2, 1, 0]]


def test_a_broken_answer_is_not_ranked(tmp_path: Path) -> None:
    def broken(request: Request) -> str | None:
        answer = ranked(request)
        return f"{answer}\ufffd" if request.kind == "answer" and request.about["answer"] == 1 else answer

    file = given(tmp_path, {"instruction": f"{unlike(0)}说说", "input": "春天来了，花开了。"})
    method, _, _, _ = run(tmp_path, broken, method="rank", given=file, answers=3)
    (row,) = method.products()["comparisons.json"]
    assert [r["response"] for r in row["responses_and_scores"]] == ["第0种回答", "第2种回答"]


def test_a_run_stopped_by_its_budget_is_resumed(tmp_path: Path) -> None:
    _, script, _, whole = run(tmp_path, whole_tasks, Spending(token_budget=100), n=100)
    assert not whole and len(script.asked) <= 5
    method, more, _, whole = run(tmp_path, whole_tasks, n=100)
    assert whole and len(method.pool.accepted) == 100
    assert not {r.key for r in script.asked} & {r.key for r in more.asked}, "nothing is paid for twice"


def test_a_journal_of_other_requests_is_refused(tmp_path: Path) -> None:
    run(tmp_path, whole_tasks, n=10)
    with pytest.raises(InputError, match="belongs to a different request"):
        run(tmp_path, whole_tasks, n=10, seed=1)


def test_hostile_replies_are_all_counted(tmp_path: Path) -> None:
    said = [
        "",
        "<think>",
        "{" * 50_000,
        "\x00",
        "1. 指令：" + "字" * 500_000,
        "1. 指令：写一首诗\n1. 输出：<script>alert(1)</script>",
        Reply(text=None, refusal="refused: no"),
    ]
    method, script, rejected, _ = run(tmp_path, lambda r: said[(r.round + r.index) % len(said)], n=50)
    assert len(method.pool.accepted) + len(rejected) >= len(script.asked)
    assert {r["reason"] for r in rejected} >= {"format", "no reply"} and all(
        len(json.dumps(r)) < 5000 for r in rejected
    )
