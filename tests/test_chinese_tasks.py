"""The task set tasks_zh: made again it is the same, each item has one answer that can be checked, and lm-eval's scores are those of a plain sum."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.chinese_tasks.items import Item
from scripts.chinese_tasks.sentences import OVERLAP, sentences
from scripts.chinese_tasks.words import words_at
from scripts.make_chinese_tasks import OF_EACH, tasks
from tests.model_toys import base_vocabulary, larger_vocabulary, line, write_model, write_tokenizer
from tests.seed_checks import spaced
from zhllama.evaluation.bits_per_byte import measure_bits
from zhllama.evaluation.lm_eval_tasks import chance_levels
from zhllama.io.files import json_line
from zhllama.model.grow import grow
from zhllama.model.load import open_model
from zhllama.resources import shipped
from zhllama.vocab.any_tokenizer import load_any_tokenizer

FOLDER = shipped("tasks_zh")
NAMES = ("zhllama_cloze", "zhllama_characters", "zhllama_translation", "zhllama_sentiment")


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def made() -> dict[str, list[Item]]:
    return tasks([], [])


def test_the_shipped_files_are_what_the_script_makes(made: dict[str, list[Item]]) -> None:
    assert tuple(made) == NAMES and all(len(items) == OF_EACH for items in made.values())
    for name, items in made.items():
        content = "".join(json_line(item.row()) for item in items)
        assert (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8") == content, (
            f"{name}: run python scripts/make_chinese_tasks.py"
        )


@pytest.mark.parametrize("name", NAMES)
def test_items_are_balanced_and_of_one_length(name: str) -> None:
    rows = _rows(name)
    assert len({row["id"] for row in rows}) == len({tuple(sorted(row["choices"])) for row in rows}) == OF_EACH
    places = Counter(row["answer"] for row in rows)
    assert len(places) == (2 if name == "zhllama_sentiment" else 4)
    assert max(places.values()) - min(places.values()) <= 2
    for row in rows:
        assert len(set(row["choices"])) == len(row["choices"]) == len(places), row["id"]
        assert len({len(choice) for choice in row["choices"]}) == 1, row["id"]
        assert all(spaced(choice.partition("中文：")[2] or choice) == [] for choice in row["choices"]), row[
            "id"
        ]


def test_words_and_characters_alone_do_not_tell() -> None:
    """What is wrong in one item is right in another."""
    for name in ("zhllama_cloze", "zhllama_characters"):
        right, wrong = set(), Counter[str]()
        for row in _rows(name):
            begin, length = row["about"].index("＿"), row["about"].count("＿")
            fills = [choice[begin : begin + length] for choice in row["choices"]]
            assert {choice[:begin] + choice[begin + length :] for choice in row["choices"]} == {
                row["about"].replace("＿", "")
            }
            right.add(fills.pop(row["answer"]))
            wrong.update(fills)
        assert wrong.keys() <= right, name
        assert len(wrong) > 0.8 * len(right), f"{name}: some words are never wrong"


def test_only_the_right_character_makes_a_word() -> None:
    for row in _rows("zhllama_characters"):
        at = row["about"].index("＿")
        for place, choice in enumerate(row["choices"]):
            assert bool(words_at(choice, at)) == (place == row["answer"]), row["id"]


def test_sentences_are_the_sources_own() -> None:
    seeds = shipped("seeds_zh", "seed_tasks.jsonl").read_text(encoding="utf-8")
    for name in ("zhllama_cloze", "zhllama_characters"):
        for row in _rows(name):
            path = shipped("corpora", "sample") / row["source"]
            text = path.read_text(encoding="utf-8") if path.is_file() else seeds
            assert row["choices"][row["answer"]] in text, row["id"]


def test_translations_are_all_combinations_of_two_words() -> None:
    """No translation is nearer to the others than the rest, so that a majority among them tells nothing."""
    for row in _rows("zhllama_translation"):
        english, chinese = zip(*(choice.split("\n中文：") for choice in row["choices"]), strict=True)
        assert set(english) == {f"英文：{row['about']}"}
        differing = [
            sum(sum(a != b for a, b in zip(one, other, strict=True)) > 0 for other in chinese)
            for one in chinese
        ]
        assert differing == [3, 3, 3, 3], row["id"]
        near = sorted(
            sum(a != b for a, b in zip(one, other, strict=True)) for one in chinese for other in chinese
        )
        assert near[4:8] and Counter(near)[0] == 4, row["id"]


def test_opinions_do_not_depend_on_place_or_conclusion() -> None:
    rows = _rows("zhllama_sentiment")
    assert Counter(row["about"] for row in rows) == {"good": 125, "bad": 125}
    pairs = Counter((row["about"], row["answer"]) for row in rows)
    assert pairs["good", 0] == pairs["bad", 0] and pairs["good", 1] == pairs["bad", 1]
    ends = Counter((row["about"], row["choices"][row["answer"]].rpartition("，")[2]) for row in rows)
    assert set(ends.values()) == {25}


def test_sentences_of_training_text_are_left_out(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text(
        "昨天下午我们一起去图书馆借了三本书。\n晚饭以后他坐在窗边给母亲写了一封信。", encoding="utf-8"
    )
    known = tmp_path / "train.txt"
    known.write_text(
        f"人们说，{'晚饭以后他坐在窗边给母亲写了一封信'[2 : 2 + OVERLAP]}，如此而已。", encoding="utf-8"
    )
    assert [s.text[:4] for s in sentences([own])].count("晚饭以后") == 1
    assert [s.text[:4] for s in sentences([own], [known])] == ["昨天下午"]


def test_chance_of_tasks_and_groups() -> None:
    def samples(*choices: int) -> list[dict[str, Any]]:
        return [{"arguments": [("", "")] * n} for n in choices]

    kinds = {
        "a": "multiple_choice",
        "b": "multiple_choice",
        "c": "generate_until",
        "twice": "multiple_choice",
    }
    evaluation = {
        "samples": {"a": samples(4, 4), "b": samples(2, 2, 2, 2), "c": samples(1), "twice": samples(8)},
        "configs": {
            name: {
                "output_type": kind,
                "metric_list": [{"metric": "acc_mutual_info" if name == "twice" else "acc"}],
            }
            for name, kind in kinds.items()
        },
        "group_subtasks": {"all": ["a", "b"], "more": ["all", "twice"], "a": []},
    }
    levels = chance_levels(evaluation)
    assert levels == {
        "a": 0.25, "b": 0.5, "twice": 0.25, "all": pytest.approx(2.5 / 6), "more": pytest.approx(2.75 / 7)
    }  # fmt: skip


def test_scores_are_those_of_a_plain_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the old and the grown vocabulary: lm-eval's choice is the one of fewest bits per character by `zhllama eval`'s own sum."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    base = write_model(tmp_path / "base")
    grow(base, write_tokenizer(larger_vocabulary(), tmp_path / "larger"), tmp_path / "grown")
    n = 12
    for folder in ("base", "grown"):
        done = line(
            tmp_path, "eval", folder, "--tasks", "zhllama_zh", "--task-path", FOLDER, "--samples", n, "--json"
        )
        assert done.code == 0, done.err
        scores = {score["task"]: score for score in json.loads(done.out)["tasks"]}
        model, tokenizer = open_model(tmp_path / folder).model, load_any_tokenizer(tmp_path / folder)
        total = []
        for name in NAMES:
            right = []
            for row in _rows(name)[:n]:
                bits = [measure_bits(model, tokenizer, choice).per_character for choice in row["choices"]]
                right.append(min(range(len(bits)), key=bits.__getitem__) == row["answer"])
            total += right
            share = sum(right) / n
            assert scores[name]["value"] == pytest.approx(share), (folder, name)
            assert scores[name]["error"] == pytest.approx(math.sqrt(share * (1 - share) / (n - 1))), name
            assert scores[name]["chance"] == (0.5 if name == "zhllama_sentiment" else 0.25)
        assert scores["zhllama_zh"]["value"] == pytest.approx(sum(total) / len(total))
        assert scores["zhllama_zh"]["chance"] == pytest.approx(0.3125)


def test_scores_of_a_uniform_model_are_comparable(tmp_path: Path) -> None:
    """A model without any knowledge scores a text by its number of tokens; per character, the vocabularies have one unit."""
    base = write_model(tmp_path / "base")
    grow(base, write_tokenizer(larger_vocabulary(), tmp_path / "larger"), tmp_path / "grown")
    text = _rows("zhllama_cloze")[0]["choices"][0]
    for folder, vocabulary in (("base", base_vocabulary()), ("grown", larger_vocabulary())):
        model = open_model(tmp_path / folder).model
        with torch.no_grad():
            model.get_output_embeddings().weight.zero_()
        rows = model.get_output_embeddings().weight.shape[0]
        bits = measure_bits(model, load_any_tokenizer(tmp_path / folder), text)
        assert bits.per_character == pytest.approx(
            len(vocabulary.processor.encode(text)) * math.log2(rows) / len(text), rel=1e-5
        )
