"""Reads back added.tsv, which lists the documents, the domain and the suspicions of each added piece."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zhllama.errors import InputError
from zhllama.io.text import decoded_lines
from zhllama.manifest import check_outputs
from zhllama.vocab.piece_filter import plain

ADDED = "added.tsv"


@dataclass(frozen=True)
class AddedRow:
    """Where an added piece occurs in the text that it was trained on, and what is suspicious about it."""

    documents: int
    domain: str
    suspicious: tuple[str, ...]


def read_added(folder: Path) -> Mapping[str, AddedRow] | None:
    """The rows of a folder's added.tsv by text with spaces for ▁; None where it has none, or counts no documents."""
    path = folder / ADDED
    if not path.is_file():
        return None
    check_outputs([folder], ADDED)
    lines = iter(decoded_lines(path))
    header = next(lines, "").split("\t")
    if "documents" not in header:
        return None
    rows: dict[str, AddedRow] = {}
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        row = dict(zip(header, cells, strict=False))
        if len(cells) != len(header) or (not row["documents"].isdigit() and row["documents"]):
            raise InputError(f"{path}:{number}", "is no row of added.tsv", "Make the vocabulary again")
        if row["documents"]:
            flags = tuple(filter(None, row["suspicious"].split(", ")))
            rows[plain(cells[0])] = AddedRow(int(row["documents"]), row["domain"], flags)
    return rows
