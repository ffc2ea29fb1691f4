"""Writes a merged vocabulary into a run folder, and proves what was written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.resources import sample_lines
from zhllama.run import Run
from zhllama.vocab.audit import Audit
from zhllama.vocab.folder import id_map, report_files
from zhllama.vocab.proof import prove
from zhllama.vocab.vocabulary import Merge, V


@dataclass(frozen=True)
class ProvenMerge:
    """A merged vocabulary on disk: the audit of its files, and the manifest of their folder."""

    audit: Audit
    manifest: dict[str, Any]


def write_merge(
    merge: Merge[V],
    source: Path,
    run: Run,
    *,
    fuzz: int = 20_000,
    seed: int = 0,
    advance: Callable[[int], None] = lambda lines: None,
) -> ProvenMerge:
    """Write the vocabulary, read it back, check every promise of its recipe, and finish the run, which is open.

    `source`: the file of the base. `fuzz`: the number of random strings in the proof of parity. `advance` gets the
    number of lines that were compared. Errors: BrokenPromise, before the manifest is written.
    """
    products = merge.vocabulary.transformers_files(
        source, merge.base_ids if merge.removed else None, merge.pad
    )
    for name, content in {**products, **id_map(merge)}.items():
        run.write(name, content)
    written = run.out / ("tokenizer.model" if "tokenizer.model" in products else "tokenizer.json")
    audit = prove(written, merge.base, sample_lines(), merge.recipe, fuzz, seed, advance, source.parent)
    for name, content in report_files(merge, audit).items():
        run.write(name, content)
    figures = {
        "pieces": audit.size,
        "base_pieces": audit.base_size,
        "added": merge.counts(),
        "left_out": len(merge.left_out),
        "dead": len(audit.dead),
        "drift": [audit.drift.differ, audit.drift.lines],
        "sentence_tokens": [len(pieces) for pieces in audit.sentence],
        "tied": audit.tied,
        "exact_fast_tokenizer": audit.why_no_fast_tokenizer is None,
        "pruned": audit.pruned,
    }
    return ProvenMerge(audit, run.finish(figures))
