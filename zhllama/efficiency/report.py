"""Computes the tokenizer report: texts counted under every tokenizer, as written to report.json."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from zhllama.characters import LEVELS
from zhllama.efficiency.count import Chunk, Counts, TextTally, chunks, counting
from zhllama.efficiency.line_kinds import KINDS, LineKind
from zhllama.efficiency.measure import ALPHA, CONTEXT, Figures, MeasuredVocabulary, ModelCost, figures
from zhllama.efficiency.sentences import SENTENCES, SampledSentences, cut
from zhllama.encoding.encoder import Encoder
from zhllama.errors import InputError
from zhllama.io.text import Advance, read_lines
from zhllama.vocab.sample import sample_lines

SCHEMA = "zhllama.report/1"
COMPRESSION = 4  # approximate bytes of text per byte of a compressed file


@dataclass(frozen=True)
class LabelledText:
    """Files that are reported together under one label."""

    label: str
    files: Sequence[Path]

    @property
    def size(self) -> int:
        """Approximate bytes of text."""
        compressed = (".gz", ".xz", ".zst", ".parquet")
        return sum(f.stat().st_size * (COMPRESSION if f.suffix in compressed else 1) for f in self.files)


@dataclass(frozen=True)
class TextSource:
    """Where the lines of a text come from: all of its files, or `sample` bytes of them drawn with a seed."""

    field: str = "text"
    sample: int | None = None
    seed: int = 0

    def lines(self, text: LabelledText, advance: Advance | None) -> Iterable[str]:
        """The non-empty lines, or a sample of them."""
        lines = read_lines(text.files, self.field, advance, lone_surrogates="keep")
        return lines if self.sample is None else sample_lines(lines, self.sample, self.seed).lines

    def size(self, text: LabelledText) -> int:
        """Approximate bytes that will be counted."""
        return text.size if self.sample is None else min(text.size, self.sample)


@dataclass(frozen=True)
class ReportRow:
    """One text, or all lines of one kind, and the figures of each tokenizer on it."""

    name: str
    language: LineKind
    lines: int
    characters: int
    bytes: int
    words: int
    figures: Sequence[Figures]


@dataclass(frozen=True)
class Sentence:
    """A sentence and its tokens under each tokenizer as (id, bytes)."""

    text: str
    origin: str  # the text it was drawn from, or "sample", or "given"
    cuts: Sequence[Sequence[tuple[int, bytes]]]


@dataclass(frozen=True)
class Report:
    """All measurements; `used` contains for each tokenizer the count of each id over all texts."""

    vocabularies: Sequence[MeasuredVocabulary]
    shape: ModelCost
    source: TextSource
    languages: Sequence[ReportRow]
    texts: Sequence[ReportRow]
    sentences: Sequence[Sentence]
    used: Sequence[Counts]

    def extended(self, place: int) -> int | None:
        """The index of the largest other tokenizer that tokenizer `place` extends, or None."""
        one, others = self.vocabularies[place], enumerate(self.vocabularies)
        bases = [(other.size, at) for at, other in others if at != place and one.extends(other)]
        return max(bases)[1] if bases else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in report.json (docs/metrics.md)."""
        return {
            "schema": SCHEMA,
            "settings": {
                "base": self.vocabularies[0].label,
                "hidden": self.shape.hidden,
                "layers": self.shape.layers,
                "context": CONTEXT,
                "renyi_alpha": ALPHA,
                "sample_bytes": self.source.sample,
                "seed": self.source.seed,
            },
            "tokenizers": [self._tokenizer(place) for place in range(len(self.vocabularies))],
            "languages": [self._row(row) for row in self.languages],
            "texts": [self._row(row) for row in self.texts],
        }

    def _tokenizer(self, place: int) -> dict[str, Any]:
        vocabulary, base = self.vocabularies[place], self.extended(place)
        rows = vocabulary.size * self.shape.hidden
        return {
            "label": vocabulary.label,
            "source": vocabulary.source,
            "size": vocabulary.size,
            "embedding_parameters": {"tied": rows, "untied": 2 * rows},
            "single_characters": {name: list(vocabulary.covered(name)) for name in LEVELS},
            "extends": None if base is None else self.vocabularies[base].label,
            "added": None if base is None else vocabulary.size - self.vocabularies[base].size,
        }

    def _row(self, row: ReportRow) -> dict[str, Any]:
        by_vocabulary = zip(self.vocabularies, row.figures, strict=True)
        return {
            **{key: value for key, value in vars(row).items() if key != "figures"},
            "tokenizers": {
                vocabulary.label: _rounded(asdict(figures)) for vocabulary, figures in by_vocabulary
            },
        }


