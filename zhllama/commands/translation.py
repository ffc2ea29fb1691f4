"""The command line in Chinese: texts are translated where they are printed, by gettext's catalogue of `zhllama/locale`.

All texts are English up to that place, so that errors, files and --json do not depend on the language. A text is looked
up whole. If it was made from a template, the catalogue contains the template, `{name} of {count} rows`, and the text is
matched against it; fields are copied, or translated if the catalogue has them as a part (context "part").
scripts/translations.py extracts the texts. In English, nothing is loaded.
"""

import gettext
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

LOCALE = Path(__file__).parent.parent / "locale"
DOMAIN = "zhllama"
PART = "part"  # context of texts that occur inside others
FIELD = re.compile(r"\{(\w+)\}")
ADJACENT = re.compile(r"(?:\{\w+\}){2,}")
CLAUSE = re.compile(r"[;,] | \(")  # what an optional clause begins with
TIMES = {"days": "天", "h": "小时", "min": "分钟", "s": "秒"}
# A command line, an option with or without its value, a path or a file name at the end of a text.
COPIED = re.compile(
    r"(?:^|[^\w/.-])(?:(?:(?:pip|uv|pipx|hf) [a-z]|\S*python[\d.]* -m )[^.]*\S.*"
    r"|zhllama [a-z-]+(?: (?:list|show|fetch|clean|split|export|[^a-z ]\S*|\S*[/.=]\S*))*"
    r"|--?[a-z][\w-]*(?: [A-Z_]+)?|[\w~.*-]*/[\w~./*#\[\]:@-]*[A-Za-z][\w~./*#\[\]:@-]*"
    r"|[\w-]+\.(?:md|html|jsonl?|ya?ml|txt|model|tsv|gguf|py|sh))$",
    re.ASCII,
)
RUN_OPTION = re.compile("`(out|force|resume)`")


