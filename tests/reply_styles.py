"""Styles in which models write tasks: each renders any tasks as a reply. tests/test_reply_styles.py reads them back."""

import json
from collections.abc import Callable, Sequence

from zhllama.generation.tasks import Task

Render = Callable[[Sequence[Task]], str]
FIRST = 4  # the number of the first task: three are shown in the prompt
HAN = ["零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十"]


def han(number: int) -> str:
    if number <= 10:
        return HAN[number]
    tens, ones = divmod(number, 10)
    return (HAN[tens] if tens > 1 else "") + "十" + (HAN[ones] if ones else "")


def circled(number: int) -> str:
    return chr(0x2460 + number - 1) if number <= 20 else chr(0x3251 + number - 21)


def roman(number: int) -> str:
    tens, ones = divmod(number, 10)
    return "X" * tens + ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"][ones]


def fullwidth(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "０１２３４５６７８９"))


def keycap(number: int) -> str:
    return "".join(f"{digit}\ufe0f\u20e3" for digit in str(number))


def blocks(
    template: str,
    between: str = "\n\n",
    before: str = "",
    after: str = "",
    none: str = "<无>",
    last: str | None = None,
) -> Render:
    """A style with one text per task: `template` has the fields n, han, circled, ..., instruction, input and output."""

    def render(tasks: Sequence[Task]) -> str:
        texts = [
            template.format(
                n=number, next=number + 1, han=han(number), circled=circled(number), roman=roman(number), full=fullwidth(number), keycap=keycap(number),
                instruction=task.instruction, input=task.input or none, output=task.output,
            )
            for number, task in enumerate(tasks, FIRST)
        ]  # fmt: skip
        return before + between.join(texts) + after

    return render


def as_json(
    keys: tuple[str, str, str] = ("instruction", "input", "output"),
    indent: int | None = None,
    before: str = "",
    after: str = "",
    wrapper: str | None = None,
    lines: bool = False,
    each: str = "{}",
    more: bool = False,
) -> Render:
    def render(tasks: Sequence[Task]) -> str:
        rows = [
            {
                **({"id": number, "category": "写作"} if more else {}),
                **dict(zip(keys, (task.instruction, task.input, task.output), strict=True)),
            }
            for number, task in enumerate(tasks, FIRST)
        ]
        if lines:
            body = "\n".join(
                each.replace("{}", json.dumps(row, ensure_ascii=False, indent=indent)) for row in rows
            )
        else:
            body = json.dumps({wrapper: rows} if wrapper else rows, ensure_ascii=False, indent=indent)
        return before + body + after

    return render


PLAIN = "{n}. 指令：{instruction}\n{n}. 输入：{input}\n{n}. 输出：{output}"
BARE = "指令：{instruction}\n输入：{input}\n输出：{output}"
BOLD = "**指令：**{instruction}\n**输入：**{input}\n**输出：**{output}"
BOLD_OUTSIDE = "**指令**：{instruction}\n**输入**：{input}\n**输出**：{output}"
BELOW = "#### 指令\n{instruction}\n\n#### 输入\n{input}\n\n#### 输出\n{output}"


def each_label(number: str, gap: str = " ") -> str:
    return "\n".join(f"{number}{gap}{label}：{{{key}}}" for label, key in (("指令", "instruction"), ("输入", "input"), ("输出", "output")))  # fmt: skip


