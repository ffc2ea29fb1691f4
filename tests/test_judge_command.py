"""judge as users run it, against a server that troubles it: exact accounts, kills, one-line errors, the page."""

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.serving import Served, served
from tests.test_gen_zh import TROUBLE, Started, rows, stats
from zhllama.commands.judge import _show_duels
from zhllama.commands.llm_requests import say_spent
from zhllama.evaluation.win_rates import Duel, Outcome

__all__ = ["served"]
CATEGORIES = ("数学", "写作", "问答")


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    import openai
    import rouge_score.rouge_scorer

    import zhllama.evaluation.judging

    assert openai.DefaultAioHttpClient and openai.resources.chat.completions and zhllama.evaluation.judging
    assert rouge_score.rouge_scorer


def write_answers(folder: Path, name: str, lengths: list[int]) -> Path:
    path = folder / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for n, length in enumerate(lengths):
            row = {"id": f"q{n}", "instruction": f"第{n}题", "category": CATEGORIES[n % 3], "reference": "参考" * 9, "answer": "字" * length}  # fmt: skip
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def judge(url: str | None, out: Path, *more: object) -> tuple[int, str, str]:
    server = () if url is None else ("--base-url", url, "--model", "fake")
    return Started(out, "judge", *server, "--out", out, *more).wait()


def answers(*paths: Path) -> list[object]:
    return [part for path in paths for part in ("--answers", path)]


def accounts(duel: dict[str, Any]) -> bool:
    counted = duel["judged"] + duel["unreadable"] + duel["missing"]
    return bool(duel["questions"] == counted and duel["judged"] == duel["wins"] + duel["ties"] + duel["losses"])  # fmt: skip


def test_a_fair_judge_and_all_products(served: Served, tmp_path: Path) -> None:
    a = write_answers(tmp_path, "长", [60] * 20 + [30] * 5 + [40] * 5)
    b = write_answers(tmp_path, "短", [30] * 20 + [60] * 5 + [40] * 5)
    url, out = served(), tmp_path / "run"
    code, told, said = judge(url, out, *answers(a, b), "--json")
    assert code == 0, said
    result = json.loads(told)
    duel = result["duels"][0]
    assert (duel["left"], duel["right"], duel["wins"], duel["ties"], duel["losses"]) == ("长", "短", 20, 5, 5)
    assert accounts(duel) and duel["order_disagreements"] == 0 and result["finished"]
    assert duel["win_rate"]["value"] == 0.75 and duel["win_rate"]["low"] < 0.75 < duel["win_rate"]["high"]
    assert sum(c["judged"] for c in duel["categories"].values()) == 30
    assert result["replies"] == 50 == stats(url)["answered"], "equal answers are not asked about"
    assert [r["name"] for r in result["references"]] == ["长", "短"] and result["references"][0]["questions"] == 30  # fmt: skip
    verdicts = rows(out / "verdicts.jsonl")
    assert len(verdicts) == 30 and verdicts[0]["orders"][1]["shown"] == ["短", "长"]
    shown = [r for r in rows(out / "journal.jsonl") if r["about"]["id"] == "q0"]
    assert len(shown) == 2
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "75.0% [" in html and "Wilson" in html and "ROUGE-L" in html and html.count("<script") == 1
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert [Path(i["path"]).name for i in manifest["inputs"]] == ["长.jsonl", "短.jsonl"]
    code, told, _ = judge(url, tmp_path / "table", *answers(a, b))
    assert code == 0 and re.search(
        r"长 against 短\n.*\n75\.0% \[\d\d\.\d%, \d\d\.\d%\] +20 +5 +5 +0 +0 +0", told
    ), told


