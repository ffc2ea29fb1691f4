"""Budgets and the estimate before a run: whatever a server reports as usage, the budget ends the run."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Served, served
from tests.test_gen_zh import gen_zh, imported, rows, stats
from tests.test_llm_replies import body
from zhllama.llm.journal import Journal, JournalRecord
from zhllama.llm.read_reply import read_reply
from zhllama.llm.requests import Reply, Request
from zhllama.llm.rounds import Rounds
from zhllama.llm.spending import Price, Spending

__all__ = ["imported", "served"]
POEM = "春风又绿江南岸，明月何时照我还。"  # 48 bytes: 24 tokens at most

# What servers report, and whether the count of a reply is an estimate.
USAGE: list[tuple[Any, bool]] = [
    ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, True),
    ({"total_tokens": 40}, True),
    ({"input_tokens": 20, "output_tokens": 20}, False),
    ({"prompt_tokens": -20, "completion_tokens": -20}, True),
    ({"prompt_tokens": 20, "completion_tokens": -1}, True),
    ({"prompt_tokens": 19.5, "completion_tokens": 20.25}, False),
    ({"prompt_tokens": None, "completion_tokens": None}, True),
    (None, True),
    ({}, True),
    ([], True),
    ("many", True),
    ({"prompt_tokens": "20", "completion_tokens": "20"}, False),
    ({"prompt_tokens": True, "completion_tokens": True}, True),
    ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, True),
    ({"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": -1}, False),
]


class Endless:
    """A plan that never ends by itself."""

    def requests(self, round: int) -> list[Request]:
        return [Request(round, index, "ask", "写一首诗。", {}, {"max_tokens": 30}) for index in range(4)]

    def accept(self, record: JournalRecord) -> None:
        pass

    def expected_calls(self) -> int | None:
        return 100


class Poet:
    """A source that reports one usage in all its replies."""

    def __init__(self, usage: Any) -> None:
        self.usage, self.calls = usage, 0

    async def ask(
        self, request: Request, is_allowed: Callable[[], Awaitable[bool]], store: Callable[[bytes], None]
    ) -> Reply | None:
        if not await is_allowed():
            return None
        self.calls += 1
        assert self.calls < 100, "the budget does not end the run"
        response = body(POEM, usage=self.usage)
        store(response)
        return read_reply(response, request.prompt)


@pytest.mark.parametrize(("usage", "is_estimated"), USAGE)
@pytest.mark.parametrize("budget", ["max_cost", "token_budget"])
def test_the_budget_ends_a_run_with_any_usage(
    tmp_path: Path, usage: Any, is_estimated: bool, budget: str
) -> None:
    price = Price(input=1e6, output=1e6)  # one per token
    limit: dict[str, Any] = {budget: 500}
    spending, source = Spending(price, **limit), Poet(usage)
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert not asyncio.run(Rounds(Endless(), journal, source, spending).run())
        assert len(journal) == source.calls >= 8
    assert 300 < spending.tokens <= 500 and spending.cost == spending.tokens
    assert spending.estimated == (source.calls if is_estimated else 0)


def test_a_trial_ends_after_three_calls_and_the_run_keeps_them(served: Served, tmp_path: Path) -> None:
    url, out = served(), tmp_path / "run"
    (tmp_path / "prices.yaml").write_text("fake: {input: 1, output: 2}\n", encoding="utf-8")
    budget = ("--prices", tmp_path / "prices.yaml", "--json")
    code, told, said = gen_zh(url, out, "--n", 200, "--trial", *budget)
    result = json.loads(told)
    assert code == 0 and not result["finished"] and result["replies"] == 3, said
    estimate = result["estimate"]
    assert estimate["calls"] == -(-200 * 3 // result["kept"])
    assert estimate["cost"] == pytest.approx(result["cost"] / 3 * estimate["calls"])
    assert "trial of 3 calls: the run needs about" in said and "stopped after its trial" in said
    trial = rows(out / "journal.jsonl")
    code, told, said = gen_zh(url, out, "--n", 200, "--resume", *budget)
    whole = json.loads(told)
    assert code == 0 and whole["finished"] and rows(out / "journal.jsonl")[:3] == trial, said
    assert stats(url)["requests"] == whole["replies"] and stats(url)["twice"] == 0
    assert whole["cost"] == pytest.approx(estimate["cost"], rel=0.3)


def test_a_run_with_a_price_begins_with_the_estimate(served: Served, tmp_path: Path) -> None:
    url = served()
    (tmp_path / "prices.yaml").write_text("fake: {input: 100, output: 200}\n", encoding="utf-8")
    budget = ("--prices", tmp_path / "prices.yaml", "--max-cost", 5, "--json")
    code, told, said = gen_zh(url, tmp_path / "run", "--n", 500, *budget)
    result = json.loads(told)
    assert code == 0 and not result["finished"] and result["cost"] <= 5 < result["estimate"]["cost"], said
    assert "--max-cost 5 stops it before" in said
    plain = gen_zh(url, tmp_path / "plain", "--n", 30, "--json")
    assert plain[0] == 0 and "trial" not in plain[2]
    assert "estimate" not in json.loads(plain[1])


def test_a_trial_without_an_accepted_task_reports_that(served: Served, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("fake: {input: 1, output: 2}\n", encoding="utf-8")
    url = served(text="好的，没问题！")
    _, told, said = gen_zh(
        url, tmp_path / "run", "--n", 9, "--trial", "--prices", tmp_path / "prices.yaml", "--json"
    )
    assert json.loads(told)["estimate"] == {"calls": None, "tokens": None, "cost": None}
    assert "the cost of the run is unknown" in said


def test_a_trial_is_no_batch(served: Served, tmp_path: Path) -> None:
    code, _, said = gen_zh(served(), tmp_path / "run", "--trial", "--batch-api")
    assert code == 1 and "--trial: cannot be sent as a batch" in said
