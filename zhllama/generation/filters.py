"""Generation filters: each returns the detail of its reason to reject a task, or None if the task passes."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from zhllama.ai_statements import ai_statement
from zhllama.characters import han
from zhllama.corpus.edits import EMAIL, ID, PHONE, masked
from zhllama.errors import OptionError
from zhllama.generation.broken_characters import broken_characters
from zhllama.generation.impossible_requests import Act, impossible_request, words_of
from zhllama.generation.missing_material import missing_material
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
PERSONAL = {EMAIL: "e-mail", PHONE: "telephone", ID: "identity card"}
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
    blacklist: tuple[str, ...] = ()  # words that no instruction may contain
    acts: tuple[Act, ...] = ()  # what no instruction may ask for
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
    """The instruction asks for what text cannot do, or contains a word of the user's list."""
    return impossible_request(task.instruction, options.acts) or words_of(task.instruction, options.blacklist)


def says_it_is_an_ai(task: Task, options: FilterOptions) -> str | None:
    return ai_statement(task.output)


def needs_missing_material(task: Task, options: FilterOptions) -> str | None:
    """The instruction refers to an image, a file or a text that the task does not contain."""
    return missing_material(task.instruction, task.input)


def has_broken_characters(task: Task, options: FilterOptions) -> str | None:
    """A field contains characters that a wrong encoding left there."""
    fields = (task.instruction, task.input, task.output)
    found = (broken_characters(text, about=task.instruction) for text in fields)
    return next((characters for characters in found if characters is not None), None)


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
    "broken characters": has_broken_characters,
    "cut off": cut_off,
    "black list": matches_blacklist,
    "says it is an AI": says_it_is_an_ai,
    "needs what is not there": needs_missing_material,
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
    return [kind for mask, kind in PERSONAL.items() if masked_text.count(mask) > text.count(mask)]


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
