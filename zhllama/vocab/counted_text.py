"""Counts in how many documents, how often and in which domain pieces occur in a sample of text."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from zhllama.chinese_script import OutputScript, in_script
from zhllama.io.text import RECORDS, Advance, decoded_lines, read_documents, split_documents, text_format

MEMO = 500_000  # lines and runs whose pieces are remembered


@dataclass(frozen=True)
class PieceUse:
    """How many documents contain a piece, how often it occurs, and the domain that most occurrences are in."""

    documents: int = 0
    count: int = 0
    domain: str = ""
    share: float = 0.0  # of the occurrences, in that domain


@dataclass
class DocumentLines:
    """The non-empty lines of files as `read_lines` gives them; `document` is the number of the last line's document.

    A document is a record, or in plain text the lines up to a blank line; in a file without blank lines it is a line.
    Each file is a domain.
    """

    files: Sequence[Path]
    text_field: str = "text"
    advance: Advance | None = None
    document: int = -1
    first: list[int] = field(default_factory=list)  # the number of each file's first document

    def __iter__(self) -> Iterator[str]:
        for path in self.files:
            self.first.append(self.document + 1)
            for text in self._documents(path):
                self.document += 1
                yield from (line for line in text.splitlines() if line.strip())

    def _documents(self, path: Path) -> Iterator[str]:
        if text_format(path) in RECORDS:
            yield from read_documents([path], self.text_field, self.advance)
            return
        documents = split_documents(decoded_lines(path, self.advance))
        begin = [
            document for document in (next(documents, None), next(documents, None)) if document is not None
        ]
        has_blank_lines = len(begin) == 2 and not begin[0][1]
        for lines, _ in chain(begin, documents):
            yield from ["\n".join(lines)] if has_blank_lines else lines


@dataclass(frozen=True)
class CountedText:
    """Lines with the number of their document each, in its order; `first` is the number of each domain's first document."""

    lines: Sequence[str]
    documents: Sequence[int]
    domains: Sequence[str]
    first: Sequence[int]

    @classmethod
    def sampled(
        cls,
        lines: Iterable[str],
        documents: Iterable[int],
        source: DocumentLines,
        script: OutputScript = "as-is",
    ) -> "CountedText":
        """Lines drawn from `source`, converted to a script as training does."""
        pairs = [
            (one, n) for line, n in zip(lines, documents, strict=True) for one in in_script([line], script)
        ]
        names = [path.name for path in source.files]
        if len(set(names)) < len(names):
            names = list(map(str, source.files))
        return cls([line for line, _ in pairs], [n for _, n in pairs], names, source.first)

    def uses(self, pieces: Iterable[str]) -> dict[str, PieceUse]:
        """The use of each piece, in which a space is a space; every occurrence counts, overlapping ones too."""
        texts = list(dict.fromkeys(text for text in pieces if text))
        numbers = {text: number for number, text in enumerate(texts)}
        prefixes = {text[:length] for text in texts for length in range(1, len(text))}
        documents, counts = Counter[int](), [Counter[int]() for _ in self.domains]
        memo: dict[str, list[int]] = {}
        inside: Counter[int] = Counter()
        current: int | None = None

        def finish() -> None:
            if current is not None:
                documents.update(inside.keys())
                counts[bisect_right(self.first, current) - 1].update(inside)
                inside.clear()

        for line, document in zip(self.lines, self.documents, strict=True):
            if document != current:
                finish()
                current = document
            found = memo.get(line)
            if found is None:
                if len(memo) >= MEMO:
                    memo.clear()
                found = memo[line] = _occurrences(f" {line}", numbers, prefixes)
            inside.update(found)
        finish()
        return {text: self._use(number, documents, counts) for text, number in numbers.items()}

    def _use(self, number: int, documents: Counter[int], counts: Sequence[Counter[int]]) -> PieceUse:
        total = sum(count[number] for count in counts)
        if not total:
            return PieceUse()
        most = max(range(len(counts)), key=lambda domain: counts[domain][number])
        return PieceUse(documents[number], total, self.domains[most], counts[most][number] / total)


def _occurrences(text: str, numbers: dict[str, int], prefixes: set[str]) -> list[int]:
    found = []
    for begin in range(len(text)):
        for end in range(begin + 1, len(text) + 1):
            part = text[begin:end]
            number = numbers.get(part)
            if number is not None:
                found.append(number)
            if part not in prefixes:
                break
    return found
