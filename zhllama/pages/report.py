"""report.html: the report on one self-contained page, with a BPE in JavaScript for typed text."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from zhllama.efficiency.measure import MeasuredVocabulary
from zhllama.efficiency.report import Report
from zhllama.encoding.tables import why_not_compiled
from zhllama.pages.render import embedded_json, render
from zhllama.vocab.added_table import read_added
from zhllama.vocab.piece_filter import suspicions
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

PARTS = ("bpe", "elements", "charts", "viewer", "pieces", "page")
SCRIPTS = ("elements.js", *(f"report_{name}.js" for name in PARTS))
PARTS = ("overview", "charts", "viewer", "lengths", "pieces", "notes")
LARGEST = 2_000_000  # bytes of JSON of one model that the page carries

Shown = str | list[str]  # the text of a token, or where it is no whole characters its bytes: ["E4BD"]


def report_page(report: Report) -> str:
    """The whole page; the user's texts are only in its JSON, and the page's script never parses them as HTML."""
    return page_of(page_data(report))


def page_of(data: dict[str, Any]) -> str:
    """The page of such data."""
    return render(
        "report",
        SCRIPTS,
        title="zhllama report",
        parts=[part for part in PARTS if part != "pieces" or data["added"]],
        data=embedded_json(data),
    )


def page_data(report: Report) -> dict[str, Any]:
    """report.json, and what the page shows beside it: cut sentences, models to cut with, added pieces."""
    models = _models(report.vocabularies)
    return {
        **report.to_dict(),
        "sentences": [
            {
                "text": s.text,
                "origin": s.origin,
                "cuts": [[[id, shown(surface)] for id, surface in cut] for cut in s.cuts],
            }
            for s in report.sentences
        ],
        "models": models,
        "added": list(_added(report, models)),
    }


def shown(surface: bytes) -> Shown:
    """A token as the page shows it."""
    try:
        return surface.decode()
    except UnicodeDecodeError:
        return [surface.hex().upper()]


def _added(report: Report, models: Sequence[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    """The pieces of each tokenizer that extends another, in the order of their ids, and how often each occurs."""
    for place, vocabulary in enumerate(report.vocabularies):
        base = report.extended(place)
        if base is not None:
            first = report.vocabularies[base].size
            texts = [surface.decode("utf-8", "replace") for surface in vocabulary.surfaces[first:]]
            rows = None if vocabulary.folder is None else read_added(vocabulary.folder)
            found = [(rows or {}).get(text) for text in texts]
            flags = (
                row.suspicious if row is not None else tuple(suspicions(text))
                for row, text in zip(found, texts, strict=True)
            )
            yield {
                "tokenizer": place,
                "on": base,
                "from": first,
                "pieces": [shown(s) for s in vocabulary.surfaces[first:]] if models[place] is None else None,
                "counts": report.used[place][first:].tolist(),
                "documents": None if rows is None else [row.documents if row else 0 for row in found],
                "domains": None if rows is None else [row.domain if row else "" for row in found],
                "suspicious": {at: list(one) for at, one in enumerate(flags) if one},
            }


def _models(vocabularies: Sequence[MeasuredVocabulary]) -> list[dict[str, Any] | None]:
    """What the page cuts typed text with, for each SentencePiece BPE that is not too large; None for the others.

    A model that begins with the pieces of an earlier one holds only the others, `on` that one.
    """
    models: list[dict[str, Any] | None] = []
    texts: list[list[str]] = []
    for vocabulary in vocabularies:
        tokenizer = vocabulary.tokenizer
        model = tokenizer.sentencepiece
        texts.append([p.text for p in model.pieces] if model is not None and _runs_in_a_page(model) else [])
        if model is None or not texts[-1]:
            models.append(None)
            continue
        on = max(
            (at for at, other in enumerate(texts[:-1]) if other and texts[-1][: len(other)] == other),
            key=lambda at: len(texts[at]),
            default=None,
        )
        made: dict[str, Any] = {
            "on": on,
            "pieces": texts[-1][len(texts[on]) if on is not None else 0 :],
            "ranks": _ranks(model),
            "prefix": bool(model.normalizer.add_dummy_prefix),
        }
        if len(json.dumps(made, ensure_ascii=False).encode()) > LARGEST:
            texts[-1] = []
        models.append(made if texts[-1] else None)
    return models


def _runs_in_a_page(model: SentencePieceVocabulary) -> bool:
    return why_not_compiled(model) is None and not model.normalizer.remove_extra_whitespaces


def _ranks(model: SentencePieceVocabulary) -> list[list[int]]:
    """The order of merging, 0 first, equal for equal scores, -1 for what never merges; as steps: [[step, times], ...]."""
    scores = np.array([p.score for p in model.pieces], np.float32)
    ranks = np.unique(-scores, return_inverse=True)[1]
    merging = np.array([p.kind == "normal" for p in model.pieces])
    steps = np.diff(np.where(merging, ranks, -1), prepend=0).tolist()
    return [[step, len(list(times))] for step, times in groupby(steps)]