def chinese() -> bool:
    """Whether the user wants Chinese: by ZHLLAMA_LANG, else by the locale."""
    names = ("ZHLLAMA_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    return next((os.environ[name] for name in names if os.environ.get(name)), "").lower().startswith("zh")


def translated(text: str) -> str:
    """The text in the user's language, or the text itself if the catalogue lacks it."""
    return _catalogue().translated(text) if text and chinese() else text


def number_of(number: str, word: str) -> str:
    """A number and the catalogue's word for what it counts: `18 list`, 18个列表项."""
    return f"{number}个{translated(word)}" if chinese() else f"{number} {word}"


def reason_shown(name: str, named: bool = True) -> str:
    """A reason or repair as results count it; in Chinese with the English name in brackets, which files and options have."""
    if not chinese():
        return name
    from zhllama.pages.texts import page_texts

    text = page_texts().get(f"generation.reason.{name}")
    shown = translated(name) if text is None else text["zh-Hans"]
    return f"{shown}（{name}）" if named and shown != name else shown


def in_unit(number: str, unit: str) -> str:
    """A time by its unit: `1.5 h`, 1.5小时."""
    return f"{number}{TIMES[unit]}" if chinese() else f"{number} {unit}"


def labelled(label: str, text: str) -> str:
    """A text behind its label and a colon."""
    return f"{label}：{text}" if chinese() else f"{label}: {text}"


def comma() -> str:
    """What separates the members of a list."""
    return "，" if chinese() else ", "


def with_run_flags(text: str) -> str:
    """The text with flags in place of the options of every run, which commands that only read a run do not have."""
    return RUN_OPTION.sub(r"--\1", text)


def error_line(where: str, what: str, remedy: str) -> str:
    """An error on one line: where, what, and what to do."""
    where, what, remedy = map(with_run_flags, (where, what, remedy))
    if not chinese():
        return f"{where}: {what}. {stopped(remedy)}" if remedy else f"{where}: {stopped(what)}"
    place = translated(where) if " " in where else where  # a single word names something: a file, an option
    what, remedy = translated(what), translated(remedy)
    return f"{place}：{what}。{stopped(remedy)}" if remedy else f"{place}：{stopped(what)}"


def stopped(text: str) -> str:
    """The text with a full stop, but none behind a command, an option or a path, which would be copied along with it."""
    return text if COPIED.search(text) else text + ("。" if chinese() else ".")


@dataclass(frozen=True)
class Template:
    """A text with named fields, and its translation."""

    source: str
    translation: str

    @cached_property
    def literals(self) -> list[str]:
        """The text between the fields."""
        return FIELD.split(self.source)[::2]

    @cached_property
    def adjacent(self) -> list[list[str]]:
        """The names of fields with nothing between them, which a pattern alone cannot tell apart."""
        return [FIELD.findall(run) for run in ADJACENT.findall(self.source)]

    @cached_property
    def weight(self) -> int:
        """Characters outside the fields: of several templates that match, the one with most of them is the closest."""
        return sum(map(len, self.literals))

    @property
    def unchanged(self) -> bool:
        """Whether the text is the same in both languages, as a command line is."""
        return self.source == self.translation

    def fields_in(self, text: str) -> Mapping[str, str] | None:
        """The values of the fields if the text was made from this template."""
        place = 0
        for literal in self.literals:  # faster than compiling the pattern of every template
            place = text.find(literal, place)
            if place < 0:
                return None
            place += len(literal)
        names = FIELD.findall(self.source)
        pattern = "(.*?)".join(map(re.escape, self.literals))
        found = re.fullmatch(pattern, text, re.DOTALL)
        return None if found is None else dict(zip(names, found.groups(), strict=True))


class Catalogue:
    """Translations by text, and by template."""

    def __init__(self, messages: Iterable[tuple[str, str]]) -> None:
        self._whole: dict[str, str] = {}
        self._part: dict[str, str] = {}
        self._templates: list[Template] = []
        self._part_templates: list[Template] = []
        for source, translation in messages:
            context, _, text = source.rpartition("\x04")
            whole, templates = (
                (self._part, self._part_templates) if context == PART else (self._whole, self._templates)
            )
            if FIELD.search(text):
                templates.append(Template(text, translation))
            else:
                whole[text] = translation

    def translated(self, text: str) -> str:
        """The translation of a text, or the text itself."""
        return self._found(text, self._whole, self._templates) or text

    def _found(self, text: str, whole: Mapping[str, str], templates: Iterable[Template]) -> str | None:
        if text in whole:
            return whole[text]
        matches = [(t, fields) for t in templates if (fields := t.fields_in(text)) is not None]
        if not matches:
            return None
        # A command line, which stays as it is, may stand behind the words of another template: `Install by: {command}`.
        worded = [match for match in matches if not match[0].unchanged]
        begun = [match for match in worded if not match[0].source.startswith("{")]
        unchanged = len(worded) < len(matches)
        template, fields = max((unchanged and begun) or matches, key=lambda match: match[0].weight)
        told = {name: self._part_of(value) for name, value in fields.items()}
        for names in template.adjacent:
            told |= self._parts_of("".join(fields[name] for name in names), names)
        return FIELD.sub(lambda field: told[field[1]], template.translation)

    def _parts_of(self, text: str, names: Sequence[str]) -> dict[str, str]:
        """The values of fields with nothing between them, `{count}{cost}{limit}`: clauses of the catalogue are cut off the end."""
        clauses: list[str] = []
        while len(clauses) < len(names) - 1:
            starts = [match.start() for match in CLAUSE.finditer(text)][::-1]
            found = ((place, self._found(text[place:], self._part, self._part_templates)) for place in starts)
            place, clause = next((one for one in found if one[1] is not None), (0, None))
            if clause is None:
                break
            text = text[:place]
            clauses.insert(0, clause)
        return dict(zip_longest(names, [self._part_of(text), *clauses], fillvalue=""))

    def _part_of(self, text: str) -> str:
        return self._found(text, self._part, self._part_templates) or text


@cache
def _catalogue() -> Catalogue:
    translation = gettext.translation(DOMAIN, LOCALE, ["zh"])
    # The only way that gettext has to list its messages.
    messages: dict[Any, str] = translation._catalog  # type: ignore[attr-defined]
    return Catalogue(
        (source, text) for source, text in messages.items() if isinstance(source, str) and source
    )
