"""report.html: the report on one self-contained page, with a BPE in JavaScript for typed text."""

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any

import numpy as np

from zhllama.efficiency.measure import MeasuredVocabulary
from zhllama.efficiency.report import Report
from zhllama.encoding.tables import why_not_compiled
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

SCRIPTS = ("words", "bpe", "elements", "charts", "viewer", "pieces", "page")
LARGEST = 2_000_000  # bytes of JSON of one model that the page carries

Shown = str | list[str]  # the text of a token, or where it is no whole characters its bytes: ["E4BD"]


def page(report: Report) -> str:
    """The whole page; texts of the user stand in it as JSON only, and the page makes no markup of them."""
    data = json.dumps(page_data(report), ensure_ascii=False, separators=(",", ":"))
    filled = {
        "style": _file("page.css"),
        "script": "(() => {\n" + "\n".join(_file(f"{name}.js") for name in SCRIPTS) + "\n})();",
        # Neither </script> nor <!-- can end what the data stand in.
        "data": data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
    }
    head, *rest = _file("page.html").split("{{")
    return head + "".join(filled[name] + text for name, _, text in (part.partition("}}") for part in rest))


def _file(name: str) -> str:
    return files("zhllama.efficiency").joinpath("page", name).read_text(encoding="utf-8")


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
            yield {
                "tokenizer": place,
                "on": base,
                "from": first,
                "pieces": [shown(s) for s in vocabulary.surfaces[first:]] if models[place] is None else None,
                "counts": report.used[place][first:].tolist(),
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
