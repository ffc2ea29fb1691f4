"""Judges' replies as models write them: the verdict that was meant, or none; never another one."""

import random

import pytest

from zhllama.evaluation.read_verdict import read_choice, read_score


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("两个回答都对，A 更完整。\n结论：[[A]]\n\n（注：若只看简洁，[[B]] 也可以。）", "first"),
        ("结论：助手B的回答更好。", "second"),
        ("比较之后：[[A>B]]", "first"),
        ("[[A]]……不对，再看一遍，是 [[B]]。", None),
        ("结论：[[B>>A]]", "second"),
        ("结论：[[A=B]]", "tie"),
        ("結論：[[A]]", "first"),
        ("### 结论\n\n助手A更好。", "first"),
        ("结论：A 更好，因为它更完整。", "first"),
        ("结论：A 更好，不对，是 B。", None),
        ("初看是 [[A]]。\n最终结论：[[B]]", "second"),
        ("结论：[[A]]\n结论：[[B]]", None),
        ("结论：[[A]]\n最终结论：[[B]]", "second"),
        ("结论不是 [[A]]", None),
        ("如果只看简洁，选 [[B]]。", None),
        ("结论：[[A]] 不如 [[B]]", None),
        ("结论：[[A]] 不如 B", None),
        ("[[A]] 有错。\n结论：B 明显占优", None),
        ('{"winner": "B", "reason": "更完整"}', "second"),
        ('```json\n{"结论": "[[A]]"}\n```', "first"),
        ('{"winner": "A", "score": 7}', None),
        ("结论：助手A的回答更差。", None),
        ("Winner: Assistant A", "first"),
        ("暂不下结论：A", None),
        ("结论：A 比 B 好", "first"),
        ("结论：助手B的回答比助手A的回答更好。", "second"),
        ("结论：B 优于 A，理由更充分。", "second"),
        ("Verdict: Assistant A is better than Assistant B.", "first"),
        ("结论：B 略胜一筹", "second"),
        ("结论：A 没有 B 好", None),
        ("结论：A 比 B 差", None),
        ("结论：A 比 A 好", None),
        ("结论：A 比 B 好，但也可能相反", None),
        ("结论：A 并不比 B 好", None),
        ("1. A 更准确\n2. B 更短\n**结论**：B", "second"),
    ],
)
def test_choices(reply: str, verdict: str | None) -> None:
    assert read_choice(reply) == verdict


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"score": 7}', 7),
        ('评价如下：\n```json\n{"评分": "8", "理由": "好"}\n```', 8),
        ("評分（1-10）：7", 7),
        ("评分：7（满分10分）", 7),
        ("评分：7分，回答完整。", 7),
        ("评分：8，不对，应为 7", None),
        ("准确性得分：9\n完整性得分：6\n总分：7", 7),
        ("准确性得分：9\n完整性得分：6", None),
        ("初步评分：7\n最终评分：8", 8),
        ("评分：7\n评分：8", None),
        ("结论：[[7]]\n（注：严格些可给 [[5]]）", 7),
        ("Score: 7 out of 10", 7),
        ('{"score": true}', None),
        ('{"score_a": 7, "score_b": 8}', None),
    ],
)
def test_scores(reply: str, score: float | None) -> None:
    assert read_score(reply) == score


REASONS = [
    "两个回答都切题。", "A 的论据更充分，B 更简短。", "B 有一处事实错误。", "回答A结构清楚。", "先看 [[A]] 的长处：例子多。", "再看 [[B]] 的长处：简洁。", "正确性：A 9分，B 7分。",
    "如果只看简洁，[[B]] 也可以。", "不能说 [[A]] 毫无问题。", "准确性得分：8", "1. 正确：没有错误。", "按要求，结论写作“结论：[[A]]”一类。",
]  # fmt: skip
NOTES = [
    "（注：若只看简洁，[[{other}]] 也可以。）",
    "以上仅供参考。",
    "注意：[[{other}]] 同样有可取之处。",
    "感谢阅读！",
    "",
]


def generated(chance: random.Random, says: dict[str, list[str]]) -> tuple[str, str]:
    """A reply, and the verdict that its conclusion states."""
    meant = chance.choice(list(says))
    other = chance.choice([key for key in says if key != meant])
    label = chance.choice(
        (
            "结论：",
            "**结论：**",
            "結論：",
            "最终结论：",
            "### 结论\n",
            "Final verdict: ",
            "裁决：",
            "结论是：",
        )
    )
    said = chance.choice(says[meant])
    parts = chance.sample(REASONS, chance.randint(0, 4))
    note = chance.choice(NOTES).format(other=other)
    thought = f"<think>也许是 [[{other}]]\n结论：[[{other}]]</think>\n" if chance.random() < 0.3 else ""
    return thought + "\n".join(
        [*parts, label + said, *([chance.choice(("", "\n")) + note] if note else [])]
    ), meant


def test_no_generated_reply_gives_a_wrong_choice() -> None:
    chance, read = random.Random(20), 0
    says = {
        "A": ["[[A]]", "A", "助手A的回答更好。", "[[A>B]]", "A 更好，因为更完整。", "【A】", "[[Ａ]]", "A > B", "回答A胜出"],
        "B": ["[[B]]", "B", "助手B的回答更好。", "[[B>A]]", "B 更好，因为更完整。", "【B】", "[[A<B]]", "B > A", "回答B胜出"],
        "平局": ["[[平局]]", "平局", "[[C]]", "[[A=B]]", "不相上下。"],
    }  # fmt: skip
    for _ in range(1000):
        reply, meant = generated(chance, says)
        verdict = read_choice(reply)
        assert verdict in (None, {"A": "first", "B": "second", "平局": "tie"}[meant]), reply
        read += verdict is not None
    assert read >= 900


def test_no_generated_reply_gives_a_wrong_score() -> None:
    chance, read = random.Random(21), 0
    says = {str(n): [f"[[{n}]]", f"{n}", f"{n}分", f"{n}/10", f"**{n}**", f"[[{n}/10]]", f"{n}分（满分10分）"] for n in range(1, 11)}  # fmt: skip
    for _ in range(1000):
        reply, meant = generated(chance, says)
        score = read_score(reply)
        assert score in (None, float(meant)), reply
        read += score is not None
    assert read >= 900


def test_scores_in_chinese_numerals() -> None:
    for reply, score in (
        ("最终评分：七分", 7.0),
        ("评分：十分", 10.0),
        ("评分：七", None),
        ("评分：十二分", None),
        ("评分：零分", None),
    ):
        assert read_score(reply) == score, reply