@pytest.mark.parametrize("mode", ["pair", "score"])
def test_killed_runs_equal_an_uninterrupted_run(served: Served, tmp_path: Path, mode: str) -> None:
    files = [write_answers(tmp_path, n, [20 + (k * i) % 37 for k in range(120)]) for i, n in enumerate("甲乙丙", 1)]  # fmt: skip
    arguments = (*answers(*files), "--mode", mode, "--seed", 3)
    assert judge(served(messy=True), tmp_path / "whole", *arguments)[0] == 0
    url = served(**{**TROUBLE, "delay": 0.05, "jitter": 0.03})
    out = tmp_path / "run"
    journal = out / "journal.jsonl"
    for number in range(3):
        before = journal.stat().st_size if journal.exists() else 0
        more = ("--resume",) if out.exists() else ()
        process = Started(out, "judge", "--base-url", url, "--model", "fake", "--out", out, *arguments, *more)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size > before):
            assert process.running(), process.logs[1].read_text()
            time.sleep(0.01)
        time.sleep(0.05 * number)
        assert process.running(), f"ended before kill {number}"
        process.kill()
        with journal.open("ab") as file:
            file.write(b'{"round": 0, "index": 99999, "ki')
    code, told, said = judge(url, out, *arguments, "--resume", "--json")
    assert code == 0, said
    result = json.loads(told)
    assert all(map(accounts, result["duels"])) and len(result["duels"]) == 3
    for name in ("verdicts.jsonl", "results.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    kept = rows(journal)
    assert set(Counter((r["round"], r["index"]) for r in kept).values()) == {1}
    assert stats(url)["answered"] <= len(kept) + 3 * 32, "only calls under way are paid for again"
    if mode == "pair":
        duel = result["duels"][0]
        assert duel["unreadable"] > 0 < duel["order_disagreements"], "a messy judge is told as such"
    else:
        assert all(m["questions"] == m["judged"] + m["unreadable"] + m["missing"] == 120 for m in result["scores"])  # fmt: skip
        assert sum(m["unreadable"] for m in result["scores"]) > 0


def test_the_budget_leaves_questions_missing(served: Served, tmp_path: Path) -> None:
    files = [write_answers(tmp_path, n, [20 + (k * i) % 37 for k in range(60)]) for i, n in enumerate("甲乙", 1)]  # fmt: skip
    url, out = served(), tmp_path / "run"
    code, told, said = judge(url, out, *answers(*files), "--token-budget", 30_000, "--json")
    result = json.loads(told)
    assert code == 0 and not result["finished"] and "stopped by its budget" in said
    duel = result["duels"][0]
    assert accounts(duel) and duel["missing_because"]["not asked"] > 0 < duel["judged"]
    assert not (out / "manifest.json").exists() and (out / "report.html").exists()
    code, told, _ = judge(url, out, *answers(*files), "--resume", "--json")
    assert code == 0 and json.loads(told)["duels"][0]["missing"] == 0 and stats(url)["twice"] == 0
    code, _, said = judge(url, out, *answers(*files))
    assert code == 1 and "contains a finished run. Give --force to start over." in said


def test_against_a_baseline_and_alone(served: Served, tmp_path: Path) -> None:
    files = [write_answers(tmp_path, name, [length] * 6) for name, length in (("甲", 30), ("乙", 20), ("丙", 10))]  # fmt: skip
    url = served()
    code, told, said = judge(url, tmp_path / "run", *answers(*files), "--baseline", "乙", "--json")
    assert code == 0, said
    result = json.loads(told)
    assert [(d["left"], d["right"], d["wins"], d["losses"]) for d in result["duels"]] == [("甲", "乙", 6, 0), ("丙", "乙", 0, 6)]  # fmt: skip
    assert list(result["standings"].items()) == [("甲", 1.0), ("乙", 0.5), ("丙", 0.0)]
    code, told, said = judge(url, tmp_path / "one", *answers(files[0]), "--json")
    assert code == 0 and json.loads(told)["scores"][0]["mean"] == {"value": 3.0, "low": 3.0, "high": 3.0}


def test_without_a_server(tmp_path: Path) -> None:
    a = write_answers(tmp_path, "甲", [10, 20])
    code, told, said = judge(None, tmp_path / "run", *answers(a), "--json")
    assert code == 0, said
    result = json.loads(told)
    assert result["duels"] == [] == result["scores"] and result["references"][0]["exact"]["value"] == 0.0
    code, told, _ = judge(None, tmp_path / "table", *answers(a))
    assert code == 0 and "ROUGE-L" in told


def test_user_errors_are_one_line_and_leave_no_folder(served: Served, tmp_path: Path) -> None:
    a, b = (write_answers(tmp_path, name, [10, length]) for name, length in (("a", 20), ("b", 30)))
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "torn.jsonl").write_text('{"id": 1, "instruction": "问", "answer": "好"}\n{"id": 2, "inst', encoding="utf-8")  # fmt: skip
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"instruction": "问", "answer": "好"}\n', encoding="utf-8")
    url, out = served(), tmp_path / "run"
    for address, more, line in [
        (url, ("--answers", tmp_path / "empty.jsonl"), f"{tmp_path}/empty.jsonl: contains no answer. Give files that zhllama answer wrote"),
        (url, ("--answers", tmp_path / "torn.jsonl"), f"{tmp_path}/torn.jsonl:2: is not JSON ("),
        (url, ("--answers", tmp_path / "nope.jsonl"), f"{tmp_path}/nope.jsonl: no such file"),
        (url, (*answers(a), "--mode", "pair"), "--mode pair: needs two contestants. Give --answers twice, or --mode score."),
        (url, answers(a, a), "--answers: has two files called 'a'. Name them: --answers NAME=FILE."),
        (url, (*answers(a, b), "--baseline", "c"), "--baseline c: is not a contestant. Choose from: a, b."),
        (url, (*answers(a, b), "--prompts", tmp_path), f"{tmp_path}/judge.jinja: no such prompt. Copy it from prompts_zh."),
        (url, (*answers(a, b), "--max-cost", 1), "--max-cost: needs to know what the model costs."),
        ("http://127.0.0.1:9/v1", answers(a, b), "http://127.0.0.1:9/v1: gives no reply ("),
        (served(key="k"), answers(a, b), "http://127.0.0.1:"),
        (None, answers(bare), "--base-url: is missing, and no question has a reference. Give the judge's server."),
        (None, (*answers(a, b), "--model", "x"), "--base-url: is missing. Give the server's URL"),
    ]:  # fmt: skip
        code, told, said = judge(address, out, *more)
        assert (code, told, said.count("\n")) == (1, "", 1), said
        assert said.startswith(f"zhllama: {line}"), said
        assert not out.exists()


