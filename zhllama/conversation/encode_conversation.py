"""Encodes a conversation as ids, with a loss mask over the answers and their end tokens."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from zhllama.conversation.records import Conversation
from zhllama.conversation.template import ChatTemplate, special_token_texts
from zhllama.errors import InputError

SHORT = 64  # characters of a text whose ids are cached


@dataclass(frozen=True)
class Encoded:
    """Ids and loss mask [n]; `ends` are the lengths up to the end token of each answer."""

    ids: list[int]
    mask: list[bool]
    ends: tuple[int, ...] = ()

    def cut(self, length: int) -> "Encoded | None":
        """The longest prefix of whole turns in `length` ids; None where the first answer does not fit."""
        if len(self.ids) <= length:
            return self
        end = max((end for end in self.ends if end <= length), default=0)
        fits = tuple(e for e in self.ends if e <= end)
        return Encoded(self.ids[:end], self.mask[:end], fits) if end else None


class ConversationEncoder:
    """Encodes conversations with one transformers tokenizer and one template."""

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        self.tokenizer, self.template = tokenizer, template
        self._specials = special_token_texts(tokenizer)
        self._stop = tokenizer.convert_tokens_to_ids(template.stop)
        # The texts before answers and at the end repeat across conversations.
        self._short = lru_cache(1024)(self._ids)

    def encode(self, conversation: Conversation) -> Encoded:
        """Encode a conversation segment by segment: prompt, answer, end and next prompt, answer, and so on.

        Each segment is tokenized by itself, which gives the mask. The ids equal those of `tokenizer.apply_chat_template`
        on the whole conversation, and the ids before an answer equal those of its prompt alone (docs/sft.md).
        Errors: InputError, with the conversation's place, for a text that contains a special token, and for a template
        that cannot be split into segments.
        """
        self._refuse_specials(conversation)
        ids: list[int] = []
        mask: list[bool] = []
        ends: list[int] = []
        for number, (text, before) in enumerate(segments(conversation, self.tokenizer, self.template)):
            if number % 2:
                segment_ids = self._continued(text, before, conversation.where)
                mask += [True] * len(segment_ids)
            else:
                segment_ids = self._short(text) if len(text) < SHORT else self._ids(text)
                mask += [False] * len(segment_ids)
                if number:
                    if segment_ids[:1] != [self._stop]:
                        raise _unfit(
                            conversation.where, f"{self.template.stop} is not a token of the tokenizer"
                        )
                    mask[len(ids)] = True
                    ends.append(len(ids) + 1)
            ids += segment_ids
        return Encoded(ids, mask, tuple(ends))

    def prove(self, conversation: Conversation) -> None:
        """Raise InputError unless the segments' ids equal the ids of the whole text."""
        whole = self._ids(self.template.render(self.tokenizer, conversation.turns))
        if self.encode(conversation).ids != whole:
            raise _unfit(
                conversation.where, "the tokenizer splits the whole text differently from its segments"
            )

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _continued(self, text: str, before: str, where: str) -> list[int]:
        """The ids of a text after `before`; tokenized without it, SentencePiece would add a space."""
        left, both = self._short(before), self._ids(before + text)
        if both[: len(left)] != left:
            raise _unfit(where, f"the tokenizer merges an answer with the {before!r} before it")
        return both[len(left) :]

    def _refuse_specials(self, conversation: Conversation) -> None:
        """Refuse a text that contains a special token: it could end an answer early."""
        for turn in conversation.turns:
            for token in self._specials:
                if token in turn.text:
                    reason = f"a turn of the {turn.role} contains the special token {token}"
                    raise InputError(conversation.where, reason, "Remove the row, or give `skip_bad`")


def segments(conversation: Conversation, tokenizer: Any, template: ChatTemplate) -> list[tuple[str, str]]:
    """The text of a conversation as alternating prompts and answers, each with the character before it.

    An answer ends before `template.stop`, with which the next prompt begins; the last segment is the end of the text.
    """
    whole = template.render(tokenizer, conversation.turns)
    parts: list[tuple[str, str]] = []
    at = 0
    for number, turn in enumerate(conversation.turns):
        if turn.role != "assistant":
            continue
        prompt = template.render(tokenizer, conversation.turns[:number], opened=True)
        begin = len(prompt)
        end = whole.find(template.stop, begin)
        if begin <= at or not whole.startswith(prompt):
            raise _unfit(
                conversation.where,
                "the template renders the text before an answer differently once the answer follows",
            )
        if end < 0:
            raise _unfit(conversation.where, f"no {template.stop} follows an answer")
        if whole[begin:end].strip() != turn.text.strip():
            raise _unfit(conversation.where, "the template changes an answer")
        parts += [(whole[at:begin], whole[at - 1 : at]), (whole[begin:end], whole[begin - 1])]
        at = end
    return [*parts, (whole[at:], whole[at - 1 : at])]


def _unfit(where: str, what: str) -> InputError:
    return InputError(where, what, "Give another `template`")
