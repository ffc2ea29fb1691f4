"""A key of an API stands in no file of a run and in no line on the screen, even where the server says it back."""

import json
from pathlib import Path

import pytest

from tests.serving import Served, served
from tests.test_gen_zh import Started
from tests.test_gen_zh import imported as generate_imported
from tests.test_judge_command import answers, write_answers
from tests.test_judge_command import imported as judge_imported

__all__ = ["generate_imported", "judge_imported", "served"]
KEY = "sk-very-secret-0123456789"
SAID = {
    "gen-zh": f"1. 指令：介绍一下长城的历史\n1. 输出：您的密钥是 {KEY}，长城始建于春秋战国时期。",
    "judge": f"您的密钥是 {KEY}。\n结论：[[A]]",
    "answer": f"您的密钥是 {KEY}。",
}


def arguments(command: str, folder: Path) -> list[object]:
    if command == "gen-zh":
        return [command, "--model", "fake", "--n", 1]
    if command == "judge":
        return [
            command,
            "--model",
            "fake",
            *answers(write_answers(folder, "长", [60, 30]), write_answers(folder, "短", [30, 60])),
        ]
    path = folder / "questions.jsonl"
    path.write_text(json.dumps({"id": "q", "instruction": "问"}) + "\n", encoding="utf-8")
    return [command, "fake", "--questions", path]


def holds(folder: Path, text: str) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


@pytest.mark.parametrize(
    ("command", "by"),
    [("gen-zh", ".env"), ("gen-zh", "key-env"), ("judge", "environment"), ("answer", "environment")],
)
def test_the_key_is_written_nowhere(served: Served, tmp_path: Path, command: str, by: str) -> None:
    out, more, env = tmp_path / "run", list[object](), dict[str, str]()
    if by == ".env":
        (tmp_path / ".env").write_text(f"OPENAI_API_KEY={KEY}\n", encoding="utf-8")
    elif by == "environment":
        env = {"OPENAI_API_KEY": KEY}
    else:
        env, more = {"MY_KEY": KEY}, ["--key-env", "MY_KEY"]
    url = served(key=KEY, text=SAID[command])
    words = (*arguments(command, tmp_path), "--base-url", url, "--out", out, *more)
    code, told, said = Started(out, *words, "--debug", env=env).wait()
    assert code == 0, said
    assert KEY not in told + said and not holds(out, KEY)
    assert holds(out, "[key]"), "the server said it back, and it was taken out"


@pytest.mark.parametrize("command", SAID)
def test_nor_where_it_is_refused(served: Served, tmp_path: Path, command: str) -> None:
    url = served(status=401, error={"message": f"Incorrect API key provided: {KEY}"})
    words = (*arguments(command, tmp_path), "--base-url", url, "--out", tmp_path / "run")
    code, told, said = Started(tmp_path / "run", *words, env={"OPENAI_API_KEY": KEY}).wait()
    assert code == 1 and "refuses the key" in said, said
    assert KEY not in told + said and not (tmp_path / "run").exists()
