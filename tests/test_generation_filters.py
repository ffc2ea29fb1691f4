"""Generation filters: tasks that they reject, tasks that they accept, and the counts of the pool."""

from pathlib import Path
from typing import Any

import pytest

from tests.seed_checks import spaced
from zhllama.corpus.filters import read_words
from zhllama.errors import InputError, OptionError
from zhllama.generation.broken_characters import broken_characters
from zhllama.generation.contrasts import contrasts
from zhllama.generation.filters import (
    FilterOptions,
    convert_to_simplified,
    matches_blacklist,
    personal_data,
    rejection_reason,
)
from zhllama.generation.impossible_requests import read_acts
from zhllama.generation.missing_material import missing_material
from zhllama.generation.task_pool import TaskOrigin, TaskPool
from zhllama.generation.tasks import SeedTask, Task, read_seeds
from zhllama.resources import shipped

OPTIONS = FilterOptions(acts=read_acts(shipped("prompts_zh", "blacklist.txt")))
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
def test_rejected_tasks(task: Task, reason: str) -> None:
    found = rejection_reason(task, OPTIONS)
    assert found is not None and found[0] == reason
    assert rejection_reason(
        task, FilterOptions(acts=OPTIONS.acts, without=frozenset({reason}))
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
def test_accepted_tasks(task: Task) -> None:
    assert rejection_reason(task, OPTIONS) is None


def test_the_shipped_seeds_pass() -> None:
    turned = {
        s.id: found
        for s in read_seeds(shipped("seeds_zh", "seed_tasks.jsonl"))
        if (found := rejection_reason(s.task, OPTIONS))
    }
    assert not turned


def test_simplified() -> None:
    assert convert_to_simplified(Task("請翻譯這句話", "天氣很好", "乾坤")) == Task(
        "请翻译这句话", "天气很好", "乾坤"
    )
    about_scripts = Task("把这句话转成繁體字", "", "漢語")
    assert convert_to_simplified(about_scripts) == about_scripts
    simple = Task("瞭望塔是什么", "", "毕昇发明了活字印刷术，这一点人所共知，瞭望塔则不同。")
    assert convert_to_simplified(simple) == simple


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
def test_invalid_options(options: dict[str, Any], where: str) -> None:
    with pytest.raises(OptionError) as error:
        FilterOptions(**options)
    assert error.value.where == where


@pytest.mark.parametrize(
    "instruction",
    [
        # tasks.jinja invites questions about the present
        *("今天的天气怎么样？", "现在茅台的最新股价是多少？", "今天的新闻里最重要的是哪一条？", "告诉我北京的实时天气。"),
        # words that once rejected good tasks
        *("写一个上传文件的接口。", "二维码缺了一角，为什么还能扫出来？", "怎样让模型飞机飞得更稳？", "老人点击链接被骗了钱，怎么办？"),
        *("访问网站时显示404，可能是什么原因？", "遇到火灾，拨打电话报警时要说清哪几件事？", "设计一个拍摄一日三餐的短视频选题。"),
        *("二维码的原理是什么？", "介绍OpenAI的历史。", "写一个设定个闹钟的程序。", "上网的好处和坏处各有哪些？", "拍照软件怎样赚钱？"),
        *("用文字画一幅雪景。", "我想买两张电影票，怎样挑座位？", "“帮我打个电话”译成英文怎么说？", "不联网，回答地球有多大。"),
        *("怎样在安卓手机上截图？", "用Python写程序，每天发送邮件给值班的人。", "怎样设置才能让浏览器不自动下载附件？"),
    ],
)  # fmt: skip
def test_the_blacklist_agrees_with_the_prompts(instruction: str) -> None:
    assert matches_blacklist(Task(instruction, "", GOOD), OPTIONS) is None


@pytest.mark.parametrize(
    "instruction",
    ["画一幅山水画。", "拍一张晚霞。", "请上传你的简历。", "访问这个网站，概括内容。", "帮我定个闹钟。", "设定个闹钟。", "能不能帮我拍张照片？", "先打开空调。", "给老板发送一封邮件。", "把这份合同打印三份。", "请拨打电话订座。", "联网查询汇率。"],
)  # fmt: skip
def test_the_blacklist_rejects_what_words_alone_cannot_do(instruction: str) -> None:
    assert matches_blacklist(Task(instruction, "", GOOD), OPTIONS) is not None


@pytest.mark.parametrize(
    ("instruction", "word", "is_found"),
    [
        ("比较学生物理和化学的方法。", "生物", False),
        ("高中的生物怎么学？", "生物", True),
        ("ChatGPT是什么？", "gpt", False),
        ("股票怎么买？", "股票", True),
        ("他设定个闹钟。", "定个闹", False),
    ],
)
def test_words_of_a_list_match_whole_words(instruction: str, word: str, is_found: bool) -> None:
    options = FilterOptions(blacklist=(word,))
    assert (matches_blacklist(Task(instruction, "", GOOD), options) is not None) == is_found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("计算3×4。", "计算3÷4。"),
        ("解释“早”的近义词。", "解释“早”的反义词。"),
        ("用Python写冒泡排序。", "用Java写冒泡排序。"),
        ("求二十和三十的最大公约数。", "求二十和四十的最大公约数。"),
        ("判断x >= 3是否成立。", "判断x <= 3是否成立。"),
        ("从广州开车到深圳要多久？", "从深圳开车到广州要多久？"),
        ("这种药适合孕妇吗？请解释。", "这种药不适合孕妇吗？请解释。"),
        ("把大写字母改成小写字母。", "把小写字母改成大写字母。"),
        ("C语言怎样读文件？", "C++语言怎样读文件？"),
        ("写一篇八百字的作文，题目是《路》。", "写一篇1000字的作文，题目是《路》。"),
        ("怎样增强记忆力？说三点。", "怎样减弱记忆力？说三点。"),
        ("求1/2 + 1/3的值。", "求1/2 - 1/3的值。"),
        ("水的沸点为什么升高？", "水的沸点为什么降低？"),
    ],
)
def test_what_asks_for_something_else_is_no_near_duplicate(one: str, other: str) -> None:
    assert contrasts(one, other) and contrasts(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("写一首关于春天的诗", "请写首关于春天的诗"),
        ("列出3种水果", "列出三种水果"),
        ("比较Python和Java。", "比较Java和Python。"),
        ("用python写爬虫", "用 Python 写爬虫"),
        ("你能不能介绍一下故宫？", "你能介绍一下故宫？"),
        ("把下面的句子译成英文", "把上面的句子译成英文"),
        ("計算二十五的平方", "计算25的平方"),
        ("比较苹果和香蕉的营养。", "比较香蕉和苹果的营养。"),
        ("写一篇一千二百字的作文。", "写一篇1200字的作文。"),
    ],
)
def test_near_duplicates_stay_near_duplicates(one: str, other: str) -> None:
    assert not contrasts(one, other) and not contrasts(other, one)


