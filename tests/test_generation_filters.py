"""Every filter, by the reason it gives, and beside it what it lets pass; the shelf's accounts."""

from pathlib import Path
from typing import Any

import pytest

from zhllama.corpus.filters import read_words
from zhllama.errors import InputError, OptionError
from zhllama.generation.filters import Rules, black_listed, in_simplified, personal_data, reason_against
from zhllama.generation.task_pool import TaskOrigin, TaskPool
from zhllama.generation.tasks import SeedTask, Task, read_seeds
from zhllama.resources import shipped

RULES = Rules(blacklist=read_words([shipped("prompts_zh", "blacklist.txt")])[0][1])
GOOD = "春天来了，河边的柳树发了新芽，孩子们在草地上放风筝。"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (Task("写诗", "", GOOD), "too short"),
        (Task("写一首诗", "", ""), "too short"),
        (Task("写" * 501, "", GOOD), "too long"),
        (Task("写一首诗", "写" * 2001, GOOD), "too long"),
        (Task("写一首关于春天的诗", "", "春夏秋冬" * 1001), "too long"),
        (Task("介绍一下北京", "", "北京的特点如下："), "cut off"),
        (Task("上网搜索今年的票房冠军", "", GOOD), "black list"),
        (Task("用chatgpt写一首诗", "", GOOD), "black list"),
        (Task("讲讲你的感受", "", "作为一个人工智能语言模型，我没有感受。"), "says it is an AI"),
        (Task("讲讲你的感受", "", "很抱歉，我只是一个AI助手，不能感受。"), "says it is an AI"),
        (Task("描述这张图片里的人", "", GOOD), "needs what is not there"),
        (Task("如图，求阴影部分的面积。", "", "阴影部分的面积是十二平方厘米。"), "needs what is not there"),
        (Task("打开以下链接并概括内容", "", GOOD), "needs what is not there"),
        (Task("把下面的句子改成被动句。", "", GOOD), "needs what is not there"),
        (
            Task("介绍一下春天", "", "Spring is the season after winter and before summer."),
            "too little Chinese",
        ),
        (Task("Write a poem about spring", "", GOOD), "too little Chinese"),
        (Task("Write a Python program", "", "print(1)"), "too little Chinese"),
        (Task("写一首长诗", "", "春天来了真是好呀。" * 20), "repeats"),
        (Task("润色这句话", "今天天气很好。", "今天天气很好。"), "input equals output"),
    ],
)
def test_turned_away(task: Task, reason: str) -> None:
    found = reason_against(task, RULES)
    assert found is not None and found[0] == reason
    assert reason_against(
        task, Rules(blacklist=RULES.blacklist, without=frozenset({reason}))
    ) is None or found[0] in ("too short", "too long")


@pytest.mark.parametrize(
    "task",
    [
        Task("写一首诗", "", GOOD),
        Task("把这句话译成英文", "今天很冷", "It is cold today."),
        Task("用Python写一个求和函数", "", "def add(a, b):\n    return a + b"),
        Task("判断情感是积极还是消极", "很好", "Positive"),
        Task("计算17乘以3", "", "51"),
        Task("把这些蔬菜按字母顺序排好", "Radish, Carrot, Potato", "Carrot, Potato, Radish"),
        Task("为以下文档想一个标题。", "全国今年植树两亿棵。", "植树两亿棵"),
        Task("写一篇五百字以下的短文，题目是春天", "", GOOD),
        Task("把下面的句子改成被动句：风吹走了帽子。", "", "帽子被风吹走了。"),
        Task("把下面的句子改成被动句。", "风吹走了帽子。", "帽子被风吹走了。"),
        Task("你觉得人会被机器取代吗", "", "作为人工智能专家，我认为不会。"),
        Task("解释画蛇添足的意思", "", "比喻做了多余的事，反而把事情弄坏。"),
        Task("写一则道歉信", "", "抱歉，昨天没有按时到场。"),
    ],
)
def test_passed(task: Task) -> None:
    assert reason_against(task, RULES) is None


def test_the_shipped_seeds_pass() -> None:
    turned = {
        s.id: found
        for s in read_seeds(shipped("seeds_zh", "seed_tasks.jsonl"))
        if (found := reason_against(s.task, RULES))
    }
    assert not turned


