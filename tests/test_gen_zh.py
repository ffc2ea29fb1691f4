"""gen-zh and refilter as users run them, against a server that troubles them: exact accounts, kills, one-line errors."""

import json
import os
import random
import re
import shutil
import signal
import sys
import time
import urllib.request
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Served, served

__all__ = ["served"]
HERE = Path(__file__).parent
TROUBLE = {"messy": True, "busy": 0.05, "broken": 0.03, "cut": 0.03, "garbage": 0.03, "keep_alive": 2}


def stats(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/stats") as reply:
        return dict(json.load(reply))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def pieces(record: dict[str, Any]) -> int:
    """Candidates in one journalled reply, read by the parser alone."""
    from zhllama.generation.parse_replies import Unreadable, parse_tasks, strip_thinking

    text = strip_thinking(record["reply"]["text"] or "")
    return 1 if record["reply"]["text"] is None or isinstance(text, Unreadable) else len(parse_tasks(text))


def check_accounts(run: Path, kept: int) -> None:
    """Every candidate of every journalled reply is kept or rejected, once."""
    journal, took, rejected = (rows(run / f"{n}.jsonl") for n in ("journal", "instructions", "rejected"))
    assert len(took) == kept == len(json.loads((run / "instructions.json").read_text(encoding="utf-8")))
    keys = Counter((r["round"], r["index"]) for r in journal)
    assert set(keys.values()) == {1}, "a request was journalled twice"
    assert sum(map(pieces, journal)) == len(took) + len(rejected)
    ids = [r["id"] for r in took] + [r["id"] for r in rejected]
    assert len(set(ids)) == len(ids), "a candidate was folded twice"
    assert len({(r["instruction"], r["input"]) for r in took}) == len(took)


class Started:
    """The command line in a forked process: as good as a fresh one, without ten seconds of imports."""

    def __init__(self, out: Path, *arguments: object, env: dict[str, str] | None = None) -> None:
        self.logs = out.parent / f"{out.name}.out", out.parent / f"{out.name}.err"
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.chdir(out.parent)
                os.environ.update({"OPENAI_API_KEY": "", "COLUMNS": "120", **(env or {})})
                for number, path in enumerate(self.logs, 1):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
                sys.stdout, sys.stderr = (
                    os.fdopen(1, "w", encoding="utf-8"),
                    os.fdopen(2, "w", encoding="utf-8"),
                )
                from rich.console import Console

                from zhllama import cli
                from zhllama.commands import gen_zh as generate
                from zhllama.commands import shared as common

                common.screen = generate.screen = Console(highlight=False)
                common.notes = generate.notes = Console(stderr=True, highlight=False)
                cli.main([str(a) for a in arguments])
            except SystemExit as leaving:
                code = int(leaving.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def running(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG) == (0, 0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def wait(self) -> tuple[int, str, str]:
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), self.logs[0].read_text(), self.logs[1].read_text()


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import jieba.posseg
    import openai

    import zhllama.generation.method_options
    import zhllama.llm.client

    jieba.posseg.lcut("写一首诗")
    assert openai.DefaultAioHttpClient and openai.resources.chat.completions
    assert zhllama.generation.method_options and zhllama.llm.client


def gen_zh(url: str, out: Path, *more: object, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    return Started(out, "gen-zh", "--base-url", url, "--model", "fake", "--out", out, *more, env=env).wait()


def killed_and_resumed(url: str, out: Path, kept: int, kills: int, longest: float) -> None:
    chance, journal = random.Random(7), out / "journal.jsonl"
    for number in range(kills):
        before = journal.stat().st_size if journal.exists() else 0
        more = ("--resume",) if out.exists() else ()
        process = Started(
            out, "gen-zh", "--base-url", url, "--model", "fake", "--out", out, "--n", kept, *more
        )
        # A kill before the first byte proves little: wait for some, then for a random moment.
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size > before):
            assert process.running(), process.logs[1].read_text()
            time.sleep(0.01)
        time.sleep(chance.uniform(0, longest))
        assert process.running(), f"ended before kill {number}"
        process.kill()
        if number % 3 == 1:
            with journal.open("ab") as file:
                file.write(b'{"round":0,"index":99999,"kind":"ta')
    code, _, said = gen_zh(url, out, "--n", kept, "--resume")
    assert code == 0, said


def test_kills_lose_and_repeat_nothing(served: Served, tmp_path: Path) -> None:
    url = served(delay=0.2, jitter=0.2, tasks=3, **TROUBLE)
    killed_and_resumed(url, tmp_path / "run", 200, 3, 0.3)
    check_accounts(tmp_path / "run", 200)
    # What the server answered and the journal lacks was under way at a kill: at most `concurrency` each time.
    assert stats(url)["answered"] - len(rows(tmp_path / "run" / "journal.jsonl")) <= 3 * 32
    code, told, said = gen_zh(url, tmp_path / "plain", "--n", 200)
    assert code == 0, said
    for name in ("instructions.json", "instructions.jsonl", "rejected.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    assert told.startswith(f"{tmp_path}/plain: accepted 200 of 200 requested tasks")


@pytest.mark.slow
def test_twelve_kills_at_two_thousand(served: Served, tmp_path: Path) -> None:
    url = served(delay=0.2, jitter=0.3, tasks=5, **TROUBLE)
    killed_and_resumed(url, tmp_path / "run", 2000, 12, 1.0)
    check_accounts(tmp_path / "run", 2000)
    assert stats(url)["answered"] - len(rows(tmp_path / "run" / "journal.jsonl")) <= 12 * 32
    assert gen_zh(url, tmp_path / "plain", "--n", 2000)[0] == 0
    assert (tmp_path / "run" / "instructions.jsonl").read_bytes() == (
        tmp_path / "plain" / "instructions.jsonl"
    ).read_bytes()


@pytest.mark.slow
def test_a_hundred_kills_over_ten_thousand_replies(served: Served, tmp_path: Path) -> None:
    """`pytest -m slow -s -k hundred_kills`: nothing is lost, nothing twice, and the products are those of a plain run."""
    url, run = served(delay=0.05, jitter=0.3, tasks=1, **TROUBLE), tmp_path / "run"
    killed_and_resumed(url, run, 9000, 100, 1.0)
    check_accounts(run, 9000)
    journal, bodies = rows(run / "journal.jsonl"), rows(run / "raw_replies.jsonl")
    replied = {(row["round"], row["index"]) for row in journal}
    lost = {(row["round"], row["index"]) for row in bodies} - replied
    in_flight = stats(url)["answered"] - len(journal)
    print(
        f"{len(journal)} replies, {len(replied)} distinct, {len(lost)} lost, {in_flight} paid for and cut off"
    )
    assert len(journal) == len(replied) >= 10_000 and not lost and 0 <= in_flight <= 100 * 32
    assert gen_zh(url, tmp_path / "plain", "--n", 9000)[0] == 0
    for name in ("instructions.jsonl", "rejected.jsonl"):
        assert (run / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name


def test_user_errors_are_one_line_and_leave_no_folder(served: Served, tmp_path: Path) -> None:
    """One line for each mistake, exit 1, and no folder left behind."""
    url, out = served(), tmp_path / "run"
    bad_seeds, prompts = tmp_path / "seeds.jsonl", tmp_path / "prompts"
    seed = {
        "id": "a",
        "name": "a",
        "instruction": "写诗",
        "instances": [{"input": "", "output": "好"}],
        "is_classification": False,
    }
    bad_seeds.write_text(
        "\n".join([json.dumps(seed), json.dumps({**seed, "id": "b", "instances": [{"input": ""}]})]),
        encoding="utf-8",
    )
    shutil.copytree(HERE.parent / "prompts_zh", prompts)
    (prompts / "tasks.jinja").write_text("好\n{{ shot }}", encoding="utf-8")
    unknown = served(
        status=404, error={"message": "The model `fake` does not exist", "code": "model_not_found"}
    )
    broke = served(
        status=429, error={"message": "You exceeded your current quota", "code": "insufficient_quota"}
    )
    for address, more, line in [
        (url, ("--n", 0), "--n 0: is not above 0. Give the number of tasks to generate."),
        (url, ("--batch-api", "--base-url", url), "--batch-api: goes to one server and 2 are named. Give one --base-url"),
        ("https://api.example.com/v1", (), "--base-url https://api.example.com/v1: needs a key, and none is set. Set OPENAI_API_KEY in the environment or in .env, or name another with --key-env"),
        (served(key="k"), (), r"URL: asks for a key (Incorrect API key provided). Set OPENAI_API_KEY in the environment."),
        (served(key="k"), ("--key-env", "OTHER_KEY"), "URL: asks for a key (Incorrect API key provided). Set OTHER_KEY in the environment."),
        ("https://api.example.com/v1", ("--key-env", "OTHER_KEY"), "--base-url https://api.example.com/v1: needs a key, and none is set. Set OTHER_KEY in the environment or in .env, or name another with --key-env"),
        ("http://127.0.0.1:9/v1", (), "URL: gives no reply (Connection refused). Check the URL and the server."),
        (unknown, (), "URL: knows no model 'fake', or is not the right URL (The model `fake` does not exist). Check --model, and that --base-url ends as the server's does, mostly in /v1"),
        (broke, (), "URL: has no quota left for this key (You exceeded your current quota). Top it up."),
        (url, ("--seeds", bad_seeds), f"{bad_seeds}:2: instances.0.output: field required. Correct this row."),
        (url, ("--prompts", prompts), f"{prompts}/tasks.jinja:2: unknown variable 'shot'. Known are: api, count, shots, structured."),
        (url, ("--method", "rank"), "--method rank: needs --given. Give a file in Alpaca format."),
        (url, ("--extra-body", "[1]"), "--extra-body: is not a JSON object. Give one such as '{\"enable_thinking\": false}'."),
        (url, ("--max-cost", 1), "--max-cost: needs to know what the model costs. Give --prices FILE.yaml with its name."),
        (url, ("--without", "ugly"), "--without ugly: is not a filter that can be left out. Choose from: "),
    ]:  # fmt: skip
        code, told, said = gen_zh(address, out, *more)
        assert (code, told, said.count("\n")) == (1, "", 1), said
        assert said.startswith(f"zhllama: {line.replace('URL', address, 1)}") and "Traceback" not in said, (
            said
        )
        assert not out.exists()


def test_resume_and_repeated_runs(served: Served, tmp_path: Path) -> None:
    url, out = served(), tmp_path / "run"
    code, told, said = gen_zh(url, out, "--n", 200, "--token-budget", 14_000, "--json")
    result = json.loads(told)
    assert (
        code == 0 and not result["finished"] and 0 < result["kept"] < 200 and "stopped by its budget" in said
    )
    assert (
        result["prompt_tokens"] + result["completion_tokens"] <= 15_000
        and not (out / "manifest.json").exists()
    )
    assert len(json.loads((out / "instructions.json").read_text(encoding="utf-8"))) == result["kept"]
    code, _, said = gen_zh(url, out, "--n", 200)
    assert (
        code == 1
        and "contains an unfinished run. Give --resume to continue, or --force to start over." in said
    )
    code, _, said = gen_zh(url, out, "--n", 201, "--resume")
    assert code == 1 and "was started with other options: n 200 → 201" in said
    code, told, _ = gen_zh(url, out, "--n", 200, "--resume", "--concurrency", 2, "--json")
    assert code == 0 and json.loads(told)["kept"] == 200 and json.loads(told)["finished"]
    assert stats(url)["twice"] == 0 and stats(url)["answered"] == len(rows(out / "journal.jsonl"))
    before = (out / "instructions.jsonl").read_bytes()
    assert gen_zh(url, out, "--n", 200, "--resume")[0] == 1, "finished runs are not gone on with"
    assert gen_zh(url, out, "--n", 200, "--force")[0] == 0
    assert (out / "instructions.jsonl").read_bytes() == before


def test_refilter(served: Served, tmp_path: Path) -> None:
    url, out = served(messy=True), tmp_path / "run"
    assert gen_zh(url, out, "--n", 80)[0] == 0
    asked = stats(url)["requests"]
    code, told, said = Started(
        tmp_path / "same", "refilter", out, "--out", tmp_path / "same", "--json"
    ).wait()
    assert code == 0, said
    assert (tmp_path / "same" / "instructions.jsonl").read_bytes() == (
        out / "instructions.jsonl"
    ).read_bytes()
    assert (tmp_path / "same" / "rejected.jsonl").read_bytes() == (out / "rejected.jsonl").read_bytes()
    code, told, said = Started(
        tmp_path / "strict", "refilter", out, "--out", tmp_path / "strict", "--min-output", 40, "--json"
    ).wait()
    strict = json.loads(told)
    assert code == 0 and 0 < strict["kept"] < 80 and strict["reasons"]["too short"] > 10
    manifest = json.loads((tmp_path / "strict" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["parents"] == [str(out)] and manifest["options"]["min_output"] == 40
    assert strict["kept"] + strict["rejected"] == sum(map(pieces, rows(out / "journal.jsonl")))
    assert stats(url)["requests"] == asked, "nothing was paid for"
    code, _, said = Started(tmp_path / "x", "refilter", tmp_path, "--out", tmp_path / "x").wait()
    assert code == 1 and said.count("\n") == 1 and not (tmp_path / "x").exists()


def test_the_report_is_complete_and_escaped(served: Served, tmp_path: Path) -> None:
    evil = "1. 指令：写一段<script>alert(1)</script>的说明\n1. 输出：<img src=x onerror=alert(2)>这是一个关于网页安全的例子，请勿执行它。"
    assert gen_zh(served(text=evil), tmp_path / "run", "--n", 1, "--without", "too little Chinese")[0] == 0
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert html.count("<script") == 1 and "<img" not in html and "&lt;script&gt;" in html
    assert "<svg" in html and "prefers-color-scheme:dark" in html and not re.search(r"https?://", html)
    for title in (
        "Verbs and nouns",
        "Kinds of tasks",
        "Reasons of rejection",
        "Characters of outputs",
        "ROUGE-L to the nearest",
        "Random examples",
        "cost",
    ):
        assert title in html


def test_unreadable_replies_stop_a_run_and_nothing_accepted_is_a_failure(
    served: Served, tmp_path: Path
) -> None:
    url, out = served(text="好的，我这就去想一想，请稍等片刻。"), tmp_path / "run"
    code, _, said = gen_zh(url, out, "--n", 2000)
    assert code == 1 and not (out / "manifest.json").exists()
    replies = len(rows(out / "journal.jsonl"))
    assert f"{replies:,} of {replies:,} candidates in {replies:,} replies cannot be read (100%)" in said
    assert "resume with a higher --max-unreadable" in said.splitlines()[-1]
    code, _, said = gen_zh(url, out, "--n", 2000, "--resume", "--max-unreadable", 1)
    assert code == 1 and (out / "manifest.json").exists()
    assert "cannot be read (100%)" in said and f"no task was accepted: see {out / 'rejected.jsonl'}" in said
    assert stats(url)["twice"] == 0 and stats(url)["answered"] == len(rows(out / "journal.jsonl"))
