"""Cleans conversations one at a time: repairs each one, or rejects it with a reason."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from zhllama.ai_statements import ai_statement
from zhllama.conversation.duplicates import NearDuplicates
from zhllama.conversation.markdown import is_page, is_page_question, to_markdown, to_plain, without_buttons
from zhllama.conversation.read_conversations import conversation_of, order_fault
from zhllama.conversation.records import Conversation, Role, Turn
from zhllama.conversation.row_fields import MarkedRow, RowReading
from zhllama.corpus.edits import unicode_form
from zhllama.corpus.filters import InLanguages, Language, WithoutWords, broken_text
from zhllama.errors import InputError, MissingPackage
from zhllama.io.rows import NotJson

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.S)
_SURROGATE = re.compile("[\ud800-\udfff]")
MIN_LETTERS = 0.2  # share of characters: unlike a corpus, conversations may be arithmetic and tables
# Required share of Han in the answers to a Chinese question, which can be unfenced code or names.
ANSWER_SHARE = 0.05
Words = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Rejected:
    """The reason for rejecting a row, and its evidence."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class ConversationCleaning:
    """Cleaning options: `min_share` is the required share of Han among the letters outside code.

    `min_characters` applies to all turns together; `hits` words of one list reject a conversation; `exact` and `near`
    reject duplicates and near duplicates.
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
    """Cleans rows in order; remembers about 100 bytes per accepted conversation, and 5 KB more with `near`.

    `edits` counts the conversations that each repair changed, `reading` the fields without a use.
    """

    options: ConversationCleaning
    edits: Counter[str] = field(default_factory=Counter)
    reading: RowReading = field(default_factory=RowReading)
    _seen: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._language = InLanguages(self.options.languages, self.options.min_share, MIN_LETTERS)
        self._answer_language = InLanguages(("zh",), min(ANSWER_SHARE, self.options.min_share), MIN_LETTERS)
        self._words = WithoutWords(self.options.words, self.options.hits)
        self._near = NearDuplicates() if self.options.near else None

    def __call__(self, row: Any, where: str) -> Conversation | Rejected:
        """The repaired conversation of a row from `read_rows_or_faults`, or why it is rejected."""
        if isinstance(row, NotJson):
            return Rejected("not JSON", row.reason)
        clean, edits = _without_surrogates(row), set[str]()
        if clean != row:
            edits.add("lone surrogates")
        try:
            read = conversation_of(clean, where, self.reading)
            turns = repaired(list(read.turns), edits)
        except MarkedRow as error:
            return Rejected("not for training", error.what)
        except InputError as error:
            unknown_role = error.what.startswith("unknown role")
            return Rejected("unknown role" if unknown_role else "no conversation", error.what)
        except RecursionError:
            return Rejected("HTML too deep")
        conversation = replace(read, turns=tuple(turns))
        reason = self._fault(conversation) or self._duplicate(conversation)
        if reason is None:
            self.edits.update(edits)
        return reason or conversation

    def _fault(self, conversation: Conversation) -> Rejected | None:
        """Why a conversation is rejected by itself, without regard to earlier ones."""
        for number, turn in enumerate(conversation.turns, 1):
            if not turn.text and not turn.calls and turn.role != "tool":
                return Rejected("empty turn", f"turn {number}")
            if broken_text(turn.text):
                return Rejected("broken characters", f"turn {number}")
        if not any(turn.role == "assistant" for turn in conversation.turns):
            return Rejected("no answer")
        if (fault := order_fault(conversation.turns)) is not None:
            return Rejected("roles out of order", fault)
        text = _text_of(conversation)
        if len(text) < self.options.min_characters:
            return Rejected("too short", f"{len(text)} characters")
        if self.options.languages and (reason := self._other_language(conversation)) is not None:
            return Rejected(reason)
        if self.options.words and (word := self._listed_word(text)):
            return Rejected("black list", word)
        if self.options.drop_ai:
            for turn in conversation.turns:
                if turn.role == "assistant" and (statement := ai_statement(turn.text)):
                    return Rejected("says it is an AI", statement)
        return None

    def _listed_word(self, text: str) -> str | None:
        try:
            return self._words(text)
        except ImportError:
            raise MissingPackage("`word_list`", "pyahocorasick", "corpus") from None

    def _other_language(self, conversation: Conversation) -> str | None:
        """Why a conversation is in another language.

        All turns are checked; where they fail, Chinese questions suffice if the answers contain some Chinese.
        """
        reason = self._language(_prose(conversation, "user", "assistant"))
        if reason is None or "zh" not in self.options.languages:
            return reason
        question_fault = self._language(_prose(conversation, "user"))
        return reason if question_fault or self._answer_language(_prose(conversation, "assistant")) else None

    def _duplicate(self, conversation: Conversation) -> Rejected | None:
        name = conversation.id or conversation.where
        if self.options.exact:
            key_text = "\0".join(part for turn in conversation.turns for part in (turn.role, turn.text))
            key = blake2b(key_text.encode("utf-8"), digest_size=16).digest()
            if (other := self._seen.setdefault(key, name)) is not name:
                return Rejected("duplicate", f"of {other}")
        if self._near is not None and (near := self._near.other(_text_of(conversation), name)) is not None:
            return Rejected("near duplicate", f"of {near}")
        return None


def _without_surrogates(row: Any) -> Any:
    """A row without lone surrogates, which UTF-8 cannot encode."""
    if isinstance(row, str):
        return _SURROGATE.sub("", row)
    if isinstance(row, list):
        return [_without_surrogates(part) for part in row]
    if isinstance(row, dict):
        return {_without_surrogates(key): _without_surrogates(part) for key, part in row.items()}
    return row


def _text_of(conversation: Conversation, *roles: Role) -> str:
    return "\n".join(
        turn.text for turn in conversation.turns if turn.role in (roles or ("user", "assistant"))
    )


def _prose(conversation: Conversation, *roles: Role) -> str:
    """The text outside code, or all of it where there is only code."""
    text = _text_of(conversation, *roles)
    prose = _CODE.sub("", text)
    return prose if prose.strip() else text


def repaired(turns: list[Turn], edits: set[str]) -> list[Turn]:
    """The repaired turns; the name of each repair is added to `edits`.

    Errors: RecursionError for HTML that is nested too deep.
    """
    result = [replace(turn, text=_repaired_text(turn, edits)) for turn in turns]
    first = 1 if result and result[0].role == "system" else 0
    while len(result) > first and result[first].role == "assistant":
        del result[first]
        edits.add("answer without a question before it")
    while len(result) > first and result[-1].role != "assistant":
        del result[-1]
        edits.add("question without an answer at the end")
    return result


def _repaired_text(turn: Turn, edits: set[str]) -> str:
    text = turn.text
    if turn.role == "assistant" and is_page(text):
        text = to_markdown(text)
        edits.add("HTML to Markdown")
    elif is_page_question(text):
        text = to_plain(text)
        edits.add("HTML to Markdown")
    plain = without_buttons(text)
    if plain != text:
        edits.add("button labels")
    formed = unicode_form(plain)
    if formed != plain.strip():
        edits.add("whitespace and invisible characters")
    return formed