STYLES: dict[str, Render] = {
    # the prompt's own style, and numbers before each label
    "exact": blocks("###\n" + PLAIN, "\n", after="\n"),
    "between separators": blocks(PLAIN, "\n###\n"),
    "no separators": blocks(PLAIN, "\n"),
    "blank lines": blocks(PLAIN),
    "separator at the end": blocks("###\n" + PLAIN, "\n", after="\n###\n"),
    "full-width digits": blocks("###\n" + each_label("{full}．"), "\n"),
    "enumeration comma": blocks("###\n" + each_label("{n}、", ""), "\n"),
    "parenthesis after": blocks(each_label("{n})")),
    "parentheses": blocks(each_label("({n})")),
    "full-width parentheses": blocks(each_label("（{n}）", "")),
    "Han numbers": blocks("###\n" + each_label("{han}、", ""), "\n"),
    "Han numbers in parentheses": blocks(each_label("（{han}）", "")),
    "circled numbers": blocks(each_label("{circled}")),
    "Roman numbers": blocks(each_label("{roman}.")),
    "keycaps": blocks(each_label("{keycap}")),
    "brackets around numbers": blocks(each_label("[{n}]")),
    "第4题": blocks(each_label("第{n}题：", "")),
    "bold labels with numbers": blocks("**{n}. 指令：** {instruction}\n**{n}. 输入：** {input}\n**{n}. 输出：** {output}"),
    "bold numbers": blocks("**{n}.** 指令：{instruction}\n**{n}.** 输入：{input}\n**{n}.** 输出：{output}"),
    "hashes before each label": blocks("### {n}. 指令：{instruction}\n### {n}. 输入：{input}\n### {n}. 输出：{output}"),
    # the number after the label
    "指令4": blocks("###\n指令{n}：{instruction}\n输入{n}：{input}\n输出{n}：{output}", "\n"),
    "指令 4": blocks("指令 {n}：{instruction}\n输入 {n}：{input}\n输出 {n}：{output}"),
    "指令（四）": blocks("指令（{han}）：{instruction}\n输入（{han}）：{input}\n输出（{han}）：{output}"),
    "指令4, then without": blocks("指令{n}：{instruction}\n输入：{input}\n输出：{output}"),
    "任务4：the instruction": blocks("任务{n}：{instruction}\n输入：{input}\n输出：{output}"),
    # the number on the first label
    "first label": blocks("{n}. 指令：{instruction}\n输入：{input}\n输出：{output}"),
    "first label, others indented": blocks("{n}. 指令：{instruction}\n   输入：{input}\n   输出：{output}"),
    "first label, others bulleted": blocks("{n}. **指令**：{instruction}\n   - **输入**：{input}\n   - **输出**：{output}"),
    "first label, Han": blocks("{han}、指令：{instruction}\n输入：{input}\n输出：{output}"),
    "first label, circled": blocks("{circled} 指令：{instruction}\n输入：{input}\n输出：{output}"),
    # no number
    "bare": blocks(BARE),
    "bare, rules": blocks(BARE, "\n\n---\n\n"),
    "bare, equals signs": blocks(BARE, "\n==========\n"),
    "bare, ###": blocks("###\n" + BARE, "\n"),
    "bare, half-width colons": blocks("指令: {instruction}\n输入: {input}\n输出: {output}"),
    "bold": blocks(BOLD),
    "bold, colon outside": blocks(BOLD_OUTSIDE, "\n\n---\n\n", after="\n\n---"),
    "square brackets": blocks("【指令】{instruction}\n【输入】{input}\n【输出】{output}"),
    "square brackets and colons": blocks("【指令】：{instruction}\n【输入】：{input}\n【输出】：{output}"),
    "bullets": blocks("- 指令：{instruction}\n- 输入：{input}\n- 输出：{output}"),
    "emoji": blocks("📌 指令：{instruction}\n📥 输入：{input}\n📤 输出：{output}"),
    "labels above": blocks("指令：\n{instruction}\n输入：\n{input}\n输出：\n{output}"),
    # a heading for each task
    "任务4：": blocks("任务{n}：\n" + BARE),
    "任务四": blocks("任务{han}\n" + BARE),
    "**任务4**": blocks("**任务{n}**\n\n" + BOLD, "\n\n---\n\n", after="\n\n---"),
    "### 任务 4": blocks("### 任务 {n}\n" + BARE),
    "### 任务 4 with labels below": blocks("### 任务 {n}\n\n" + BELOW),
    "### 4.": blocks("### 4.\n".replace("4", "{n}") + BELOW),
    "4.": blocks("{n}.\n" + BARE),
    "4. and bullets": blocks("{n}. \n- 指令：{instruction}\n- 输入：{input}\n- 输出：{output}"),
    "四、": blocks("{han}、\n" + BARE),
    "（4）": blocks("（{n}）\n" + BARE),
    "④": blocks("{circled}\n" + BARE),
    "第4道": blocks("第{n}道：\n" + BARE),
    "### 第四题": blocks("### 第{han}题\n" + BOLD_OUTSIDE),
    "示例4": blocks("示例{n}\n" + BARE),
    "【任务4】": blocks("【任务{n}】\n" + BARE),
    "## Task 4": blocks("## Task {n}\nInstruction: {instruction}\nInput: {input}\nOutput: {output}", none="<none>"),
    "heading with a title": blocks("### 任务{n}：综合类\n" + BOLD_OUTSIDE),
    "category before each task": blocks("{n}.\n类型：写作\n" + BARE),
    "### 4 and rules": blocks("### {n}\n" + BARE, "\n\n***\n\n"),
    # fences
    "one fence": blocks("###\n" + PLAIN, "\n", before="```\n", after="\n```"),
    "one fence with a language": blocks(BARE, before="好的：\n```text\n", after="\n```\n希望对您有帮助！"),
    "a fence for each task": blocks("```\n" + BARE + "\n```"),
    "a fence for each task with a heading": blocks("**任务{n}**\n```\n" + BARE + "\n```"),
    # chatter
    "opening": blocks("###\n" + PLAIN, "\n", before="好的，以下是第4道到第20道任务：\n\n"),
    "closing after a rule": blocks("###\n" + PLAIN, "\n", after="\n\n---\n\n以上共 17 道任务，希望对您有所帮助！"),
    "thought": blocks("###\n" + PLAIN, "\n", before="<think>\n4. 指令：假的\n4. 输出：不是\n</think>\n\n"),
    "thought without opening": blocks(PLAIN, before="想一想。\n4. 指令：假的\n4. 输出：不是\n</think>\n\n"),
    "<thinking> after a greeting": blocks(PLAIN, before="好的。\n<thinking>\n4. 指令：假的\n4. 输出：不是\n</thinking>\n"),
    # other words and scripts
    "Traditional labels": blocks("###\n{n}. 指令：{instruction}\n{n}. 輸入：{input}\n{n}. 輸出：{output}", "\n", none="<無>"),
    "问题 and 回答": blocks("{n}. 问题：{instruction}\n输入：{input}\n回答：{output}"),
    "問題 and 答案": blocks("問題{n}：{instruction}\n輸入：{input}\n答案：{output}", none="無"),
    "Instruction": blocks("### Instruction:\n{instruction}\n### Input:\n{input}\n### Output:\n{output}", none="N/A"),
    "Instruction and Response": blocks("Instruction: {instruction}\nInput: {input}\nResponse: {output}", none="none"),
    "任务描述": blocks("任务描述：{instruction}\n输入：{input}\n参考答案：{output}", none="无需输入"),
    "无 as input": blocks(PLAIN, none="无"),
    "不需要 as input": blocks(PLAIN, none="不需要"),
    "略 as input": blocks(PLAIN, none="（略）"),
    # tags and JSON
    "tags": blocks("<指令>{instruction}</指令>\n<输入>{input}</输入>\n<输出>{output}</输出>"),
    "English tags": blocks("<task{n}>\n<instruction>\n{instruction}\n</instruction>\n<input>\n{input}\n</input>\n<output>\n{output}\n</output>\n</task{n}>"),
    "JSON": as_json(),
    "JSON, indented": as_json(indent=2),
    "JSON in a fence": as_json(before="```json\n", after="\n```"),
    "JSON after a sentence": as_json(indent=2, before="好的，以下是任务：\n\n```json\n", after="\n```\n希望对您有帮助！"),
    "JSON on the line of a sentence": as_json(before="以下是任务：", after="\n以上共17道。"),
    "JSON in an object": as_json(wrapper="tasks"),
    "JSON in a Chinese object": as_json(keys=("指令", "输入", "输出"), wrapper="任务列表"),
    "JSON Lines": as_json(lines=True),
    "JSON in a fence each": as_json(lines=True, indent=2, each="```json\n{}\n```\n"),
    "Chinese keys": as_json(keys=("指令", "输入", "输出")),
    "Traditional keys": as_json(keys=("指令", "輸入", "輸出")),
    "question and answer keys": as_json(keys=("问题", "输入", "回答")),
    "JSON with ids": as_json(more=True),
}  # fmt: skip