def test_the_page_escapes_answers(served: Served, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    for name, text in (("a", evil), ("b", "无害")):
        row = {"id": evil, "instruction": evil, "category": evil, "answer": text, "reference": evil}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    url = served(text=f"{evil}\n结论：[[A]]")
    code, _, said = judge(url, tmp_path / "run", *answers(tmp_path / "a.jsonl", tmp_path / "b.jsonl"))
    assert code == 0, said
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert html.count("<script") == 1 and "&lt;script&gt;" in html and not re.search(r"https?://", html)


@pytest.mark.parametrize(("language", "title", "spent"), [
    ("en", "win rate [95 %]", "12,345 replies, 12,345,678 + 1,234,567 tokens (estimated from characters for 3 replies), cost 1.2300"),
    ("zh", "胜率[95%]", "12,345个回复，提示词12,345,678个词元，回复1,234,567个词元（其中3个回复按字符估算），费用1.2300"),
])  # fmt: skip
def test_long_names_and_large_figures_fit_80_columns(
    language: str, title: str, spent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With both names as columns, headings broke inside words: `unreada ble`."""
    monkeypatch.setenv("ZHLLAMA_LANG", language)
    names = ("chinese-alpaca-plus-7b-and-more", "gpt-4o-mini-2024-07-18-by-another")
    outcomes: list[Outcome] = [*["win"] * 1234, *["tie"] * 567, *["loss"] * 1890]
    by_question = {str(number): outcome for number, outcome in enumerate(outcomes)}
    duel = Duel(*names, by_question, dict.fromkeys(by_question, ""), 112, {"a": 13}, disagreements=1456)
    _show_duels("win rate", [duel])
    figures = {"replies": 12345, "prompt_tokens": 12345678, "completion_tokens": 1234567}
    say_spent({**figures, "estimated_replies": 3, "cost": 1.23})
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == [names[0], {"en": "against", "zh": "对"}[language], names[1]]
    assert told[1].startswith(title) and len(told) == 4 and told[3] == spent
    assert told[2].split()[-6:] == ["1,234", "567", "1,890", "1,456", "112", "13"]
    assert max(map(cell_len, told[:3])) <= 80
