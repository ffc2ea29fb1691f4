"""Parsing replies as models really write them: which parts are tasks, and which are unreadable."""

import random
import time

import pytest

from zhllama.generation.parse_replies import (
    ParsedTask,
    Unreadable,
    normalize_empty,
    parse_instances,
    parse_list,
    parse_question,
    parse_ranking,
    parse_tasks,
    parse_yes_no,
    strip_thinking,
)
from zhllama.generation.tasks import Task

PLAIN = """###
4. 指令：把句子译成英文。
4. 输入：今天很冷。
4. 输出：It is cold today.
###
5. 指令：列出两种水果。
5. 输入：<无>
5. 输出：1. 苹果
2. 梨
"""
TWO: list[ParsedTask] = [
    Task("把句子译成英文。", "今天很冷。", "It is cold today."),
    Task("列出两种水果。", "", "1. 苹果\n2. 梨"),
]
OBJECT = '{"tasks": [{"instruction": "把句子译成英文。", "input": "今天很冷。", "output": "It is cold today."}, {"instruction": "列出两种水果。", "input": "", "output": "1. 苹果\\n2. 梨"}'


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("###\n", ""),
        PLAIN.replace("：", ":"),
        PLAIN.replace("4.", "9.").replace("5. 指令", "2. 指令"),
        PLAIN.replace("\n", "\r\n"),
        "好的，下面是任务：\n\n" + PLAIN + "\n###\n",
        PLAIN.replace("4. ", "").replace("5. ", ""),
        PLAIN.replace("4. 指令：", "**4. 指令：**").replace("4. 输入：", "**4. 输入**："),
        PLAIN.replace("###\n4.", "### 4.")
        .replace("指令", "Instruction")
        .replace("输入：", "Input: ")
        .replace("输出", "Output"),
        OBJECT + "]}",
        "```json\n" + OBJECT + "]}\n```",
        OBJECT[len('{"tasks": ') :] + "]",
    ],
)
def test_tasks(text: str) -> None:
    said = strip_thinking(text)
    assert isinstance(said, str) and parse_tasks(said) == TWO


def test_incomplete_json_gives_its_complete_tasks() -> None:
    assert parse_tasks(OBJECT) == TWO
    assert parse_tasks(OBJECT + ', {"instruction": "写') == [
        *TWO,
        Unreadable('{"instruction": "写', "half JSON"),
    ]
    broken = OBJECT.replace('"input": "今', '"input: "今') + "]}"
    first, second = parse_tasks(broken)
    assert isinstance(first, Unreadable) and first.reason == "half JSON" and second == TWO[1]


def test_labels_inside_an_output_are_text() -> None:
    text = "1. 指令：写一个求和程序，并举例。\n1. 输入：<无>\n1. 输出：print(sum(xs))\n输入：1 2\n输出：3\n2. 指令：再来\n2. 输出：好"
    assert parse_tasks(text) == [
        Task("写一个求和程序，并举例。", "", "print(sum(xs))\n输入：1 2\n输出：3"),
        Task("再来", "", "好"),
    ]
    # The input of one task again in the same block: the first counts, and the rest is text.
    assert parse_tasks("指令：甲\n输入：乙\n输出：丙\n输入：丁") == [Task("甲", "乙", "丙\n输入：丁")]


def test_missing_fields_are_reported() -> None:
    assert parse_tasks("") == [Unreadable("", "no task in the reply")]
    assert parse_tasks("好的，没问题！") == [Unreadable("好的，没问题！", "no task in the reply")]
    assert parse_tasks("1. 指令：写诗\n2. 指令：\n2. 输出：好") == [
        Unreadable("写诗", "no output"),
        Unreadable("好", "no instruction"),
    ]
    assert parse_tasks('[{"instruction": 3, "output": "好"}]') == [
        Unreadable('{"instruction": 3, "output": "好"}', "no instruction or no output")
    ]
    assert [type(p) for p in parse_tasks('{"tasks": [1, null, {"instruction": "甲", "output": "乙"}]}')] == [
        Unreadable,
        Unreadable,
        Task,
    ]


def test_a_completion_starts_without_the_first_label() -> None:
    assert parse_tasks(PLAIN.removeprefix("###\n4. 指令："), label_in_prompt=True) == TWO
    assert parse_instances("甲", "乙\n输出：丙", label_first=False, label_in_prompt=True) == [
        Task("甲", "乙", "丙")
    ]
    assert parse_list(" 写诗。\n10. 作画。", label_in_prompt=True) == ["写诗。", "作画。"]


