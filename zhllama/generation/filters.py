"""What a task is turned away for: each filter returns the detail of its reason, or None where the task passes."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from zhllama.characters import han
from zhllama.corpus.edits import EMAIL, ID, PHONE, masked
from zhllama.errors import OptionError
from zhllama.generation.options import GenerationFilters
from zhllama.generation.similarity import simplified
from zhllama.generation.tasks import Task

_LETTER = re.compile(r"[^\W\d_]")
_OTHER_SCRIPT = re.compile(
    r"翻译|译成|译为|译作|英译|[英日韩法德俄西]文|[英日韩法德俄]语|西班牙语|拼音|单词|代码|编程|编写.{0,8}(?:程序|脚本|函数)|程序|函数|脚本|正则"
    r"|python|java|sql|html|css|json|xml|yaml|markdown|shell|linux|git|c\+\+|excel|latex|api|算法|命令|公式|化学式|方程",
    re.IGNORECASE,
)
_SCRIPT_TASK = re.compile(r"繁[体體]|简[体體]字|正[体體]字|异体字|[简繁]转[简繁]")
_IS_AI = re.compile(
    r"\A.{0,12}?(?:作为|身为|我(?:只|仅仅|仅)?是)(?:一个|一名|一位|一款|一种|由)?.{0,14}?(?:AI|人工智能|语言模型|大模型|智能助手|聊天机器人)"
    r"(?!专家|工程师|研究|领域|技术|产品|行业|公司|专业|课程|爱好者|从业|老师|教师|学)",
    re.IGNORECASE | re.DOTALL,
)
_THING = r"(?:图片|图像|照片|插图|截图|图表|图形|音频|录音|视频|影片|附件|文件|文档|链接|网页|网址|表情包)"
_ABSENT = re.compile(
    rf"(?:如|见|看|下|上|附|右|左)图|(?:这|那|该|此|下面的?|以下的?|上述|给定的?|所给的?|提供的?|附上?的?|上传的?)(?:一)?[张幅个段份篇条]?{_THING}"
)
_MAY_BE_TEXT = ("文档", "文件", "图表", "图形")  # and then stand in the input
_REFERS = re.compile(
    r"(?:(?<![字岁度元个米级人分年天])以下|下面|下列|给定|所给|如下)(?:的|这|几|一|两|三|四|五|些|段|篇|个|句|组|条|首|则)*\w"
)
_CARRIES = re.compile(r"[：:“「『《\"\n（(]|——")
_PERSONAL = {EMAIL: "e-mail", PHONE: "telephone", ID: "identity card"}
GRAM = 8  # characters; more than `most_repeats` of them seen before is a loop
FEW = 10  # letters: a shorter answer is too short for a share of Han to mean anything


@dataclass(frozen=True)
class Rules:
    """The filters' options; lengths in characters, shares from 0 to 1."""

    min_instruction: int = GenerationFilters.min_instruction
    max_instruction: int = GenerationFilters.max_instruction
    max_input: int = GenerationFilters.max_input
    min_output: int = GenerationFilters.min_output
    max_output: int = GenerationFilters.max_output
    min_han: float = GenerationFilters.min_han
    max_repeats: float = GenerationFilters.max_repeats
    threshold: float = GenerationFilters.threshold
    keep_traditional: bool = GenerationFilters.keep_traditional
    drop_personal: bool = GenerationFilters.drop_personal
    blacklist: tuple[str, ...] = ()
    without: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for name in sorted(self.without - set(REASONS)):
            raise OptionError(
                f"without {name}", "is no filter that can be left out", f"These are: {', '.join(REASONS)}"
            )
        if not 0 < self.threshold <= 1:
            raise OptionError("threshold", "is not above 0 and at most 1", "The papers' is 0.7")
        for option, share in (("min_han", self.min_han), ("max_repeats", self.max_repeats)):
            if not 0 <= share <= 1:
                raise OptionError(option, "is no share from 0 to 1", "Give one such as 0.3")


def reason_against(task: Task, rules: Rules) -> tuple[str, str] | None:
    """The first filter that turns a task away, by its own account alone: (reason, detail)."""
    for reason, filter_ in FILTERS.items():
        if reason not in rules.without and (detail := filter_(task, rules)) is not None:
            return reason, detail
    return None