def report(
    vocabularies: Sequence[MeasuredVocabulary],
    texts: Sequence[LabelledText],
    source: TextSource | None = None,
    shape: ModelCost | None = None,
    sentences: Sequence[str] = (),
    advance: Advance | None = None,
) -> Report:
    """Count and measure texts; `sentences` are shown with built-in ones and some sampled from the texts.

    Errors: InputError for an empty text, and where no text contains Chinese.
    """
    source, shape = source or TextSource(), shape or ModelCost()
    by_text = {text.label: _empty(vocabularies) for text in texts}
    by_kind = defaultdict[tuple[str, LineKind], int](int)
    kinds = {kind: _empty(vocabularies) for kind in KINDS}
    sampled = SampledSentences(Random(source.seed))
    encoders = [Encoder(vocabulary.tokenizer) for vocabulary in vocabularies]
    size = sum(map(source.size, texts))
    for encoder in encoders:
        encoder.expect(size // 3)
    labels = [text.label for text in texts]
    with counting(encoders, size) as count:
        for place, parts in count(_chunks(texts, source, sampled, advance)):
            for part in parts:
                by_text[labels[place]].add(part)
                kinds[part.kind].add(part)
                by_kind[labels[place], part.kind] += part.bytes
    for text in texts:
        if not by_text[text.label].lines:
            raise InputError(text.files[0], "contains no text", "Name a file with text")
    if not kinds["simplified"].lines + kinds["traditional"].lines:
        raise InputError(", ".join(labels), "contains no Chinese", "Give Chinese text, alone or in addition")

    def row(name: str, language: LineKind, tally: TextTally) -> ReportRow:
        words = round(tally.words * tally.characters / max(1, tally.worded))
        text_figures = figures(vocabularies, tally, shape)
        return ReportRow(name, language, tally.lines, tally.characters, tally.bytes, words, text_figures)

    shown = [("given", s) for s in sentences] + [("sample", s) for s in SENTENCES] + sampled.sentences()
    return Report(
        vocabularies,
        shape,
        source,
        [row(kind, kind, tally) for kind, tally in kinds.items() if tally.lines],
        [
            row(label, max(KINDS, key=lambda kind: by_kind.get((label, kind), 0)), tally)
            for label, tally in by_text.items()
        ],
        [
            Sentence(text, origin, [cut(vocabulary.tokenizer, text) for vocabulary in vocabularies])
            for origin, text in shown
        ],
        [sum((t.tokens[i] for t in kinds.values()), start=_zeros(v)) for i, v in enumerate(vocabularies)],
    )


def _empty(vocabularies: Sequence[MeasuredVocabulary]) -> TextTally:
    return TextTally([_zeros(vocabulary) for vocabulary in vocabularies])


def _zeros(vocabulary: MeasuredVocabulary) -> Counts:
    return np.zeros(vocabulary.size, np.int64)


def _chunks(
    texts: Sequence[LabelledText], source: TextSource, sampled: SampledSentences, advance: Advance | None
) -> Iterator[Chunk]:
    for place, text in enumerate(texts):
        lines = sampled.observe(text.label, source.lines(text, advance))
        yield from chunks(place, lines, source.size(text))


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Round to six significant digits; differences beyond them mean nothing."""

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: rounded(inner) for key, inner in value.items()}
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return {key: rounded(value) for key, value in values.items()}
