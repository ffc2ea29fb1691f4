"""The near-duplicate index decides as rouge_score does, on random pairs and on pairs near the threshold."""

import random
from collections.abc import Iterator
from itertools import islice

import pytest
from rouge_score import rouge_scorer

from zhllama.generation.near_duplicates import NearDuplicate, NearDuplicateIndex, tokens

LETTERS = "把下面的句子翻译成英文法语请写一首诗关于春天与秋解释成语判断评论是好差计算面积"
WORDS = ["Python", "SQL", "a", "3", "100", "word2vec", "é", "がな", "한글"]


class Characters:
    """Our tokens as a tokenizer for rouge_score."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


def f_measure(one: str, other: str) -> float:
    return float(
        rouge_scorer.RougeScorer(["rougeL"], tokenizer=Characters()).score(one, other)["rougeL"].fmeasure
    )


def texts(chance: random.Random) -> Iterator[str]:
    """Random texts, and mutations of earlier ones that end up about 0.7 from them."""
    made: list[str] = []
    while True:
        if chance.random() < 0.2:
            # Seven of ten tokens in common, or fourteen of twenty: exactly 0.7 from the bare run of letters.
            length = chance.choice((10, 20))
            units = list(LETTERS[:length])
            for at in chance.sample(range(length), chance.choice((0, length * 3 // 10))):
                units[at] = chance.choice("甲乙丙丁")
            made.append("".join(units))
        elif made and chance.random() < 0.7:
            units = list(chance.choice(made[:20]))
            for _ in range(round(len(units) * chance.choice((0, 0.1, 0.2, 0.3, 0.4)))):
                at = chance.randrange(len(units) + 1)
                act = chance.randrange(4)
                if act == 0:
                    units.insert(at, chance.choice(LETTERS))
                elif act == 1 and units:
                    del units[min(at, len(units) - 1)]
                elif act == 2 and units:
                    units[min(at, len(units) - 1)] = chance.choice(LETTERS)
                elif chance.random() < 0.1:
                    units.reverse()
            made.append("".join(units))
        elif chance.random() < 0.1:
            made.append(
                chance.choice(
                    (
                        "",
                        "？！",
                        "的" * chance.randrange(1, 30),
                        "的一" * 9,
                        "譯譯譯",
                        " ",
                        "A a A",
                        "\U00020000\U00030000",
                    )
                )
            )
        else:
            units = chance.choices(LETTERS[: chance.choice((3, 10, 40))], k=chance.randrange(1, 24))
            units.insert(chance.randrange(len(units)), f" {chance.choice(WORDS)} ")
            made.append("".join(units))
        yield made[-1]


def compared(pairs: int, threshold: float) -> tuple[int, int, int]:
    """Pairs compared, those at or above the threshold, those exactly at it; every decision is asserted."""
    chance = random.Random(pairs)
    pool, known, near, exact, done = NearDuplicateIndex(threshold), list[list[str]](), 0, 0, 0
    for text in texts(chance):
        cut = tokens(text)
        scores = [rouge_scorer._score_lcs(other, cut).fmeasure for other in known]
        best = max(scores, default=0.0)
        expected = NearDuplicate(scores.index(best), best) if best >= threshold else None
        assert pool.find(text) == expected, (text, expected)
        near += sum(score >= threshold for score in scores)
        exact += sum(score == threshold for score in scores)
        done += len(scores)
        if done >= pairs:
            return done, near, exact
        if len(known) < 200:
            pool.add(text)
            known.append(cut)
    raise AssertionError


def test_decisions_are_those_of_rouge_score() -> None:
    for threshold in (0.7, 0.5, 0.9, 1.0):
        done, near, _ = compared(4000, threshold)
        assert done >= 4000 and (near > 20 or threshold > 0.7), near


@pytest.mark.slow
def test_decisions_over_200_000_pairs() -> None:
    done, near, exact = compared(200_000, 0.7)
    print(f"{done} pairs, {near} near, {exact} at exactly 0.7")
    assert near > 2000 and exact > 100


def test_the_reference_itself() -> None:
    assert f_measure("把下面的句子翻译成英文", "把下面的句子翻译成法文") == 2 * (10 / 11) * (10 / 11) / (
        10 / 11 + 10 / 11
    )
    assert f_measure("繁體字", "繁体字") == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("用Python写一个排序程序", ["用", "python", "写", "一", "个", "排", "序", "程", "序"]),
        ("ＡＢＣ１２３，翻譯！", ["abc123", "翻", "译"]),
        ("3.14 は円周率", ["3", "14", "は", "円", "周", "率"]),
        ("？…—", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_nearest_neighbor() -> None:
    pool = NearDuplicateIndex()
    for text in ("把句子译成英文", "把句子译成法文", "完全无关"):
        pool.add(text)
    assert pool.nearest(0) == pool.nearest(1) == f_measure("把句子译成英文", "把句子译成法文")
    assert pool.nearest(2) == 0.0
    assert NearDuplicateIndex().find("什么都没有") is None


def test_texts_helper_makes_many_kinds() -> None:
    assert len(set(islice(texts(random.Random(1)), 500))) > 300
