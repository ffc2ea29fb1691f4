"""Cleans conversations one at a time: each is repaired, or rejected with a reason."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from zhllama.conversation.duplicates import NearDuplicates
from zhllama.conversation.markdown import is_page, is_page_question, to_markdown, to_plain, without_buttons
from zhllama.conversation.read_conversations import order_fault, row_id, turns_of
from zhllama.conversation.records import Conversation, Role, Turn
from zhllama.corpus.edits import unicode_form
from zhllama.corpus.filters import InLanguages, Language, WithoutWords, broken_text
from zhllama.errors import InputError, MissingPackage
from zhllama.generation.filters import FilterOptions, says_it_is_an_ai
from zhllama.generation.tasks import Task
from zhllama.io.rows import NotJson

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.S)
_SURROGATE = re.compile("[\ud800-\udfff]")
MIN_LETTERS = 0.2  # of the signs: arithmetic and tables are conversation too, which a corpus would drop
ANSWER_SHARE = 0.05  # of Han in an answer to a Chinese question that is mostly code without a fence, or names
Words = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Rejected:
    """Why a row goes, and what showed it."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class ConversationCleaning:
    """What stays: `min_share` is of Han in the letters outside of code, `near` the estimated Jaccard of near duplicates.

    `min_characters` is of all turns together; `hits` words of one list drop a conversation.
    """

    languages: tuple[Language, ...] = ("zh", "en")
    min_share: float = 0.3
    min_characters: int = 10
    words: Words = ()
    hits: int = 1
    drop_ai: bool = False
    exact: bool = True
    near: bool = True


@dataclass
class ConversationCleaner:
    """Takes rows in order and remembers what it has seen: 100 bytes a conversation kept, 5 KB more with `near`.

    `edits` counts the conversations that each mending touched.
    """

    how: ConversationCleaning
    edits: Counter[str] = field(default_factory=Counter)
    _seen: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._language = InLanguages(self.how.languages, self.how.min_share, MIN_LETTERS)
        self._answer_language = InLanguages(("zh",), min(ANSWER_SHARE, self.how.min_share), MIN_LETTERS)
        self._words = WithoutWords(self.how.words, self.how.hits)
        self._near = NearDuplicates() if self.how.near else None

    def __call__(self, row: Any, where: str) -> Conversation | Rejected:
        """The conversation of a row, mended, or why it goes. `row` is what `read_rows_or_faults` gives."""
        if isinstance(row, NotJson):
            return Rejected("not JSON", row.reason)
        whole, edits = _whole(row), set[str]()
        if whole != row:
            edits.add("half characters")
        try:
            turns = mended(turns_of(whole, where), edits)
        except InputError as error:
            known = error.what.startswith("unknown role")
            return Rejected("unknown role" if known else "no conversation", error.what)
        except RecursionError:
            return Rejected("HTML too deep")
        made = Conversation(tuple(turns), where, row_id(whole))
        reason = self._own_reason(made) or self._seen_before(made)
        if reason is None:
            self.edits.update(edits)
        return reason or made

    def _own_reason(self, made: Conversation) -> Rejected | None:
        """Why a conversation goes by its own account."""
        for number, turn in enumerate(made.turns, 1):
            if not turn.text:
                return Rejected("empty turn", f"turn {number}")
            if broken_text(turn.text):
                return Rejected("broken characters", f"turn {number}")
        if not any(turn.role == "assistant" for turn in made.turns):
            return Rejected("no answer")
        if (told := order_fault(made.turns)) is not None:
            return Rejected("roles out of order", told)
        text = _spoken(made)
        if len(text) < self.how.min_characters:
            return Rejected("too short", f"{len(text)} characters")
        if self.how.languages and (reason := self._other_language(made)) is not None:
            return Rejected(reason)
        if self.how.words and (listed := self._listed(text)):
            return Rejected("black list", listed)
        if self.how.drop_ai:
            for turn in made.turns:
                if turn.role == "assistant" and (
                    found := says_it_is_an_ai(Task("", "", turn.text), FilterOptions())
                ):
                    return Rejected("says it is an AI", found)
        return None

    def _listed(self, text: str) -> str | None:
        try:
            return self._words(text)
        except ImportError:
            raise MissingPackage("--word-list", "pyahocorasick", "corpus") from None

    def _other_language(self, made: Conversation) -> str | None:
        """Why a conversation is not in the languages wanted: by all that was said, or by the questions alone where
        the answers are code or names and hold at least a little Chinese."""
        reason = self._language(_prose(made, "user", "assistant"))
        if reason is None or "zh" not in self.how.languages:
            return reason
        asked = self._language(_prose(made, "user"))
        return reason if asked or self._answer_language(_prose(made, "assistant")) else None

    def _seen_before(self, made: Conversation) -> Rejected | None:
        name = made.id or made.where
        if self.how.exact:
            said = "\0".join(part for turn in made.turns for part in (turn.role, turn.text))
            key = blake2b(said.encode("utf-8"), digest_size=16).digest()
            if (other := self._seen.setdefault(key, name)) is not name:
                return Rejected("duplicate", f"of {other}")
        if self._near is not None and (near := self._near.other(_spoken(made), name)) is not None:
            return Rejected("near duplicate", f"of {near}")
        return None


def _whole(row: Any) -> Any:
    """A row without the halves of surrogate pairs, which are no text and which no file could hold."""
    if isinstance(row, str):
        return _SURROGATE.sub("", row)
    if isinstance(row, list):
        return [_whole(part) for part in row]
    return {_whole(key): _whole(part) for key, part in row.items()} if isinstance(row, dict) else row


def _spoken(made: Conversation, *roles: Role) -> str:
    return "\n".join(turn.text for turn in made.turns if turn.role in (roles or ("user", "assistant")))


def _prose(made: Conversation, *roles: Role) -> str:
    """What was said outside of code; all of it where there is nothing but code."""
    text = _spoken(made, *roles)
    prose = _CODE.sub("", text)
    return prose if prose.strip() else text


def mended(turns: list[Turn], edits: set[str]) -> list[Turn]:
    """The turns with all that can be put right put right; the names of what was are added to `edits`.

    Errors: RecursionError for HTML that nests too deep to be read.
    """
    made = [replace(turn, text=_mended(turn, edits)) for turn in turns]
    first = 1 if made and made[0].role == "system" else 0
    while len(made) > first and made[first].role == "assistant":
        del made[first]
        edits.add("answer without a question before it")
    while len(made) > first and made[-1].role != "assistant":
        del made[-1]
        edits.add("question without an answer at the end")
    return made


def _mended(turn: Turn, edits: set[str]) -> str:
    text = turn.text
    if turn.role == "assistant" and is_page(text):
        text = to_markdown(text)
        edits.add("HTML to Markdown")
    elif is_page_question(text):
        text = to_plain(text)
        edits.add("HTML to Markdown")
    plain = without_buttons(text)
    if plain != text:
        edits.add("buttons of the page")
    formed = unicode_form(plain)
    if formed != plain.strip():
        edits.add("spaces and unseen characters")
    return formed
