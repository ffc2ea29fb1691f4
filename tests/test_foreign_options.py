"""Options of other trainers are refused with the name of ours, and the documented table is the one that is used."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.model_toys import line
from zhllama.commands.foreign_options import NAMES, TRAINERS, our_options


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("pretrain --learning_rate 1e-4", "--lr"),
        ("pretrain --learning-rate=1e-4", "--lr"),
        ("sft --output_dir o", "--out"),
        ("sft --num_train_epochs 3", "--epochs"),
        ("sft --per_device_train_batch_size 4", "--micro-batch"),
        ("sft --cutoff_len 512", "--max-length"),
        ("pretrain --cutoff_len 512", "--block-size"),
        ("pretrain --lora_rank 8", "--lora-rank"),
        ("dpo --pref_beta .1", "--beta"),
        ("reward --model_name_or_path m", "--model"),
        ("merge-vocab --llama_tokenizer_dir l", "--base"),
        ("gen-zh --api_base http://x", "--base-url"),
    ],
)
def test_an_option_of_another_trainer_is_answered_with_ours(tmp_path: Path, command: str, ours: str) -> None:
    ended = line(tmp_path, *command.split())
    assert ended.code == 2 and f"Did you mean {ours}?" in ended.err, ended.err


def test_an_option_that_the_command_does_not_have_is_not_suggested(tmp_path: Path) -> None:
    ended = line(tmp_path, "audit", "x", "--learning_rate", "1")
    assert ended.code == 2 and "No such option: --learning_rate" in ended.err and "--lr" not in ended.err
    assert our_options("--max-length", ["--block-size", "--lr"]) == ["--block-size"]
    assert our_options("--nonsense", ["--lr"]) == []


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("chat --model m", "zhllama chat MODEL"),
        ("export --run=r --out o", "zhllama export RUN"),
        ("audit --tokenizer t", "zhllama audit TOKENIZER"),
    ],
)
def test_an_option_for_what_has_no_name_is_answered_with_its_place(
    tmp_path: Path, command: str, ours: str
) -> None:
    ended = line(tmp_path, *command.split())
    assert ended.code == 2 and f"Give the value alone: {ours}" in ended.err, ended.err


@pytest.mark.parametrize("page", ["options-of-other-trainers.md", "options-of-other-trainers.zh.md"])
def test_the_documented_table_is_the_one_in_use(page: str) -> None:
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `--")]
    shown = {
        row[0].strip("| `-"): tuple(tuple(name.strip("` |–") for name in re.split(", |、", cell) if name.strip(" |–")) for cell in row[1:])
        for row in rows
    }  # fmt: skip
    assert shown == NAMES
    assert "| zhllama | " + " | ".join(TRAINERS) + " |" in text
