"""Splits long conversations by tokens before a user's turn, without losing a turn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from zhllama.conversation.records import Conversation, Turn
from zhllama.conversation.template import ChatTemplate
from zhllama.vocab.any_tokenizer import AnyTokenizer

Length = Callable[[Sequence[Turn]], int]  # tokens of turns as training will have them


@dataclass(frozen=True)
class ConversationPart:
    """One part of a conversation, counted from 1; `cut` tells that a turn in it is only the beginning of what was said."""

    conversation: Conversation
    number: int
    of: int
    cut: bool = False


def split(conversation: Conversation, length: Length, most: int) -> list[ConversationPart] | None:
    """The parts of a conversation, each of at most `most` tokens; None where its system prompt alone leaves no room.

    A system's turn opens every part, since every part was said under it. Without these, and where no part is `cut`,
    the turns of the parts in order are the conversation's.
    """
    system, said = _opening(conversation.turns)
    parts: list[tuple[list[Turn], bool]] = []
    open_: list[Turn] = []
    for exchange in _exchanges(said):
        if length([*system, *open_, *exchange]) <= most:
            open_ += exchange
            continue
        if open_:
            parts.append((open_, False))
        open_ = exchange
        if length([*system, *exchange]) > most:
            fitting = _cut(system, exchange, length, most)
            if fitting is None:
                return None
            parts.append((fitting, True))
            open_ = []
    if not said and length(system) > most:
        return None
    if open_ or not parts:
        parts.append((open_, False))
    return [
        ConversationPart(replace(conversation, turns=(*system, *turns)), number, len(parts), cut)
        for number, (turns, cut) in enumerate(parts, 1)
    ]


def _opening(turns: Sequence[Turn]) -> tuple[list[Turn], Sequence[Turn]]:
    return ([turns[0]], turns[1:]) if turns and turns[0].role == "system" else ([], turns)


def _exchanges(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """What belongs together: a user's turn and all that follows it up to the next one's."""
    open_: list[Turn] = []
    for turn in turns:
        if turn.role == "user" and open_:
            yield open_
            open_ = []
        open_.append(turn)
    if open_:
        yield open_


def _cut(system: list[Turn], exchange: list[Turn], length: Length, most: int) -> list[Turn] | None:
    """The beginning of an exchange that fits: of a long question and a long answer each gets about half.

    None where not even one character of each turn fits.
    """
    question, *answers = exchange
    asked = replace(question, text=question.text[:1])
    least = [replace(turn, text=turn.text[:1]) for turn in answers]
    alone = length([*system, asked, *least])
    if alone > most:
        return None
    half = (alone + most) // 2
    short = length([*system, asked, *answers]) <= half
    room, kept = (most, answers) if short else (half, least)
    fitted = [_beginning(question, lambda turn: length([*system, turn, *kept]) <= room)]
    for number, answer in enumerate(answers, 1):
        rest = least[number:]
        fitted.append(_beginning(answer, lambda turn: length([*system, *fitted, turn, *rest]) <= most))  # noqa: B023
    return fitted


def _beginning(turn: Turn, fits: Callable[[Turn], bool]) -> Turn:
    """The longest beginning of a turn, of at least a character, that fits.

    A longer text may have fewer tokens by a merge at its end, so what a bisection finds is only nearly the longest.
    """
    if fits(turn):
        return turn
    low, high = 1, len(turn.text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(replace(turn, text=turn.text[:middle])) else (low, middle)
    return replace(turn, text=turn.text[:low])


def template_length(tokenizer: Any, template: ChatTemplate) -> Length:
    """Tokens of turns as `sft` trains on them: of the text that the template makes of them all."""

    def length(turns: Sequence[Turn]) -> int:
        return len(tokenizer(template.render(tokenizer, turns), add_special_tokens=False).input_ids)

    return length


def text_length(tokenizer: AnyTokenizer) -> Length:
    """Tokens of the texts alone, and one for the end of each answer."""

    @lru_cache(maxsize=1024)
    def tokens(text: str) -> int:
        return len(tokenizer.encode([text])[0])

    def length(turns: Sequence[Turn]) -> int:
        return sum(tokens(turn.text) + (turn.role == "assistant") for turn in turns)

    return length
