"""Examples of preferences as ids: read, filtered by length, and split by prompt into training and validation."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.read_conversations import BadRow, refuse_bad_rows
from zhllama.conversation.records import Conversation
from zhllama.conversation.row_fields import RowReading
from zhllama.conversation.row_forms import RowForm
from zhllama.errors import InputError, OptionError
from zhllama.io.text import Advance

MAX_VALIDATION_PROMPTS = 200  # the examples of these prompts are measured before and after training


class Example(Protocol):
    """A tokenized example: the ids of its longest sequence, and all ids that training reads."""

    @property
    def longest(self) -> int: ...
    @property
    def tokens(self) -> int: ...


@dataclass(frozen=True)
class ExampleForm:
    """What a trainer learns from: its name in figures, how it is read, and its rows for trl.

    `read` yields the rows of a file, `prompt` is what an answer of a row is given to, `encode` makes an example of a row.
    `check` raises InputError for examples that cannot be trained on, with the file and the reason of the first rejected row.
    `figures` adds counts of its own.
    """

    noun: Literal["pairs", "answers"]
    read: Callable[[Path, Advance | None, RowReading], Iterator[Any]]
    prompt: Callable[[Any], Conversation]
    encode: Callable[[ConversationEncoder, Any], Example]
    check: Callable[[Sequence[Any], Path, str], None]
    rows: Callable[[Sequence[Any]], list[dict[str, Any]]]
    figures: Callable[[Sequence[Any]], dict[str, int]] = lambda training: {}


@dataclass(frozen=True)
class Examples:
    """Examples for training, for validation, and rejected rows with their reason; all rows read are in one of the three."""

    form: ExampleForm
    training: list[Any]
    validation: list[Any]
    rejected: list[BadRow]
    unused_fields: list[dict[str, Any]]

    def figures(self) -> dict[str, int]:
        """Return the counts."""
        noun = self.form.noun
        counts = {
            noun: len(self.training),
            f"validation_{noun}": len(self.validation),
            f"{noun}_left_out": len(self.rejected),
        }
        return {f"{noun}_read": sum(counts.values()), **counts, **self.form.figures(self.training)}


def read_examples(
    form: ExampleForm,
    files: Sequence[Path],
    encoder: ConversationEncoder,
    length: int,
    *,
    validation_share: float = 0.1,
    validation_files: Sequence[Path] = (),
    seed: int = 0,
    skip_bad: bool = False,
    field_map: Mapping[str, str] | None = None,
    forms: Mapping[Path, RowForm] | None = None,
    advance: Advance | None = None,
) -> Examples:
    """Read the examples of some files of which no sequence is longer than `length` ids.

    Validation: the examples of `validation_files`, else those of a share of the prompts, 200 at most, chosen by the seed and
    the prompt's text alone, whatever else the files contain. Errors: InputError for bad rows without `skip_bad`, and if
    what is left cannot be trained on.
    """
    if not 0 <= validation_share < 1:
        raise OptionError(f"validation_share {validation_share}", "is not from 0 up to 1", "Give 0.1")
    reader = _Reader(form, encoder, length, field_map or {}, forms or {})
    examples = [example for path in files for example in reader.read(path, advance)]
    extra = [example for path in validation_files for _, example in reader.read(path, advance)]
    if not skip_bad:
        refuse_bad_rows(reader.bad)
    prompts = set() if validation_files else {prompt for prompt, _ in examples}
    chosen = validation_prompts(prompts, validation_share, seed)
    training = [example for prompt, example in examples if prompt not in chosen]
    reason = f": {reader.rejected[0].where}: {reader.rejected[0].reason}" if reader.rejected else ""
    form.check(training, files[0], reason)
    validation = [example for prompt, example in examples if prompt in chosen] + extra
    return Examples(form, training, validation, reader.rejected, reader.unused)


def validation_prompts(prompts: set[str], share: float, seed: int) -> set[str]:
    """The prompts of the validation split, a share of all, chosen by the seed and their text alone."""

    def rank(prompt: str) -> str:
        return hashlib.sha256(f"{seed}/{prompt}".encode("utf-8", "replace")).hexdigest()

    count = min(MAX_VALIDATION_PROMPTS, round(share * len(prompts)))
    return set(sorted(prompts, key=rank)[:count])


@dataclass
class _Reader:
    """Reads files of examples: `rejected` gets all rejected rows with their reason, `bad` those that are malformed."""

    form: ExampleForm
    encoder: ConversationEncoder
    length: int
    field_map: Mapping[str, str]
    forms: Mapping[Path, RowForm]
    bad: list[BadRow] = field(default_factory=list)
    rejected: list[BadRow] = field(default_factory=list)
    unused: list[dict[str, Any]] = field(default_factory=list)

    def read(self, path: Path, advance: Advance | None) -> list[tuple[str, Example]]:
        """Return the examples of a file, each with its prompt as text."""
        examples = []
        reading = RowReading(self.field_map, form=self.forms.get(path))
        for row in self.form.read(path, advance, reading):
            if isinstance(row, BadRow):
                self.rejected.append(row)
                self.bad += [] if row.marked else [row]
                continue
            prompt = self.form.prompt(row)
            example = self._encoded(row, prompt.where)
            if isinstance(example, BadRow):
                self.rejected.append(example)
            else:
                text = "\n".join(f"{turn.role}: {turn.text}" for turn in prompt.turns)
                examples.append((text, example))
        self.unused += [
            {"file": str(path), "field": name, "rows": count} for name, count in reading.unused.most_common()
        ]
        return examples

    def _encoded(self, row: Any, where: str) -> Example | BadRow:
        try:
            example = self.form.encode(self.encoder, row)
        except InputError as error:
            self.bad.append(BadRow(where, error.what))
            return self.bad[-1]
        if example.longest > self.length:
            return BadRow(where, f"too long: {example.longest:,} tokens, of {self.length:,}")
        return example


def last_answer_ids(encoder: ConversationEncoder, conversation: Conversation) -> tuple[list[int], list[int]]:
    """The ids before the last answer, and those of the answer with its end token, without what follows it."""
    encoded = encoder.encode(conversation)
    start, end = encoded.starts[-1], encoded.ends[-1]
    return encoded.ids[:start], encoded.ids[start:end]