def too_short(task: Task, rules: Rules) -> str | None:
    if len(task.instruction) < rules.min_instruction:
        return f"an instruction of {len(task.instruction)} characters"
    if len(task.output) < rules.min_output:
        return f"an output of {len(task.output)} characters"
    return None


def too_long(task: Task, rules: Rules) -> str | None:
    limits = {"instruction": rules.max_instruction, "input": rules.max_input, "output": rules.max_output}
    for name, limit in limits.items():
        if (length := len(getattr(task, name))) > limit:
            return f"{name} of {length} characters"
    return None


def cut_off(task: Task, rules: Rules) -> str | None:
    return "output ends in a colon" if task.output.endswith((":", "：")) else None


def black_listed(task: Task, rules: Rules) -> str | None:
    instruction = task.instruction.lower()
    return next((word for word in rules.blacklist if word.lower() in instruction), None)


def says_it_is_an_ai(task: Task, rules: Rules) -> str | None:
    found = _IS_AI.match(task.output[:60])
    return found.group() if found else None


def needs_what_is_not_there(task: Task, rules: Rules) -> str | None:
    if (found := _ABSENT.search(task.instruction)) and not (
        task.input and found.group().endswith(_MAY_BE_TEXT)
    ):
        return found.group()
    if (
        not task.input
        and (found := _REFERS.search(task.instruction))
        and not _CARRIES.search(task.instruction)
    ):
        return f"{found.group()} without an input"
    return None


def too_little_chinese(task: Task, rules: Rules) -> str | None:
    """Whether instruction or output have too few Han among their letters; code and other languages are let be."""
    if not han.search(task.instruction):
        return "instruction without Chinese"
    if _OTHER_SCRIPT.search(task.instruction):
        return None
    if (share := _han_share(task.instruction, 1)) < rules.min_han:
        return f"{share:.0%} Han in the instruction"
    # What works on another script may well answer in it.
    if (share := _han_share(task.output, FEW)) < rules.min_han <= _han_share(task.input, FEW):
        return f"{share:.0%} Han in the output"
    return None


def _han_share(text: str, least: int) -> float:
    """Share of Han among the letters; 1 where they are fewer than `least`."""
    letters = len(_LETTER.findall(text))
    return len(han.findall(text)) / letters if letters >= least else 1.0


def repeats(task: Task, rules: Rules) -> str | None:
    text = task.output
    grams = len(text) - GRAM + 1
    if grams < 2 * GRAM:
        return None
    share = 1 - len({text[i : i + GRAM] for i in range(grams)}) / grams
    return f"{share:.0%} of it said before" if share > rules.max_repeats else None


def input_equals_output(task: Task, rules: Rules) -> str | None:
    return task.output[:40] if task.input and task.input.strip() == task.output.strip() else None


FILTERS: dict[str, Callable[[Task, Rules], str | None]] = {
    "too short": too_short,
    "too long": too_long,
    "cut off": cut_off,
    "black list": black_listed,
    "says it is an AI": says_it_is_an_ai,
    "needs what is not there": needs_what_is_not_there,
    "too little Chinese": too_little_chinese,
    "repeats": repeats,
    "input equals output": input_equals_output,
}
# With those that the shelf finds, which knows more than one task: all that --without can leave out.
REASONS = (*FILTERS, "same input, other output", "duplicate", "near duplicate")


def personal_data(task: Task) -> list[str]:
    """Kinds of personal data that a task seems to hold, by what a corpus would be masked for; the user decides."""
    text = f"{task.instruction}\n{task.input}\n{task.output}"
    without = masked(text)
    return [kind for mask, kind in _PERSONAL.items() if without.count(mask) > text.count(mask)]


def in_simplified(task: Task) -> Task:
    """A task written in Traditional characters turned into Simplified ones; one about scripts stays as it is.

    Two changed characters, and a fiftieth of the Han, tell Traditional text from Simplified text that OpenCC corrects.
    """
    if _SCRIPT_TASK.search(task.instruction):
        return task

    text = f"{task.instruction}\n{task.input}\n{task.output}"
    turned = simplified(text)
    if turned == text:
        return task
    count = len(han.findall(text))
    changed = sum(a != b for a, b in zip(text, turned, strict=False)) + abs(len(text) - len(turned))
    if changed < min(2, count) or changed * 50 < count:
        return task
    return Task(simplified(task.instruction), simplified(task.input), simplified(task.output))
