"""Generation filters: each returns the detail of its reason to reject a task, or None if the task passes."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from zhllama.ai_statements import ai_statement
from zhllama.characters import han
from zhllama.corpus.edits import EMAIL, ID, PHONE, masked
from zhllama.errors import OptionError
from zhllama.generation.near_duplicates import simplified
from zhllama.generation.options import GenerationFilters
from zhllama.generation.tasks import Task

_LETTER = re.compile(r"[^\W\d_]")
_NON_CHINESE_TASK = re.compile(
    r"翻译|译成|译为|译作|英译|[英日韩法德俄西]文|[英日韩法德俄]语|西班牙语|拼音|单词|代码|编程|编写.{0,8}(?:程序|脚本|函数)|程序|函数|脚本|正则"
    r"|python|java|sql|html|css|json|xml|yaml|markdown|shell|linux|git|c\+\+|excel|latex|api|算法|命令|公式|化学式|方程",
    re.IGNORECASE,
)
_CHARACTER_FORM_TASK = re.compile(r"繁[体體]|简[体體]字|正[体體]字|异体字|[简繁]转[简繁]")
_ATTACHMENT = (
    r"(?:图片|图像|照片|插图|截图|图表|图形|音频|录音|视频|影片|附件|文件|文档|链接|网页|网址|表情包)"
)
_MISSING_ATTACHMENT = re.compile(
    rf"(?:如|见|看|下|上|附|右|左)图|(?:这|那|该|此|下面的?|以下的?|上述|给定的?|所给的?|提供的?|附上?的?|上传的?)(?:一)?[张幅个段份篇条]?{_ATTACHMENT}"
)
_POSSIBLY_TEXT = ("文档", "文件", "图表", "图形")  # attachments that the input may contain as text
_REFERENCE = re.compile(
    r"(?:(?<![字岁度元个米级人分年天])以下|下面|下列|给定|所给|如下)(?:的|这|几|一|两|三|四|五|些|段|篇|个|句|组|条|首|则)*\w"
)
_INLINE_MATERIAL = re.compile(r"[：:“「『《\"\n（(]|——")
_PERSONAL = {EMAIL: "e-mail", PHONE: "telephone", ID: "identity card"}
GRAM = 8  # characters; an output with more than `max_repeats` repeated grams is a loop
MIN_LETTERS = 10  # in shorter outputs the share of Han characters means nothing


@dataclass(frozen=True)
class FilterOptions:
    """Options of the filters: lengths in characters, shares from 0 to 1."""

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
                f"without {name}",
                "is not a filter that can be left out",
                f"Choose from: {', '.join(REASONS)}",
            )
        if not 0 < self.threshold <= 1:
            raise OptionError("threshold", "is not above 0 and at most 1", "Self-Instruct and Alpaca use 0.7")
        for option, share in (("min_han", self.min_han), ("max_repeats", self.max_repeats)):
            if not 0 <= share <= 1:
                raise OptionError(option, "is not between 0 and 1", "Give a share such as 0.3")


def rejection_reason(task: Task, options: FilterOptions) -> tuple[str, str] | None:
    """Reason and detail of the first filter that rejects a task; None if it passes all filters."""
    for reason, filter_ in FILTERS.items():
        if reason not in options.without and (detail := filter_(task, options)) is not None:
            return reason, detail
    return None


def too_short(task: Task, options: FilterOptions) -> str | None:
    if len(task.instruction) < options.min_instruction:
        return f"an instruction of {len(task.instruction)} characters"
    if len(task.output) < options.min_output:
        return f"an output of {len(task.output)} characters"
    return None


def too_long(task: Task, options: FilterOptions) -> str | None:
    limits = {
        "instruction": options.max_instruction,
        "input": options.max_input,
        "output": options.max_output,
    }
    for name, limit in limits.items():
        if (length := len(getattr(task, name))) > limit:
            return f"{name} of {length} characters"
    return None


def cut_off(task: Task, options: FilterOptions) -> str | None:
    return "output ends in a colon" if task.output.endswith((":", "：")) else None


def matches_blacklist(task: Task, options: FilterOptions) -> str | None:
    instruction = task.instruction.lower()
    return next((word for word in options.blacklist if word.lower() in instruction), None)


def says_it_is_an_ai(task: Task, options: FilterOptions) -> str | None:
    return ai_statement(task.output)


def needs_missing_attachment(task: Task, options: FilterOptions) -> str | None:
    """The instruction refers to an image, a file or a text that the task does not contain."""
    attachment = _MISSING_ATTACHMENT.search(task.instruction)
    if attachment and not (task.input and attachment.group().endswith(_POSSIBLY_TEXT)):
        return attachment.group()
    reference = _REFERENCE.search(task.instruction)
    if reference and not task.input and not _INLINE_MATERIAL.search(task.instruction):
        return f"{reference.group()} without an input"
    return None


def too_little_chinese(task: Task, options: FilterOptions) -> str | None:
    """Too few Han characters among the letters; tasks about code and other languages pass."""
    if not han.search(task.instruction):
        return "instruction without Chinese"
    if _NON_CHINESE_TASK.search(task.instruction):
        return None
    if (share := _han_share(task.instruction, 1)) < options.min_han:
        return f"{share:.0%} Han in the instruction"
    # A task with input in another script may have its output in that script.
    if (
        (share := _han_share(task.output, MIN_LETTERS))
        < options.min_han
        <= _han_share(task.input, MIN_LETTERS)
    ):
        return f"{share:.0%} Han in the output"
    return None


def _han_share(text: str, min_letters: int) -> float:
    """Share of Han characters among the letters; 1 for fewer than `min_letters` letters."""
    letters = len(_LETTER.findall(text))
    return len(han.findall(text)) / letters if letters >= min_letters else 1.0


def too_repetitive(task: Task, options: FilterOptions) -> str | None:
    text = task.output
    grams = len(text) - GRAM + 1
    if grams < 2 * GRAM:
        return None
    share = 1 - len({text[i : i + GRAM] for i in range(grams)}) / grams
    return f"{share:.0%} of the output is repeated" if share > options.max_repeats else None


def input_equals_output(task: Task, options: FilterOptions) -> str | None:
    return task.output[:40] if task.input and task.input.strip() == task.output.strip() else None


# The keys are the reasons in rejected.jsonl and the values of --without.
FILTERS: dict[str, Callable[[Task, FilterOptions], str | None]] = {
    "too short": too_short,
    "too long": too_long,
    "cut off": cut_off,
    "black list": matches_blacklist,
    "says it is an AI": says_it_is_an_ai,
    "needs what is not there": needs_missing_attachment,
    "too little Chinese": too_little_chinese,
    "repeats": too_repetitive,
    "input equals output": input_equals_output,
}
# All values of --without: the filters, and the reasons of the pool, which compares tasks with each other.
REASONS = (*FILTERS, "same input, other output", "duplicate", "near duplicate")


def personal_data(task: Task) -> list[str]:
    """Kinds of personal data that a task seems to contain, detected by the masks of `corpus clean`."""
    text = f"{task.instruction}\n{task.input}\n{task.output}"
    masked_text = masked(text)
    return [kind for mask, kind in _PERSONAL.items() if masked_text.count(mask) > text.count(mask)]


def convert_to_simplified(task: Task) -> Task:
    """Convert a task from Traditional to Simplified characters; a task about character forms stays unchanged.

    OpenCC also changes some Simplified text. A task counts as Traditional if at least two characters and 2 % of the Han
    characters change.
    """
    if _CHARACTER_FORM_TASK.search(task.instruction):
        return task
    text = f"{task.instruction}\n{task.input}\n{task.output}"
    converted = simplified(text)
    if converted == text:
        return task
    han_count = len(han.findall(text))
    changed = sum(a != b for a, b in zip(text, converted, strict=False)) + abs(len(text) - len(converted))
    if changed < min(2, han_count) or changed * 50 < han_count:
        return task
    return Task(simplified(task.instruction), simplified(task.input), simplified(task.output))
