"""What seed tasks are held to: shape, balance, novelty, and clean Simplified Chinese.

Every check is a function from a list of tasks to a list of complaints, so that the same functions can be
held to copies broken on purpose (test_seeds.py): a check that cannot fail proves nothing.
"""

from __future__ import annotations

import json
import lzma
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import opencc
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from zhllama.generation.near_duplicates import NearDuplicateIndex

Task = dict[str, Any]
Check = Callable[[list[Task]], list[str]]

REPO = Path(__file__).resolve().parents[1]
SEEDS = REPO / "seeds_zh" / "seed_tasks.jsonl"
DATA = Path(os.environ.get("ZHLLAMA_TEST_DATA") or REPO.parent / "shared" / "data")

COUNT = 175
NEAR = 0.7  # Self-Instruct's own limit: at this ROUGE-L or above, two instructions are the same task
MIN_CATEGORIES, MAX_CATEGORIES = 38, 45  # each with at least two tasks
MIN_CLASSIFICATION = 35
LONG, LONGEST = 600, 1400  # characters of an answer; at least MIN_LONG answers in prose reach the first
MIN_LONG = 6
MAX_LABEL = 12  # characters in the answer of a classification task
MAX_OPENING = COUNT // 10
# What prompts_zh/tasks.jinja asks of new tasks; the seeds are its examples.
MAX_SENTENCES = 5  # of an instruction, those inside quotation marks not counted
MAX_INPUT = 300  # characters
FIELDS = {"id", "name", "category", "instruction", "instances", "is_classification"}

# Categories whose very subject is Traditional script.
TRADITIONAL = {"繁简转换"}
# t2s rewrites these although each is right in Simplified text: 毕昇 (a name), 乾坤, 瞭望.
ALLOWED = set("昇乾瞭")

