"""Splits long conversations by tokens before user turns, so that no turn is lost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from zhllama.conversation.records import Conversation, Turn
from zhllama.conversation.template import ChatTemplate
from zhllama.vocab.any_tokenizer import AnyTokenizer

Length = Callable[[Sequence[Turn]], int]  # tokens of turns as in training


@dataclass(frozen=True)
class ConversationPart:
    """One part of a conversation, numbered from 1; `cut` marks a part with a truncated turn."""

    conversation: Conversation
    number: int
    of: int
    cut: bool = False


def split(conversation: Conversation, length: Length, max_tokens: int) -> list[ConversationPart] | None:
    """The parts of a conversation, each of at most `max_tokens` tokens; None where its system prompt leaves no room.

    Every part begins with the system turn. Apart from these, and unless a part is `cut`, the parts' turns in order are the
    turns of the conversation.
    """
    system, rest = _split_system(conversation.turns)
    parts: list[tuple[list[Turn], bool]] = []
    current: list[Turn] = []
    for exchange in _exchanges(rest):
        if length([*system, *current, *exchange]) <= max_tokens:
            current += exchange
            continue
        if current:
            parts.append((current, False))
        current = exchange
        if length([*system, *exchange]) > max_tokens:
            truncated = _truncate(system, exchange, length, max_tokens)
            if truncated is None:
                return None
            parts.append((truncated, True))
            current = []
    if not rest and length(system) > max_tokens:
        return None
    if current or not parts:
        parts.append((current, False))
    return [
        ConversationPart(replace(conversation, turns=(*system, *turns)), number, len(parts), cut)
        for number, (turns, cut) in enumerate(parts, 1)
    ]


def _split_system(turns: Sequence[Turn]) -> tuple[list[Turn], Sequence[Turn]]:
    return ([turns[0]], turns[1:]) if turns and turns[0].role == "system" else ([], turns)


def _exchanges(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Groups of turns: a user turn and all turns up to the next user turn."""
    current: list[Turn] = []
    for turn in turns:
        if turn.role == "user" and current:
            yield current
            current = []
        current.append(turn)
    if current:
        yield current


def _truncate(system: list[Turn], exchange: list[Turn], length: Length, max_tokens: int) -> list[Turn] | None:
    """The longest beginning of an exchange that fits; a long question and a long answer get about half each.

    None where one character of each turn does not fit.
    """
    question, *answers = exchange
    first_character = replace(question, text=question.text[:1])
    shortest = [replace(turn, text=turn.text[:1]) for turn in answers]
    least = length([*system, first_character, *shortest])
    if least > max_tokens:
        return None
    half = (least + max_tokens) // 2
    short = length([*system, first_character, *answers]) <= half
    room, following = (max_tokens, answers) if short else (half, shortest)
    result = [_beginning(question, lambda turn: length([*system, turn, *following]) <= room)]
    for number, answer in enumerate(answers, 1):
        rest = shortest[number:]
        result.append(_beginning(answer, lambda turn: length([*system, *result, turn, *rest]) <= max_tokens))  # noqa: B023
    return result


def _beginning(turn: Turn, fits: Callable[[Turn], bool]) -> Turn:
    """The longest beginning of a turn, at least one character, that fits.

    A longer text can have fewer tokens by a merge at its end, so bisection finds only nearly the longest.
    """
    if fits(turn):
        return turn
    low, high = 1, len(turn.text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(replace(turn, text=turn.text[:middle])) else (low, middle)
    return replace(turn, text=turn.text[:low])


def template_length(tokenizer: Any, template: ChatTemplate) -> Length:
    """The token count of turns as `sft` trains on them: of the text that the template renders."""

    def length(turns: Sequence[Turn]) -> int:
        return len(tokenizer(template.render(tokenizer, turns), add_special_tokens=False).input_ids)

    return length


def text_length(tokenizer: AnyTokenizer) -> Length:
    """The token count of the texts without a template, plus one for the end of each answer."""

    @lru_cache(maxsize=1024)
    def tokens(text: str) -> int:
        return len(tokenizer.encode([text])[0])

    def length(turns: Sequence[Turn]) -> int:
        return sum(tokens(turn.text) + (turn.role == "assistant") for turn in turns)

    return length
