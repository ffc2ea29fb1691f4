"""Turns a conversation into ids, with a mask of the tokens that are trained: the answers and their ends."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from zhllama.conversation.records import Conversation
from zhllama.conversation.template import ChatTemplate, special_token_texts
from zhllama.errors import InputError

SHORT = 64  # characters of a text whose ids are worth remembering


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


class ConversationEncoder:
    """Conversations to ids under one tokenizer of transformers and one template."""

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        self.tokenizer, self.template = tokenizer, template
        self._specials = special_token_texts(tokenizer)
        self._stop = tokenizer.convert_tokens_to_ids(template.stop)
        # What stands before an answer, and the end of the whole, are the same few texts again and again.
        self._short = lru_cache(1024)(self._ids)

    def encode(self, conversation: Conversation) -> Encoded:
        """The ids of the whole conversation, made piece by piece: prompt, answer, end and next prompt, answer, and so on.

        Each is cut by itself, so that the mask needs no counting again. They are the ids of the whole text, as
        `tokenizer.apply_chat_template` gives them, and those before an answer the ids of its prompt alone (docs/sft.md).
        Errors: InputError, naming the conversation, where a text spells out a special token or the template cannot be
        taken apart.
        """
        self._refuse_specials(conversation)
        ids: list[int] = []
        mask: list[bool] = []
        ends: list[int] = []
        for number, (text, before) in enumerate(pieces(conversation, self.tokenizer, self.template)):
            if number % 2:
                made = self._continued(text, before, conversation.where)
                mask += [True] * len(made)
            else:
                made = self._short(text) if len(text) < SHORT else self._ids(text)
                mask += [False] * len(made)
                if number:
                    if made[:1] != [self._stop]:
                        raise _unfit(
                            conversation.where, f"{self.template.stop} is not a token of the tokenizer"
                        )
                    mask[len(ids)] = True
                    ends.append(len(ids) + 1)
            ids += made
        return Encoded(ids, mask, tuple(ends))

    def prove(self, conversation: Conversation) -> None:
        """InputError unless the pieces give the ids of the whole text, as transformers cuts it."""
        whole = self._ids(self.template.render(self.tokenizer, conversation.turns))
        if self.encode(conversation).ids != whole:
            raise _unfit(conversation.where, "the tokenizer cuts the whole otherwise than its pieces")

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _continued(self, text: str, before: str, where: str) -> list[int]:
        """The ids of a text that goes on after `before`: cut by itself SentencePiece would begin it with a space."""
        left, both = self._short(before), self._ids(before + text)
        if both[: len(left)] != left:
            raise _unfit(where, f"the tokenizer joins an answer to the {before!r} before it")
        return both[len(left) :]

    def _refuse_specials(self, conversation: Conversation) -> None:
        """A special token spelled out in a text would be read as one, and end an answer in its middle."""
        for turn in conversation.turns:
            for token in self._specials:
                if token in turn.text:
                    told = f"a turn of the {turn.role} spells out the special token {token}"
                    raise InputError(conversation.where, told, "Remove the row, or give --skip-bad")


def encode(conversation: Conversation, tokenizer: Any, template: ChatTemplate) -> Encoded:
    """One conversation alone; for many, keep a ConversationEncoder."""
    return ConversationEncoder(tokenizer, template).encode(conversation)


def pieces(conversation: Conversation, tokenizer: Any, template: ChatTemplate) -> list[tuple[str, str]]:
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


def _unfit(where: str, what: str) -> InputError:
    return InputError(where, what, "Give another --template")
