"""Ranked pairs as ids: read, cut to what fits, and some prompts kept aside with all their pairs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.read_comparisons import read_comparisons
from zhllama.conversation.read_conversations import BadRow, refuse_bad_rows
from zhllama.conversation.records import Comparison, Conversation, Turn
from zhllama.errors import InputError, OptionError
from zhllama.io.text import Advance

MOST_ASIDE = 200  # prompts at most; their pairs are measured before and after


@dataclass(frozen=True)
class TokenizedPair:
    """One prompt's ids, and those of the better and of the worse answer, each with its end."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True)
class TokenizedPairs:
    """What is learnt from, what is measured, and what was left out: read == len(learnt) + len(aside) + len(left_out).

    `read` counts pairs, but a row that is no ranking at all counts as one.
    """

    learnt: list[TokenizedPair]
    aside: list[TokenizedPair]
    left_out: list[BadRow] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        """The accounts."""
        counts = {
            "pairs": len(self.learnt),
            "pairs_aside": len(self.aside),
            "pairs_left_out": len(self.left_out),
        }
        return {"pairs_read": sum(counts.values()), **counts}


def read_pairs(
    files: Sequence[Path],
    encoder: ConversationEncoder,
    length: int,
    *,
    aside: float = 0.1,
    given_aside: Sequence[Path] = (),
    seed: int = 0,
    skip_bad: bool = False,
    advance: Advance | None = None,
) -> TokenizedPairs:
    """The pairs of some files whose prompt and answers fit into `length` ids.

    A share `aside` of the prompts, 200 at most, is kept aside by the seed and its text alone, whatever else the file
    holds; with `given_aside` the pairs of those files are. Errors: InputError for bad rows, without `skip_bad`, and where
    nothing is left to learn from.
    """
    if not 0 <= aside < 1:
        raise OptionError(f"--aside {aside}", "is not from 0 up to 1", "Give 0.1")
    shelf = _Shelf(encoder, length)
    found = [pair for path in files for pair in shelf.read(path, advance)]
    measured = [pair for path in given_aside for pair in shelf.read(path, advance)]
    if not skip_bad:
        refuse_bad_rows(shelf.bad)
    kept = set() if given_aside else _drawn({key for key, _ in found}, aside, seed)
    learnt = [pair for key, pair in found if key not in kept]
    if not learnt:
        what = f": {shelf.left_out[0].where}: {shelf.left_out[0].reason}" if shelf.left_out else ""
        raise InputError(
            files[0], f"leaves no pair to learn from{what}", "Give other pairs, or more --max-length"
        )
    held = [pair for key, pair in found if key in kept] + [pair for _, pair in measured]
    return TokenizedPairs(learnt, held, shelf.left_out)


def _drawn(prompts: set[str], share: float, seed: int) -> set[str]:
    def chance(prompt: str) -> str:
        return hashlib.sha256(f"{seed}/{prompt}".encode("utf-8", "replace")).hexdigest()

    count = min(MOST_ASIDE, round(share * len(prompts)))
    return set(sorted(prompts, key=chance)[:count])


@dataclass
class _Shelf:
    """Reads files, and keeps what is left out of them with its reason; `bad` are those that the user must know of."""

    encoder: ConversationEncoder
    length: int
    bad: list[BadRow] = field(default_factory=list)
    left_out: list[BadRow] = field(default_factory=list)

    def read(self, path: Path, advance: Advance | None) -> list[tuple[str, TokenizedPair]]:
        found = []
        for row in read_comparisons(path, advance):
            pair = row if isinstance(row, BadRow) else self._encoded(row)
            if isinstance(pair, BadRow):
                self.left_out.append(pair)
            elif isinstance(row, Comparison):
                found.append(("\n".join(f"{t.role}: {t.text}" for t in row.prompt.turns), pair))
            if isinstance(row, BadRow):
                self.bad.append(row)
        return found

    def _encoded(self, row: Comparison) -> TokenizedPair | BadRow:
        where = row.prompt.where
        try:
            prompt, chosen = self._ids(row.prompt, row.chosen)
            other, rejected = self._ids(row.prompt, row.rejected)
        except InputError as error:
            self.bad.append(BadRow(where, error.what))
            return self.bad[-1]
        assert prompt == other
        longest = len(prompt) + max(len(chosen), len(rejected))
        if longest > self.length:
            return BadRow(where, f"too long: {longest:,} tokens, of {self.length:,}")
        return TokenizedPair(prompt, chosen, rejected)

    def _ids(self, prompt: Conversation, answer: str) -> tuple[list[int], list[int]]:
        """The ids before the last answer, and those of the answer with its end; what a template writes behind it is left."""
        whole = self.encoder.encode(
            Conversation((*prompt.turns, Turn("assistant", answer)), prompt.where, prompt.id)
        )
        end = whole.ends[-1]
        start = end
        while start and whole.mask[start - 1]:
            start -= 1
        return whole.ids[:start], whole.ids[start:end]


def as_rows(pairs: Sequence[TokenizedPair], whole: bool) -> list[dict[str, Any]]:
    """Rows for trl: prompt, chosen and rejected apart for DPO; `whole`, each answer behind its prompt, for a reward model."""
    if whole:
        return [{"chosen_ids": p.prompt + p.chosen, "rejected_ids": p.prompt + p.rejected} for p in pairs]
    return [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs]
