"""Ranked pairs, and a reward model that learns them: accounts, ids, what a run holds, kills, scores, one-line errors."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.align_toys import ranked_rows, write_ranked
from tests.model_toys import line, write_model
from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.template import template_for
from zhllama.errors import InputError, OptionError
from zhllama.model.load import load_transformers_tokenizer
from zhllama.training.examples import read_examples
from zhllama.training.preference_pairs import PAIRS, to_rows

MEASURED = ("tokens_per_second", "seconds", "peak_memory_bytes")  # of a log, which no two runs share
SETTINGS = ("--max-length", 256, "--batch", 8, "--micro-batch", 4, "--log-every", 1, "--precision", "fp32")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("align")
    write_model(folder / "base")
    write_ranked(folder / "pairs.jsonl")
    return folder


@pytest.fixture(scope="module")
def encoder(ground: Path) -> ConversationEncoder:
    tokenizer = load_transformers_tokenizer(ground / "base")
    return ConversationEncoder(tokenizer, template_for("alpaca", tokenizer))


def train(command: str, *arguments: object) -> tuple[object, ...]:
    return (command, "--model", "base", "--pairs", "pairs.jsonl", *SETTINGS, *arguments)


def figures(folder: Path, *arguments: object) -> dict[str, Any]:
    told = line(folder, *arguments, "--json")
    assert told.code == 0, told.err
    return dict(json.loads(told.out))


def killed_at(folder: Path, arguments: tuple[object, ...], out: Path, lines: int) -> bool:
    """Run a command line in a child and SIGKILL it when its log has so many lines; whether it was still alive."""
    child = os.fork()
    if child == 0:
        os._exit(line(folder, *arguments).code)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        log = out / "log.jsonl"
        if log.exists() and log.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def test_pairs_of_all_forms_are_accounted_for(
    ground: Path, encoder: ConversationEncoder, tmp_path: Path
) -> None:
    rows = ranked_rows(8)
    rows.append({"instruction": "长", "ranked_outputs": ["好" * 400, "坏"]})
    rows.append({"instruction": "三", "ranked_outputs": ["甲", "乙", "丙"]})
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    found = read_examples(PAIRS, [path], encoder, 256, validation_share=0.3)
    assert found.figures() == {"pairs_read": 12, "pairs": len(found.training), "validation_pairs": len(found.validation), "pairs_left_out": 1}  # fmt: skip
    assert found.rejected[0].where == f"{path}:1" and found.rejected[0].reason.startswith("too long: ")
    assert len(found.training) + len(found.validation) == 11 and len(found.validation) >= 3
    prompts = [{tuple(pair.prompt) for pair in some} for some in (found.training, found.validation)]
    assert not prompts[0] & prompts[1], "a prompt is learnt or measured, never both"
    fewer = tmp_path / "fewer.json"
    fewer.write_text(json.dumps(rows[:7] + rows[8:], ensure_ascii=False), encoding="utf-8")
    assert (
        sum(
            pair in found.validation
            for pair in read_examples(PAIRS, [fewer], encoder, 256, validation_share=0.3).validation
        )
        >= 2
    )


def test_ids_are_those_of_the_chat_template(ground: Path, encoder: ConversationEncoder) -> None:
    row = ranked_rows(1)[0]
    pairs = read_examples(PAIRS, [ground / "pairs.jsonl"], encoder, 256, validation_share=0).training
    tokenizer = encoder.tokenizer
    asked = {"role": "user", "content": row["instruction"]}
    for ids, answer in ((pairs[0].chosen, 0), (pairs[0].rejected, 1)):
        messages = [asked, {"role": "assistant", "content": row["ranked_outputs"][answer]}]
        wanted = tokenizer.apply_chat_template(messages, chat_template=encoder.template.jinja)["input_ids"]
        assert pairs[0].prompt + ids == wanted and wanted[-1] == tokenizer.eos_token_id
    opened = tokenizer.apply_chat_template(
        [asked], chat_template=encoder.template.jinja, add_generation_prompt=True
    )
    assert pairs[0].prompt == opened["input_ids"]
    assert to_rows(pairs[:1], joined=True) == [{"chosen_ids": pairs[0].prompt + pairs[0].chosen, "rejected_ids": pairs[0].prompt + pairs[0].rejected}]  # fmt: skip


def test_pairs_that_are_none(encoder: ConversationEncoder, ground: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = json.dumps(ranked_rows(1)[0], ensure_ascii=False)
    path.write_text(
        f'{good}\n{{"instruction": "问", "ranked_outputs": ["一"]}}\nnot json\n', encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"pairs.jsonl:2: .*\. 1 more rows are bad"):
        read_examples(PAIRS, [path], encoder, 256, validation_share=0)
    found = read_examples(PAIRS, [path], encoder, 256, validation_share=0, skip_bad=True)
    assert (len(found.training), [bad.where for bad in found.rejected]) == (1, [f"{path}:2", f"{path}:3"])
    with pytest.raises(InputError, match=r"leaves no pair to train on: .*too long"):
        read_examples(PAIRS, [ground / "pairs.jsonl"], encoder, 16)
    with pytest.raises(OptionError, match="validation_share 1"):
        read_examples(PAIRS, [path], encoder, 256, validation_share=1)
    given = read_examples(
        PAIRS, [ground / "pairs.jsonl"], encoder, 256, validation_files=[ground / "pairs.jsonl"]
    )
    assert len(given.training) == len(given.validation) == 60


def test_a_reward_model_learns_and_scores(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = line(ground, *train("reward", "--out", "learnt", "--steps", 12, "--lr", 1e-2, "--eval-every", 5))
    assert told.code == 0 and "on 6 validation pairs" in told.out, told.err
    with monkeypatch.context() as patched:
        patched.setenv("ZHLLAMA_LANG", "zh")
        again = line(ground, *train("reward", "--out", "short", "--steps", 1))
    assert "6个验证偏好对" in again.out and "准确率（accuracy）" in again.out and "margin " not in again.out
    made = json.loads((ground / "learnt" / "manifest.json").read_text(encoding="utf-8"))["figures"]
    assert made["accuracy_validation"]["after"] == 1.0 and made["margin_validation"]["after"] > 1
    assert (made["pairs_read"], made["pairs"], made["validation_pairs"], made["template"]) == (
        60,
        54,
        6,
        "alpaca",
    )
    log = [
        json.loads(row) for row in (ground / "learnt" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["step"] for row in log if "loss" in row] == list(range(1, 13))
    assert [row["step"] for row in log if "accuracy_validation" in row] == [5, 10]
    assert log[0]["loss"] == pytest.approx(0.69, abs=0.1) and log[-1]["loss"] < 0.3
    assert sorted(p.name for p in (ground / "learnt").iterdir() if p.is_dir()) == ["reward", "tokenizer"]
    page = (ground / "learnt" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"<h3>.*>accuracy<.*>validation pairs<", page) and "Loss (nats per pair)" in page
    before = f"{made['accuracy_validation']['before']:.4f}"
    assert re.search(rf">accuracy<.*>validation pairs<.*</span>{before}</td>.*</span>1\.0000</td>", page)

    from zhllama.conversation.records import Conversation, Turn
    from zhllama.training.reward import RewardModel

    model = RewardModel(ground / "learnt")
    better, worse = (
        model.score(Conversation((Turn("user", "说说历史"), Turn("assistant", said)), ""))
        for said in ("生活很好", "no idea")
    )
    assert better > worse + 1
    for arguments in (("chat", "learnt", "--prompt", "你好"), ("export", "learnt", "--out", "x")):
        told = line(ground, *arguments)
        assert told.code == 1 and "is a run that trained no model" in told.err, "a reward model does not talk"


def test_a_judge_by_rewards(ground: Path) -> None:
    if not (ground / "learnt" / "manifest.json").exists():
        test_a_reward_model_learns_and_scores(ground)
    for name, said in (("zh", "大学很好"), ("en", "no idea")):
        rows = [{"id": n, "instruction": f"说说{n}", "answer": said if n else ""} for n in range(5)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (ground / f"{name}.jsonl").write_text(text, encoding="utf-8")
    arguments = (
        "judge",
        "--answers",
        "zh.jsonl",
        "--answers",
        "en.jsonl",
        "--reward",
        "learnt",
        "--out",
        "judged",
    )
    found = figures(ground, *arguments)
    duel = found["reward_duels"][0]
    assert (duel["wins"], duel["losses"], duel["missing"], duel["questions"]) == (4, 0, 1, 5)
    assert [m["missing_because"] for m in found["rewards"]] == [{"no answer": 1}] * 2
    manifest = json.loads((ground / "judged" / "manifest.json").read_text(encoding="utf-8"))
    assert str(ground / "learnt") in manifest["parents"]
    told = line(ground, *arguments[:-3], "zh.jsonl", "--out", "x")
    assert told.code == 1 and told.err.startswith("zhllama: zh.jsonl: is no run of zhllama reward"), told.err


@pytest.mark.slow  # as dpo, whose own test is quick enough
def test_killed_anywhere_a_reward_run_ends_with_the_same_bytes(ground: Path) -> None:
    settings = ("--steps", 10, "--save-every", 3)
    assert line(ground, *train("reward", "--out", "whole", *settings)).code == 0
    arguments = train("reward", "--out", "killed", *settings, "--resume")
    kills = [killed_at(ground, arguments, ground / "killed", lines) for lines in (2, 5, 9)]
    assert kills[0] and sum(kills) >= 2
    told = line(ground, *arguments)
    assert told.code == 0, told.err
    for name in ("reward/adapter_model.safetensors",):
        assert (ground / "killed" / name).read_bytes() == (ground / "whole" / name).read_bytes()
    one, other = (
        json.loads((ground / out / "figures.json").read_text(encoding="utf-8")) for out in ("killed", "whole")
    )
    assert {k: v for k, v in one.items() if k.endswith("_validation")} == {k: v for k, v in other.items() if k.endswith("_validation")}  # fmt: skip
    assert not (ground / "killed" / "checkpoints").exists()
    told = line(ground, *arguments)
    assert told.code == 1 and "contains a finished run" in told.err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--pairs", "nope.jsonl"), "nope.jsonl: no such file"),
        (
            ("--max-length", 600),
            "--max-length: is 600 and the model was made for 512 tokens. Give a smaller number.",
        ),
        (("--max-length", 20), "pairs.jsonl: leaves no pair to train on: "),
        (("--batch", 6), "--batch: 6 is no multiple of 4. Change --micro-batch or --batch"),
        (("--template", "chatml"), "--template chatml: needs the special token <|im_start|>"),
        (("--template", "own"), "BASE: template own: is not there: the tokenizer has no chat_template."),
        (("--lora-module", "nope"), "--lora-module"),
        (("--validation-share", 2), "--validation-share 2.0: is not from 0 up to 1."),
        (("--lr", 0), "--lr: 0 is not above 0."),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    ground: Path, arguments: tuple[object, ...], wanted: str
) -> None:
    for command in ("reward", "dpo"):
        told = line(ground, *train(command, "--out", "bad"), *arguments)
        assert told.code == 1 and told.out == "", told.err
        line_of_error = f"zhllama: {wanted}".replace("BASE", str(ground / "base"))
        assert told.err.splitlines()[-1].startswith(line_of_error), told.err
        assert not (ground / "bad").exists()


@pytest.mark.parametrize("command", ["reward", "dpo"])
def test_a_plan_without_a_run(ground: Path, command: str) -> None:
    found = figures(ground, *train(command, "--dry-run", "--epochs", 2, "--validation-share", 0.1))
    assert found["steps"] == 14, "54 of 60 pairs, twice, eight a step"
    assert found["tokens"] == 14 * 8 * 2 * 256 and 0 < found["trained"] < found["parameters"] / 10
    alone = figures(ground, command, "--dry-run", "--shape", "llama-7b", "--machine", "A100", "--json")
    assert alone["trained"] == 19_988_480 and alone["steps"] is None and alone["machine"] == "A100"
    for more, wanted in (
        (("--dry-run",), "--model: is missing"),
        (("--model", "base", "--out", "bad"), "--pairs: is missing"),
        (("--model", "base", "--pairs", "pairs.jsonl"), "--out: is missing"),
    ):
        told = line(ground, command, *more)
        assert told.code == 1 and told.err.startswith(f"zhllama: {wanted}"), told.err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["reward", "dpo", "dpo --full"])
def test_two_processes_learn_as_one_does(ground: Path, tmp_path: Path, command: str) -> None:
    name, *more = command.split()
    arguments = [*train(name, *more, "--steps", 6, "--micro-batch", 2, "--eval-every", 3, "--lr", 1e-3)]
    assert line(ground, *arguments, "--out", tmp_path / "one").code == 0
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "zhllama")
    words = [*launch, *map(str, arguments), "--out", str(tmp_path / "two")]
    done = subprocess.run(words, cwd=ground, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = (
        [json.loads(row) for row in (tmp_path / out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        for out in ("one", "two")
    )
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for key in ("loss", "accuracy_validation", "margin_validation"):
        wanted = [row[key] for row in one if key in row]
        assert [row[key] for row in two if key in row] == pytest.approx(wanted, abs=1e-5)
    assert done.stdout.count("validation pairs") == 1, "the first process alone speaks"
