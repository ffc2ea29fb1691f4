"""Sentences of shipped or given text that the tasks on words and characters are made of."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.chinese_tasks.items import key
from zhllama.io.rows import read_rows
from zhllama.io.text import read_documents
from zhllama.resources import sample_files, shipped

SHORTEST, LONGEST = 12, 28  # characters: enough to tell the answer, and cheap to score
PLAIN = re.compile(r"[\u4e00-\u9fff，、]+[。！？]")
OVERLAP = 13  # characters shared with training text that make a sentence known


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the document that it comes from."""

    text: str
    document: str


def sentences(files: Sequence[Path], known: Sequence[Path] = ()) -> list[Sentence]:
    """The plain sentences of files, or of the shipped texts if there are none, in the order of their hashes.

    Left out: sentences with figures, quotes or Latin letters, and those that share OVERLAP characters with a text of `known`.
    """
    found: dict[str, Sentence] = {}
    for document, text in _documents(files):
        for line in text.splitlines():
            for sentence in re.findall(r"[^。！？；]+[。！？]", line):
                if PLAIN.fullmatch(sentence) and SHORTEST <= len(sentence) <= LONGEST:
                    found.setdefault(sentence, Sentence(sentence, document))
    pieces = {piece for path in known for text in read_documents([path]) for piece in _pieces(text)}
    kept = [sentence for sentence in found.values() if pieces.isdisjoint(_pieces(sentence.text))]
    return sorted(kept, key=lambda sentence: key("sentence", sentence.text))


def _pieces(text: str) -> set[str]:
    length = min(OVERLAP, len(text))
    return {text[at : at + length] for at in range(len(text) - length + 1)}


def _documents(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Name and text of each document."""
    if files:
        for path in files:
            for number, text in enumerate(read_documents([path]), 1):
                yield f"{path.name}:{number}", text
        return
    for path in sample_files("zh"):
        yield path.name, path.read_text(encoding="utf-8")
    for _, row in read_rows(shipped("seeds_zh", "seed_tasks.jsonl")):
        for instance in row["instances"]:
            yield str(row["id"]), str(instance["output"])