def test_a_contrast_hides_no_other_near_duplicate() -> None:
    on, rejected = pool()
    offer(on, Task("计算3×4的结果是多少", "", "12"), Task("计算3÷4的结果是多少", "", "0.75"))
    offer(on, Task("请计算3÷4的结果是多少", "", "0.75"))
    assert len(on.accepted) == 2 and rejected[0]["detail"].endswith("to 0.0.1")


@pytest.mark.parametrize(
    ("text", "about", "is_broken"),
    [
        ("你好\ufffd", "", True),
        ("“\ufffd”叫替换字符。", "“\ufffd”是什么？", False),
        ("\ufffd好", "写一句问候。", True),
        ("你好\x00", "", True),
        ("一\n二\t三", "", False),
        ("½ × 3 ≈ 1.5，naïve café", "", False),
        ("ä½\xa0å¥½ï¼Œä¸–ç•Œ", "", True),
        ("你好，世界".encode().decode("gb18030", "ignore"), "", True),
        ("你好，世界，𠮷野家。👍🏽", "", False),
        ("\ud83d", "", True),
    ],
)
def test_broken_characters(text: str, about: str, is_broken: bool) -> None:
    assert (broken_characters(text, about) is not None) == is_broken
    found = rejection_reason(Task(about or "写一句话。", "", text), OPTIONS)
    assert (found is not None and found[0] == "broken characters") == is_broken