def test_instances() -> None:
    text = "输入：你好\n输出：Hello\n输入：<无>\n输出：无"
    assert parse_instances("译", text, label_first=False) == [
        Task("译", "你好", "Hello"),
        Task("译", "", "无"),
    ]
    text = "标签：好评\n输入：很好吃\n标签：差评\n输入：太咸"
    assert parse_instances("判", text, label_first=True) == [
        Task("判", "很好吃", "好评"),
        Task("判", "太咸", "差评"),
    ]
    assert parse_instances("判", "标签：好评", label_first=True) == [
        Unreadable("好评", "a label without input")
    ]
    assert parse_instances("判", "标签：好评\n输入：\n", label_first=True) == [
        Unreadable("好评", "a label without input")
    ]
    # The instruction alone may say what is to be classified.
    assert parse_instances("51是质数吗", "标签：不是\n输入：<无>", label_first=True) == [
        Task("51是质数吗", "", "不是")
    ]
    assert parse_instances("判", "不会", label_first=True) == [Unreadable("不会", "no instance in the reply")]


def test_questions_and_lists() -> None:
    assert parse_question("指令：改错\n输入：<无>") == Task("改错")
    assert parse_question("**指令**：改错\n\n**输入**：I is") == Task("改错", "I is")
    assert parse_question("改错") == Unreadable("改错", "no instruction")
    assert parse_list("当然：\n9. 写诗。\n10、指令：作画。\n\n3) **唱歌。**\n希望有用") == [
        "写诗。",
        "作画。",
        # Not the remark below it as a part of the instruction.
        Unreadable("唱歌。\n希望有用", "lines after the item"),
    ]
    assert parse_list("没有") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("是", True), ("否。", False), ("不是", False), ("Yes", True), ("嗯", None), ("", None)],
)
def test_parse_yes_no(text: str, said: bool | None) -> None:
    assert parse_yes_no(text) is said


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("2 > 1 = 3", [1, 0, 1]),
        ("排名：3＞1＞2", [1, 2, 0]),
        ("1 > 2", None),
        ("1 > 1 > 2 > 3", None),
        ("1>2>4", None),
        ("都好", None),
        ("", None),
    ],
)
def test_ranking(text: str, ranks: list[int] | None) -> None:
    assert parse_ranking(text, 3) == ranks


def test_strip_thinking() -> None:
    assert strip_thinking("<think>嗯\n</think>\n\n好") == "好"
    unending = strip_thinking("<think>嗯")
    assert isinstance(unending, Unreadable) and unending.reason == "the thought never ends"


@pytest.mark.parametrize("field", ["<无>", " 无。", "（无）", "None", "<noinput>", "N/A", ""])
def test_normalize_empty(field: str) -> None:
    assert normalize_empty(field) == ""
    assert normalize_empty("无锡") == "无锡"


HOSTILE = [" " * 300_000, "{" * 100_000, '{"tasks": [' * 30_000, '{"a":' * 60_000, "指令：" * 100_000, "\n" * 300_000, "1" * 300_000, "}   ," * 60_000,
           '{"a": "' + "x" * 300_000, "###\n" * 90_000, "* " * 150_000, "<think>" * 50_000, "1. 指令：甲\n1. 输出：" + " \n" * 150_000, "`" * 300_000]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_parsing_takes_linear_time(text: str) -> None:
    began = time.process_time()
    for read in (parse_tasks, parse_list, parse_question, parse_yes_no, strip_thinking):
        read(text)
    parse_instances("甲", text, label_first=True)
    parse_ranking(text, 3)
    assert time.process_time() - began < 3  # quadratic time would be minutes


def test_fragments_never_raise() -> None:
    chance = random.Random(3)
    scraps = [
        *PLAIN.split("\n"),
        *OBJECT.split(", "),
        "\n",
        "输出：",
        "**",
        "###",
        "{",
        "]",
        "\x00",
        "标签：",
        "\ufeff",
        "\u2028",
    ]
    for _ in range(2000):
        text = chance.choice(("\n", "", " ")).join(chance.choices(scraps, k=chance.randrange(1, 12)))
        assert (
            parse_tasks(text)
            and parse_tasks(text, label_in_prompt=True)
            and parse_instances("甲", text, chance.random() < 0.5)
        )
        assert parse_question(text) is not None and parse_list(text) is not None


@pytest.mark.parametrize("wrapper", ["task", "任务", "Task"])
def test_tags_around_whole_tasks_are_no_field(wrapper: str) -> None:
    task = "<instruction>写诗</instruction>\n<input></input>\n<output>春眠</output>"
    wrapped = f"<{wrapper}>\n{task}\n</{wrapper}>\n"
    assert parse_tasks(wrapped + wrapped.replace("写诗", "算术")) == [
        Task("写诗", "", "春眠"),
        Task("算术", "", "春眠"),
    ]
    for odd in (
        wrapped + task,
        wrapped.removesuffix(f"</{wrapper}>\n"),
        wrapped.replace("春眠", f"<b>春</b></{wrapper}>"),
    ):
        for found in parse_tasks(odd):
            assert not isinstance(found, Task) or found == Task("写诗", "", "春眠"), odd