TOKEN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]|[A-Za-z0-9]+")
HALF_WIDTH = re.compile(r"[\u4e00-\u9fff][,;:?!][\u4e00-\u9fff]")
CSV = re.compile(r"^[^\s，。；：？！,]+(?:,[^\s，。；：？！,]+){2,}$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# Han, full-width punctuation and the quotation marks, dashes and dots that Chinese shares with other scripts.
CJK = "\u2014\u2018\u2019\u201c\u201d\u2026\u3001-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff01-\uff65"
# Table cells and list markers keep their space, since |, - and . are neither letters nor digits.
SPACED = re.compile(rf"[{CJK}] [A-Za-z0-9`{CJK}]|[A-Za-z0-9`%℃] [{CJK}]")


# A sign of arithmetic without a space on both sides: 3×7 for 3 × 7.
TIGHT = re.compile(r"[\d)²³][×÷+=][\d(√]|[\d)²³][×÷=] [\d(√]|[\d)²³] [×÷=][\d(√]")


def tokens(text: str) -> list[str]:
    """One Han character is one token, and so is a run of Latin letters or digits; the rest does not count."""
    return TOKEN.findall(text.lower())


class Alphabet:
    """Gives each token a character of its own, so that rapidfuzz compares plain strings."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode(self, text: str) -> str:
        # From U+10000 on: no surrogates, and room for a million tokens.
        return "".join(chr(0x10000 + self.ids.setdefault(t, len(self.ids))) for t in tokens(text))


def texts(task: Task) -> Iterable[tuple[str, str]]:
    yield "instruction", task["instruction"]
    for number, instance in enumerate(task["instances"]):
        yield f"instances[{number}].input", instance["input"]
        yield f"instances[{number}].output", instance["output"]


def prose(text: str) -> str:
    """A text without its fenced code."""
    return FENCED.sub("", text)


def spaced(text: str) -> list[str]:
    """Places where running Chinese text has a space next to Han; the rule is none, beside digits and Latin letters too."""
    shown = re.sub(r"`[^`\n]+`", "``", prose(text))
    return [shown[max(0, m.start() - 8) : m.end() + 8] for m in SPACED.finditer(shown)]


def has_input(task: Task) -> bool:
    return any(instance["input"] for instance in task["instances"])


# --- the checks -------------------------------------------------------------------------------------


def check_schema(tasks: list[Task]) -> list[str]:
    bad = []
    for task in tasks:
        label = task.get("id", "?")
        if set(task) != FIELDS:
            bad.append(f"{label}: fields {sorted(task)}")
            continue
        if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", task["name"]):
            bad.append(f"{label}: name {task['name']!r} is not snake_case")
        if not isinstance(task["is_classification"], bool):
            bad.append(f"{label}: is_classification is not a boolean")
        if not re.search(r"[\u4e00-\u9fff]", task["category"]):
            bad.append(f"{label}: category {task['category']!r} is not Chinese")
        if not task["instances"]:
            bad.append(f"{label}: no instance")
        for instance in task["instances"]:
            if set(instance) != {"input", "output"} or not all(isinstance(v, str) for v in instance.values()):
                bad.append(f"{label}: instance {instance!r}")
    return bad


def check_ids(tasks: list[Task]) -> list[str]:
    expected = [f"seed_{n:03d}" for n in range(1, COUNT + 1)]
    bad = [] if [t["id"] for t in tasks] == expected else [f"ids are not seed_001 … seed_{COUNT}, in order"]
    names = Counter(t["name"] for t in tasks)
    return bad + [f"name {name!r} used {n} times" for name, n in names.items() if n > 1]


def check_text(tasks: list[Task]) -> list[str]:
    """Nothing empty, no blank ends, no half-width punctuation between two Han characters of prose."""
    bad = []
    for task in tasks:
        for where, text in texts(task):
            if not text.strip() and not where.endswith("input"):
                bad.append(f"{task['id']} {where}: empty")
            if any(line != line.rstrip() for line in text.split("\n")) or text != text.strip():
                bad.append(f"{task['id']} {where}: white space at an end")
            if hit := HALF_WIDTH.search(CSV.sub("", prose(text))):
                bad.append(f"{task['id']} {where}: half-width punctuation in {hit.group()!r}")
    return bad


def check_spacing(tasks: list[Task]) -> list[str]:
    return [
        f"{task['id']} {where}: a space in {hit!r}"
        for task in tasks
        for where, text in texts(task)
        for hit in spaced(text)
    ]


def check_operators(tasks: list[Task]) -> list[str]:
    """Outside code, every sign of arithmetic between numbers has a space on both sides."""
    return [
        f"{task['id']} {where}: no spaces in {match.group()!r}"
        for task in tasks
        for where, text in texts(task)
        for match in TIGHT.finditer(re.sub(r"`[^`\n]+`", "", prose(text)))
    ]


def check_shots(tasks: list[Task]) -> list[str]:
    """Every seed obeys the lengths that the prompt for new tasks asks for."""
    bad = []
    for task in tasks:
        outside = re.sub("“[^”]*”", "", task["instruction"])
        if (n := len(re.findall("[。！？]", outside))) > MAX_SENTENCES:
            bad.append(f"{task['id']}: an instruction of {n} sentences")
        bad += [f"{task['id']}: an input of {len(i['input'])} characters" for i in task["instances"] if len(i["input"]) > MAX_INPUT]  # fmt: skip
    return bad


def check_quotes(tasks: list[Task]) -> list[str]:
    """Opening and closing quotation marks and brackets match, outside code."""
    return [
        f"{task['id']} {where}: {pair} do not match"
        for task in tasks
        for where, text in texts(task)
        for pair in ("“”", "‘’", "（）", "《》", "〔〕", "【】")
        if prose(text).count(pair[0]) != prose(text).count(pair[1])
    ]


def check_balance(tasks: list[Task]) -> list[str]:
    bad = []
    if len(tasks) != COUNT:
        bad.append(f"{len(tasks)} tasks, not {COUNT}")
    categories = Counter(t["category"] for t in tasks)
    if not MIN_CATEGORIES <= len(categories) <= MAX_CATEGORIES:
        bad.append(f"{len(categories)} categories, not {MIN_CATEGORIES} to {MAX_CATEGORIES}")
    bad += [f"category {name!r} has one task alone" for name, n in categories.items() if n == 1]
    share = sum(map(has_input, tasks)) / max(len(tasks), 1)
    if not 0.4 <= share <= 0.6:
        bad.append(f"{share:.0%} have an input, not 40–60 %")
    if (n := sum(t["is_classification"] for t in tasks)) < MIN_CLASSIFICATION:
        bad.append(f"{n} classification tasks, fewer than {MIN_CLASSIFICATION}")
    answers = [(t["id"], instance["output"]) for t in tasks for instance in t["instances"]]
    if (n := sum(LONG <= len(a) <= 2 * LONG and prose(a) == a for _, a in answers)) < MIN_LONG:
        bad.append(f"{n} answers of {LONG} to {2 * LONG} characters in prose, fewer than {MIN_LONG}")
    bad += [f"{name}: an answer of {len(a)} characters" for name, a in answers if len(a) > LONGEST]
    return bad


def check_labels(tasks: list[Task]) -> list[str]:
    """The answer of a classification task is one short label, and the task itself names that label."""
    bad = []
    for task in tasks:
        if not task["is_classification"]:
            continue
        for instance in task["instances"]:
            label = instance["output"]
            if len(label) > MAX_LABEL or "\n" in label or label.endswith(("。", ".", "！")):
                bad.append(f"{task['id']}: {label!r} is not a short label")
            if label not in task["instruction"] + instance["input"]:
                bad.append(f"{task['id']}: label {label!r} is not among those offered")
    return bad


def check_openings(tasks: list[Task]) -> list[str]:
    openings = Counter(t["instruction"][:2] for t in tasks)
    return [f"{n} instructions begin with {o!r}" for o, n in openings.items() if n > MAX_OPENING]


def check_simplified(tasks: list[Task]) -> list[str]:
    converter = opencc.OpenCC("t2s")
    bad = []
    for task in tasks:
        if task["category"] in TRADITIONAL:
            continue
        for where, text in texts(task):
            simplified = converter.convert(text)
            if len(simplified) != len(text):
                bad.append(f"{task['id']} {where}: t2s changes its length")
            wrong = {a for a, b in zip(text, simplified, strict=False) if a != b} - ALLOWED
            if wrong:
                bad.append(f"{task['id']} {where}: Traditional {''.join(sorted(wrong))}")
    return bad


def rouge_l_matrix(strings: list[str]) -> np.ndarray:
    """ROUGE-L F between every two: 2·LCS / (m + n), the diagonal set to 0."""
    alphabet = Alphabet()
    coded = [alphabet.encode(s) for s in strings]
    lcs = process.cdist(coded, coded, scorer=LCSseq.similarity, dtype=np.int32)
    lengths = np.array([len(c) for c in coded])
    scores: np.ndarray = 2.0 * lcs / np.maximum(lengths[:, None] + lengths[None, :], 1)
    np.fill_diagonal(scores, 0.0)
    return scores


def check_pairwise(tasks: list[Task]) -> list[str]:
    """No two tasks near each other, by the instruction alone and by the instruction with its first input."""
    bad = []
    alone = [t["instruction"] for t in tasks]
    whole = [t["instruction"] + "\n" + t["instances"][0]["input"] for t in tasks]
    for what, strings in (("instruction", alone), ("instruction and input", whole)):
        scores = rouge_l_matrix(strings)
        for i, j in np.argwhere(np.triu(scores) >= NEAR):
            bad.append(f"{tasks[i]['id']} and {tasks[j]['id']}: {what} {scores[i, j]:.2f}")
    return bad


def nearest_rows(tasks: list[Task], rows: list[str], floor: float = NEAR) -> list[tuple[float, str, str]]:
    """(score, task id, row) of each task's nearest row, where that reaches ``floor``.

    F ≤ 2·overlap / (m + n), where overlap counts the tokens that both share, order aside. The bound comes for
    all rows at once from postings of the tasks' tokens; the few rows that pass it meet the real LCS.
    """
    alphabet = Alphabet()
    seeds = [alphabet.encode(t["instruction"]) for t in tasks]
    wanted = {c for s in seeds for c in s}
    coded = [alphabet.encode(r) for r in rows]
    lengths = np.array([len(c) for c in coded])
    row_ids: dict[str, list[int]] = defaultdict(list)
    row_counts: dict[str, list[int]] = defaultdict(list)
    for number, code in enumerate(coded):
        for char, count in Counter(code).items():
            if char in wanted:
                row_ids[char].append(number)
                row_counts[char].append(count)
    postings = {c: (np.array(row_ids[c]), np.array(row_counts[c])) for c in row_ids}

    found = []
    for task, seed in zip(tasks, seeds, strict=True):
        overlap = np.zeros(len(coded), dtype=np.int64)
        for char, count in Counter(seed).items():
            if char in postings:
                ids, counts = postings[char]
                overlap[ids] += np.minimum(counts, count)
        bound = 2.0 * overlap / np.maximum(lengths + len(seed), 1)
        best, best_row = 0.0, -1
        for number in np.flatnonzero(bound >= floor).tolist():
            if bound[number] > best:
                score = 2.0 * LCSseq.similarity(seed, coded[number]) / (len(seed) + len(coded[number]))
                if score > best:
                    best, best_row = score, number
        if best >= floor:
            found.append((best, task["id"], rows[best_row]))
    return found


# --- the shared instruction rows --------------------------------------------------------------------


def first_turn(row: dict[str, Any]) -> str:
    """The instruction of a row, whichever of the usual shapes it has."""
    if isinstance(row.get("instruction"), str):
        return str(row["instruction"])
    for key in ("conversations", "conversation", "messages"):
        for turn in row.get(key) or ():
            if "human" in turn:
                return str(turn["human"])
            if turn.get("from", turn.get("role")) in ("human", "user"):
                return str(turn.get("value", turn.get("content", "")))
    return str(row.get("prompt", ""))


def shared_instructions(folder: Path) -> list[str]:
    rows: dict[str, None] = {}
    for path in sorted(folder.glob("*.jsonl.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                if text := first_turn(json.loads(line)):
                    rows[text] = None
    return list(rows)


CHECKS: list[Check] = [
    check_schema,
    check_ids,
    check_text,
    check_spacing,
    check_operators,
    check_shots,
    check_quotes,
    check_balance,
    check_labels,
    check_openings,
    check_simplified,
    check_pairwise,
]


def highest(tasks: list[Task], rows: list[str], count: int = 3) -> Iterable[str]:
    """The highest similarities by the project's own measure: seed to seed, and seed to row of the shared data."""
    for what, strings in (
        ("instruction", [t["instruction"] for t in tasks]),
        ("with input", [t["instruction"] + "\n" + t["instances"][0]["input"] for t in tasks]),
    ):
        for kind, others in (("seed", None), ("row", rows)):
            pool = NearDuplicateIndex(0.4)
            for row in others or ():
                pool.add(row)
            found = []
            for task, text in zip(tasks, strings, strict=True):
                if (near := pool.find(text)) is not None:
                    found.append((near.score, task["id"], tasks[near.number]["id"] if others is None else others[near.number]))  # fmt: skip
                if others is None:
                    pool.add(text)
            for score, name, other in sorted(found, reverse=True)[:count]:
                yield f"{what}: {score:.3f} {name} and the {kind} {other[:60]!r}"


if __name__ == "__main__":
    seeds = [json.loads(line) for line in SEEDS.read_text(encoding="utf-8").splitlines()]
    print("\n".join(highest(seeds, shared_instructions(DATA / "instructions"))))
