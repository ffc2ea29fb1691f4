"""The 175 seed tasks of Self-Instruct, held to every check, and every check to copies broken on purpose."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest

from tests.seed_checks import (
    CHECKS,
    DATA,
    MAX_OPENING,
    SEEDS,
    Check,
    Task,
    check_balance,
    check_ids,
    check_labels,
    check_openings,
    check_operators,
    check_pairwise,
    check_quotes,
    check_schema,
    check_shots,
    check_simplified,
    check_spacing,
    check_text,
    nearest_rows,
    rouge_l_matrix,
    shared_instructions,
    tokens,
)
from zhllama.generation.near_duplicates import NearDuplicateIndex


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    raw = SEEDS.read_bytes()
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    lines = raw.decode("utf-8").removesuffix("\n").split("\n")
    loaded = [json.loads(line) for line in lines]
    # One way to write each task: Chinese as itself, keys in the order that everyone expects.
    assert lines == [json.dumps(task, ensure_ascii=False) for task in loaded]
    return loaded


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_seeds_pass(check: Check, tasks: list[Task]) -> None:
    assert check(tasks) == []


def test_seeds_are_not_in_the_shared_data(tasks: list[Task]) -> None:
    folder = DATA / "instructions"
    if not folder.is_dir():
        pytest.skip(f"no instruction data under {folder} (set ZHLLAMA_TEST_DATA)")
    rows = shared_instructions(folder)
    assert len(rows) > 10_000
    assert nearest_rows(tasks, rows) == []
    pool = NearDuplicateIndex()  # the measure by which gen-zh rejects near duplicates
    for row in rows:
        pool.add(row)
    assert [task["id"] for task in tasks if pool.find(task["instruction"])] == []
    # The search does find what is there: a row itself, and the same row with one character more.
    sample = [r for r in rows if 12 <= len(tokens(r)) <= 40][::1000]
    planted = [{"id": str(n), "instruction": r + "吗"} for n, r in enumerate(sample)]
    assert len(nearest_rows(planted, rows)) == len(planted)


def test_the_hundredth_answer_is_short_enough_to_be_held_out(tasks: list[Task]) -> None:
    """sft holds out the hundredth sample if it fits; the demo, with 512 tokens, is evaluated on it."""
    every = [(t["instruction"], i["input"], i["output"]) for t in tasks for i in t["instances"]]
    assert 100 <= len("".join(every[99])) <= 400


# --- copies broken on purpose: each must be caught --------------------------------------------------


def drop_last(tasks: list[Task]) -> None:
    tasks.pop()


def reuse_name(tasks: list[Task]) -> None:
    tasks[1]["name"] = tasks[0]["name"]


def extra_field(tasks: list[Task]) -> None:
    tasks[3]["note"] = "x"


def empty_output(tasks: list[Task]) -> None:
    tasks[5]["instances"][0]["output"] = ""


def trailing_space(tasks: list[Task]) -> None:
    tasks[6]["instruction"] += " "


def ascii_comma(tasks: list[Task]) -> None:
    tasks[6]["instances"][0]["output"] = "你好,世界"


def space_before_figure(tasks: list[Task]) -> None:
    tasks[6]["instances"][0]["output"] = "共有 3本书。"


def space_after_latin(tasks: list[Task]) -> None:
    tasks[6]["instances"][0]["output"] = "用Python 写。"


def tight_product(tasks: list[Task]) -> None:
    tasks[6]["instances"][0]["output"] = "3×7等于21。"


def long_instruction(tasks: list[Task]) -> None:
    tasks[6]["instruction"] = "请看。" * 6


def long_input(tasks: list[Task]) -> None:
    tasks[6]["instances"][0]["input"] = "好" * 301


def open_quote(tasks: list[Task]) -> None:
    tasks[6]["instances"][0]["output"] = "他说：“好。"


def lone_category(tasks: list[Task]) -> None:
    tasks[6]["category"] = "独一份"


def no_long_answers(tasks: list[Task]) -> None:
    for task in tasks:
        task["instances"][0]["output"] = task["instances"][0]["output"][:500]


def endless_answer(tasks: list[Task]) -> None:
    tasks[6]["instances"][0]["output"] = "好" * 2000


def traditional(tasks: list[Task]) -> None:
    tasks[7]["instances"][0]["output"] += "，學習"


def near_copy(tasks: list[Task]) -> None:
    tasks[9]["instruction"] = "请" + tasks[8]["instruction"]


def near_copy_by_input(tasks: list[Task]) -> None:
    long = next(t["instances"][0]["input"] for t in tasks if len(t["instances"][0]["input"]) > 100)
    tasks[-1]["instances"][0]["input"] = tasks[-2]["instances"][0]["input"] = long


def same_openings(tasks: list[Task]) -> None:
    for task in tasks[: MAX_OPENING + 1]:
        task["instruction"] = "请你" + task["instruction"]


def no_inputs(tasks: list[Task]) -> None:
    for task in tasks:
        task["instances"][0]["input"] = ""


def no_classification(tasks: list[Task]) -> None:
    for task in tasks:
        task["is_classification"] = False


def long_label(tasks: list[Task]) -> None:
    next(t for t in tasks if t["is_classification"])["instances"][0]["output"] = (
        "这一条应当归入负面的评价一类。"
    )


def unknown_label(tasks: list[Task]) -> None:
    next(t for t in tasks if t["is_classification"])["instances"][0]["output"] = "紫色"


def few_categories(tasks: list[Task]) -> None:
    for task in tasks:
        task["category"] = "写作"


@pytest.mark.parametrize(
    ("breaks", "check"),
    [
        (drop_last, check_balance),
        (drop_last, check_ids),
        (reuse_name, check_ids),
        (extra_field, check_schema),
        (empty_output, check_text),
        (trailing_space, check_text),
        (ascii_comma, check_text),
        (space_before_figure, check_spacing),
        (space_after_latin, check_spacing),
        (tight_product, check_operators),
        (long_instruction, check_shots),
        (long_input, check_shots),
        (open_quote, check_quotes),
        (lone_category, check_balance),
        (no_long_answers, check_balance),
        (endless_answer, check_balance),
        (traditional, check_simplified),
        (near_copy, check_pairwise),
        (near_copy_by_input, check_pairwise),
        (same_openings, check_openings),
        (no_inputs, check_balance),
        (no_classification, check_balance),
        (few_categories, check_balance),
        (long_label, check_labels),
        (unknown_label, check_labels),
    ],
)
def test_broken_copies_fail(breaks: Callable[[list[Task]], None], check: Check, tasks: list[Task]) -> None:
    broken = copy.deepcopy(tasks)
    breaks(broken)
    assert check(broken) != []


def test_rouge_l_agrees_with_a_plain_table() -> None:
    """The score against the textbook LCS, on real text and on hand-counted cases."""

    def plain(a: list[str], b: list[str]) -> float:
        row = [0] * (len(b) + 1)
        for x in a:
            last = 0
            for j, y in enumerate(b, 1):
                last, row[j] = row[j], last + 1 if x == y else max(row[j], row[j - 1])
        return 2 * row[-1] / (len(a) + len(b))

    assert tokens("用 Python3 写2024年，好吗？") == ["用", "python3", "写", "2024", "年", "好", "吗"]
    assert rouge_l_matrix(["今天天气好", "今天气好"])[0, 1] == pytest.approx(8 / 9)
    samples = ["把这句话译成英文。", "把这段话译成自然的 English。", "English 译成中文，这句话怎么说？"]
    scores = rouge_l_matrix(samples)
    for i, a in enumerate(samples):
        for j, b in enumerate(samples):
            if i != j:
                assert scores[i, j] == pytest.approx(plain(tokens(a), tokens(b)))
