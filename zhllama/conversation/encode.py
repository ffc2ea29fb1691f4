"""A conversation as ids, with a mask of those that the model is to say: its answers and their ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zhllama.conversation.records import Conversation
from zhllama.conversation.template import Template, specials
from zhllama.errors import InputError


@dataclass(frozen=True)
class Encoded:
    """`mask` is true for the answers' ids and the end of each; `ends` are the lengths after each answer and its end."""

    ids: list[int]
    mask: list[bool]
    ends: tuple[int, ...] = ()

    def cut(self, length: int) -> "Encoded | None":
        """As many whole turns as `length` ids hold; None where not even the first answer fits."""
        if len(self.ids) <= length:
            return self
        end = max((end for end in self.ends if end <= length), default=0)
        fits = tuple(e for e in self.ends if e <= end)
        return Encoded(self.ids[:end], self.mask[:end], fits) if end else None


def encode(conversation: Conversation, tokenizer: Any, template: Template) -> Encoded:
    """The ids of the whole conversation, made piece by piece: prompt, answer, end and next prompt, answer, and so on.

    Each is cut by itself, so that the mask needs no counting again. They are the ids of the whole text, as
    `tokenizer.apply_chat_template` gives them, and those before an answer the ids of its prompt alone (docs/sft.md).
    Errors: InputError, naming the conversation, where a text holds a special token or the template cannot be taken apart.
    """
    _refuse_specials(conversation, tokenizer)
    ids: list[int] = []
    mask: list[bool] = []
    ends: list[int] = []
    for number, (text, before) in enumerate(pieces(conversation, tokenizer, template)):
        if number % 2:
            made = _continued(text, before, tokenizer, conversation.where)
            mask += [True] * len(made)
        else:
            made = _ids(text, tokenizer)
            mask += [False] * len(made)
            if number:
                if made[:1] != [tokenizer.convert_tokens_to_ids(template.stop)]:
                    raise _unfit(conversation.where, f"{template.stop} is not a token of the tokenizer")
                mask[len(ids)] = True
                ends.append(len(ids) + 1)
        ids += made
    return Encoded(ids, mask, tuple(ends))


def pieces(conversation: Conversation, tokenizer: Any, template: Template) -> list[tuple[str, str]]:
    """The text of a conversation in pieces, prompts and answers by turns, each with the character before it.

    An answer ends before `template.stop`, with which the next prompt begins; the last piece is the end of the whole.
    """
    whole = template.render(tokenizer, conversation.turns)
    found: list[tuple[str, str]] = []
    at = 0
    for number, turn in enumerate(conversation.turns):
        if turn.role != "assistant":
            continue
        prompt = template.render(tokenizer, conversation.turns[:number], opened=True)
        begin = len(prompt)
        end = whole.find(template.stop, begin)
        if begin <= at or not whole.startswith(prompt):
            raise _unfit(conversation.where, "the template writes another text before an answer than after")
        if end < 0:
            raise _unfit(conversation.where, f"no {template.stop} stands after an answer")
        if whole[begin:end].strip() != turn.text.strip():
            raise _unfit(conversation.where, "the template changes an answer")
        found += [(whole[at:begin], whole[at - 1 : at]), (whole[begin:end], whole[begin - 1])]
        at = end
    return [*found, (whole[at:], whole[at - 1 : at])]


def _continued(text: str, before: str, tokenizer: Any, where: str) -> list[int]:
    """The ids of a text that goes on after `before`: cut by itself SentencePiece would begin it with a space."""
    left = _ids(before, tokenizer)
    both = _ids(before + text, tokenizer)
    if both[: len(left)] != left:
        raise _unfit(where, f"the tokenizer joins an answer to the {before!r} before it")
    return both[len(left) :]


def _ids(text: str, tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def _refuse_specials(conversation: Conversation, tokenizer: Any) -> None:
    """A special token spelled out in a text would be read as one, and end an answer in its middle."""
    for turn in conversation.turns:
        for token in specials(tokenizer):
            if token in turn.text:
                told = f"a turn of the {turn.role} spells out the special token {token}"
                raise InputError(conversation.where, told, "Remove the row, or give --skip-bad")


def proves_fit(conversations: Sequence[Conversation], tokenizer: Any, template: Template) -> None:
    """InputError unless pieces give the ids of the whole text and of each prompt alone, on the conversations given."""
    for conversation in conversations:
        made = encode(conversation, tokenizer, template)
        if made.ids != _ids(template.render(tokenizer, conversation.turns), tokenizer):
            raise _unfit(conversation.where, "the tokenizer cuts the whole otherwise than its pieces")


def _unfit(where: str, what: str) -> InputError:
    return InputError(where, what, "Give another --template")