@pytest.mark.parametrize(
    ("instruction", "input", "is_missing"),
    [
        ("总结这篇文章。", "", True),
        ("总结这篇文章。", "某篇文章", True),
        ("总结这篇文章。", "昨天，市里的图书馆开放了。", False),
        ("把‹段落>译成英文。", "", True),
        ("把{{text}}译成英文。", "", True),
        ("概括【文章内容】的大意。", "", True),
        ("概括大意。", "（请在此处粘贴文章）", True),
        ("这段代码有什么错误？", "", True),
        ("介绍一下日本文学。", "", False),
        ("这道菜怎么做？先切土豆丝，再用醋泡。", "", False),
        ("填空：床前____光。", "", False),
        ("给出三种保持健康的方法。", "", False),
        ("提供一个反问句的例子。", "", False),
        ("给定一个整数数组，写函数求最大值。", "", False),
        ("写一个五句话以上的故事。", "", False),
        ("HTML5的<article>标签怎样用？", "", False),
        ("说说f(text)和g(input)的区别。", "", False),
    ],
)
def test_missing_material(instruction: str, input: str, is_missing: bool) -> None:
    assert (missing_material(instruction, input) is not None) == is_missing


def test_a_file_of_acts_names_the_line_without_a_verb(tmp_path: Path) -> None:
    (tmp_path / "acts.txt").write_text("# 注释\n画 / 图\n / 照片\n", encoding="utf-8")
    with pytest.raises(InputError, match="verb") as error:
        read_acts(tmp_path / "acts.txt")
    assert error.value.where.endswith("acts.txt:3")


def test_the_blacklist_has_one_spacing_rule() -> None:
    assert spaced(shipped("prompts_zh", "blacklist.txt").read_text(encoding="utf-8")) == []


def test_blacklist_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("# 注释\n股票\nGPT\n\n", encoding="utf-8")
    words = read_words([tmp_path / "mine"])[0][1]
    assert words == ("股票", "gpt")
    assert matches_blacklist(Task("gpt 是什么", "", "好"), FilterOptions(blacklist=words)) == "gpt"
    (tmp_path / "mine").write_text("# 注释\n", encoding="utf-8")
    for name in ("mine", "none"):
        with pytest.raises(InputError):
            read_words([tmp_path / name])


def pool(wanted: int = 10, **rules: Any) -> tuple[TaskPool, list[dict[str, Any]]]:
    rejected: list[dict[str, Any]] = []
    return TaskPool(
        FilterOptions(**rules),
        [SeedTask("s1", Task("把句子译成英文", "", "好的好的"))],
        wanted,
        rejected.append,
    ), rejected


def offer(on: TaskPool, *tasks: Task) -> None:
    for place, task in enumerate(tasks):
        on.offer(task, TaskOrigin(0, 0, place))


def test_duplicates_and_counts() -> None:
    on, rejected = pool(wanted=3)
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
    assert on.candidates == len(on.accepted) + on.rejected == 8 and on.full
    assert on.accepted[2].task.instruction == "为什么天空是蓝色的" and on.flags == {"was Traditional": 1}


def test_duplicate_filters_can_be_disabled() -> None:
    on, rejected = pool(
        without=frozenset({"near duplicate", "same input, other output"}), keep_traditional=True
    )
    offer(
        on,
        Task("介绍春天的特点", "", GOOD),
        Task("介绍春天的特点", "", "春天很暖和。"),
        Task("介绍春天的特點", "", "春天很暖和。"),
    )
    assert len(on.accepted) == 3 and not rejected and on.accepted[2].task.instruction == "介绍春天的特點"


def test_personal_data_is_flagged_or_dropped() -> None:
    task = Task("写一封求职信的结尾", "", "期待您的回复，邮箱 me@example.com。")
    on, _ = pool()
    offer(on, task)
    assert on.accepted[0].flags == ("e-mail",)
    on, rejected = pool(drop_personal=True)
    offer(on, task)
    assert rejected[0]["reason"] == "personal data"
