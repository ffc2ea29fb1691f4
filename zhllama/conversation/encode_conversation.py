"""Encodes a conversation as ids, with a loss mask over the answers and their end tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from zhllama.conversation.answer_segments import Segment, Thoughts, segments, unfit
from zhllama.conversation.records import Conversation
from zhllama.conversation.template import ChatTemplate, special_token_texts
from zhllama.errors import InputError

SHORT = 64  # characters of a text whose ids are cached


@dataclass(frozen=True)
class Encoded:
    """Ids and loss mask [n] of one sample.

    Per trained answer: `ends` are the lengths up to its end token, `starts` the lengths before it, `texts` its text.
    """

    ids: list[int]
    mask: list[bool]
    ends: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()

    def cut(self, length: int) -> "Encoded | None":
        """The longest prefix of whole turns in `length` ids; None where the first answer does not fit."""
        if len(self.ids) <= length:
            return self
        fits = tuple(end for end in self.ends if end <= length)
        if not fits:
            return None
        end, count = fits[-1], len(fits)
        return Encoded(self.ids[:end], self.mask[:end], fits, self.starts[:count], self.texts[:count])


class ConversationEncoder:
    """Encodes conversations with one transformers tokenizer and one template.

    `thoughts`: whether the thoughts before answers are trained (`keep`), left out (`drop`), or context (`mask`).
    """

    def __init__(self, tokenizer: Any, template: ChatTemplate, thoughts: Thoughts = "keep") -> None:
        self.tokenizer, self.template, self.thoughts = tokenizer, template, thoughts
        self._specials = special_token_texts(tokenizer)
        self._stop = tokenizer.convert_tokens_to_ids(template.stop)
        # The texts before answers and at the end repeat across conversations.
        self._short = lru_cache(1024)(self._ids)

    def encode(self, conversation: Conversation) -> Encoded:
        """Encode the sample that is the whole conversation; see `samples`."""
        return self.samples(conversation)[-1]

    def samples(self, conversation: Conversation) -> list[Encoded]:
        """Encode the samples of a conversation segment by segment: prompt, answer, end and next prompt, answer, and so on.

        Most templates give one sample, the whole conversation; see `segments`. Each segment is tokenized by itself, which
        gives the mask. The ids equal those of `tokenizer.apply_chat_template` on the whole conversation, and the ids
        before an answer equal those of its prompt alone (docs/sft.md).
        Errors: InputError, with the conversation's place, for a text that contains a special token, and for a template
        that cannot be split into segments.
        """
        self._refuse_specials(conversation)
        samples = segments(conversation, self.tokenizer, self.template, self.thoughts)
        if not samples:
            raise InputError(conversation.where, "has no answer that is to be trained on", "Remove the row")
        return [self._encoded(sample, conversation.where) for sample in samples]

    def _encoded(self, sample: Sequence[Segment], where: str) -> Encoded:
        ids: list[int] = []
        mask: list[bool] = []
        starts: list[int] = []
        ends: list[int] = []
        before = ""
        for segment in sample:
            text = segment.text
            if segment.answer:
                segment_ids = self._continued(text, before, where)
                if segment.trained:
                    starts.append(len(ids))
            else:
                segment_ids = self._short(text) if len(text) < SHORT else self._ids(text)
            mask += [segment.trained] * len(segment_ids)
            if starts and not segment.answer:
                if segment_ids[:1] != [self._stop]:
                    raise unfit(where, f"{self.template.stop} is not a token of the tokenizer")
                mask[len(ids)] = True
                ends.append(len(ids) + 1)
            ids += segment_ids
            before = text[-1:] or before
        texts = tuple(segment.text.strip() for segment in sample if segment.trained)
        return Encoded(ids, mask, tuple(ends), tuple(starts), texts)

    def prove(self, conversation: Conversation) -> None:
        """Raise InputError unless the segments' ids equal the ids of the whole text of each sample."""
        samples = segments(conversation, self.tokenizer, self.template, self.thoughts)
        for sample, encoded in zip(samples, self.samples(conversation), strict=True):
            if encoded.ids != self._ids("".join(segment.text for segment in sample)):
                reason = "the tokenizer splits the whole text differently from its segments"
                raise unfit(conversation.where, reason)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _continued(self, text: str, before: str, where: str) -> list[int]:
        """The ids of a text after `before`; tokenized without it, SentencePiece would add a space."""
        left, both = self._short(before), self._ids(before + text)
        if both[: len(left)] != left:
            raise unfit(where, f"the tokenizer merges an answer with the {before!r} before it")
        return both[len(left) :]

    def _refuse_specials(self, conversation: Conversation) -> None:
        """Refuse a text that contains a special token: it could end an answer early."""
        for token in self._specials:
            if token in conversation.tools:
                reason = f"a tool contains the special token {token}"
                raise InputError(conversation.where, reason, "Remove the row, or give `skip_bad`")
        for turn in conversation.turns:
            texts = (turn.text, turn.thought, *(call.arguments for call in turn.calls))
            for token in self._specials:
                if any(token in text for text in texts):
                    reason = f"a turn of the {turn.role} contains the special token {token}"
                    raise InputError(conversation.where, reason, "Remove the row, or give `skip_bad`")