def test_simplified() -> None:
    assert in_simplified(Task("請翻譯這句話", "天氣很好", "乾坤")) == Task("请翻译这句话", "天气很好", "乾坤")
    about_scripts = Task("把这句话转成繁體字", "", "漢語")
    assert in_simplified(about_scripts) == about_scripts
    simple = Task("瞭望塔是什么", "", "毕昇发明了活字印刷术，这一点人所共知，瞭望塔则不同。")
    assert in_simplified(simple) == simple


def test_personal_data() -> None:
    assert personal_data(Task("写信", "", "请寄到 someone@example.com，电话 138 1234 5678")) == [
        "e-mail",
        "telephone",
    ]
    assert personal_data(Task("查", "110101199003077758", "")) == ["identity card"]
    assert personal_data(Task("查", "110101199003077759", "")) == []  # whose check digit is wrong
    assert personal_data(Task("算", "", "答案是 13812345678901。")) == []
    assert personal_data(Task("填写 [邮箱] 一栏", "", "好")) == []


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"without": frozenset({"ugly"})}, "without ugly"),
        ({"threshold": 0.0}, "threshold"),
        ({"min_han": 2.0}, "min_han"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], where: str) -> None:
    with pytest.raises(OptionError) as error:
        Rules(**options)
    assert error.value.where == where


def test_blacklist_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("# 注释\n股票\nGPT\n\n", encoding="utf-8")
    words = read_words([tmp_path / "mine"])[0][1]
    assert words == ("股票", "gpt")
    assert black_listed(Task("gpt 是什么", "", "好"), Rules(blacklist=words)) == "gpt"
    (tmp_path / "mine").write_text("# 注释\n", encoding="utf-8")
    for name in ("mine", "none"):
        with pytest.raises(InputError):
            read_words([tmp_path / name])


def shelf(wanted: int = 10, **rules: Any) -> tuple[TaskPool, list[dict[str, Any]]]:
    rejected: list[dict[str, Any]] = []
    return TaskPool(
        Rules(**rules), [SeedTask("s1", Task("把句子译成英文", "", "好的好的"))], wanted, rejected.append
    ), rejected


def offer(on: TaskPool, *tasks: Task) -> None:
    for place, task in enumerate(tasks):
        on.offer(task, TaskOrigin(0, 0, place))


def test_duplicates_and_accounts() -> None:
    on, rejected = shelf(wanted=3)
    offer(
        on,
        Task("介绍春天的特点", "", GOOD),
        Task("介绍春天的特点", "", GOOD),
        Task("介绍春天的特点", "", "春天很暖和。"),
        Task("介绍秋天的特点", "", GOOD),
        Task("把句子译成法文", "", "好"),
        Task("列出五种常见的交通工具", "", "汽车、火车、轮船、飞机、自行车"),
        Task("為什麼天空是藍色的", "", "因為空氣分子散射藍光。"),
        Task("说说怎样养好一盆兰花", "", "少浇水，多通风。"),
    )
    assert [(r["id"], r["reason"]) for r in rejected] == [
        ("0.0.1", "duplicate"), ("0.0.2", "same input, other output"), ("0.0.3", "near duplicate"),
        ("0.0.4", "near duplicate"), ("0.0.7", "surplus"),
    ]  # fmt: skip
    assert rejected[2]["detail"] == "0.857 to 0.0.0" and rejected[3]["detail"] == "0.857 to seed s1"
    assert on.candidates == len(on.kept) + on.rejected == 8 and on.full
    assert on.kept[2].task.instruction == "为什么天空是蓝色的" and on.flags == {"was Traditional": 1}


def test_duplicates_may_be_let_in() -> None:
    on, rejected = shelf(
        without=frozenset({"near duplicate", "same input, other output"}), keep_traditional=True
    )
    offer(
        on,
        Task("介绍春天的特点", "", GOOD),
        Task("介绍春天的特点", "", "春天很暖和。"),
        Task("介绍春天的特點", "", "春天很暖和。"),
    )
    assert len(on.kept) == 3 and not rejected and on.kept[2].task.instruction == "介绍春天的特點"


def test_personal_data_is_flagged_or_dropped() -> None:
    task = Task("写一封求职信的结尾", "", "期待您的回复，邮箱 me@example.com。")
    on, _ = shelf()
    offer(on, task)
    assert on.kept[0].flags == ("e-mail",)
    on, rejected = shelf(drop_personal=True)
    offer(on, task)
    assert rejected[0]["reason"] == "personal data"
