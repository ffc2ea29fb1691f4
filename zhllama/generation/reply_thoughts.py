"""Removes the thoughts of reasoning models from their replies."""

import re

from zhllama.generation.reply_remarks import THOUGHT_TAG
from zhllama.generation.tasks import Unreadable

MAX_REPLY = 400_000  # characters; no valid reply to our prompts is longer


def strip_thinking(text: str) -> str | Unreadable:
    """The reply of a reasoning model without its thought, with normalized line ends.

    A thought is a block <think>…</think> (or <thinking>, <reasoning> …) at the start, or everything before a line with
    </think> alone where the server has cut off the opening.
    """
    if len(text) > MAX_REPLY:
        return Unreadable(text, f"a reply of {len(text):,} characters")
    answer = text.replace("\r\n", "\n").replace("\x00", "").lstrip("\ufeff").strip()
    first = THOUGHT_TAG.search(answer)
    if first is None:
        return answer
    if first.start() == 0 and not _closes(first):
        end = next((tag for tag in THOUGHT_TAG.finditer(answer) if _closes(tag)), None)
        return (
            Unreadable(text, "the thought never ends")
            if end is None
            else _without_opening(answer[end.end() :])
        )
    return _without_opening(answer)


def _without_opening(text: str) -> str | Unreadable:
    """A reply without the thought whose opening is missing."""
    depth, cut = 0, 0
    for tag in THOUGHT_TAG.finditer(text):
        depth += -1 if _closes(tag) else 1
        if depth < 0:
            before, after = text[: tag.start()], text[tag.end() :]
            alone = not before.strip() or before.endswith("\n") or after.startswith("\n") or not after.strip()
            if not alone:
                return Unreadable(text, "a thought ends inside a line")
            depth, cut = 0, tag.end()
    return text[cut:].strip()


def _closes(tag: re.Match[str]) -> bool:
    return bool(tag["end"] or tag["end2"])
