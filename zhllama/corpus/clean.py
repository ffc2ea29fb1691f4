"""Builds the datatrove phases that clean a corpus: read, edit and filter; exact duplicates; near duplicates; write."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datatrove.pipeline.dedup import (
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)

from zhllama.corpus import edits, filters
from zhllama.corpus.documents import DOCUMENTS, FilePiece, Reading
from zhllama.corpus.duplicates import BUCKETS, CharacterSignature, TruePairs, exact_config, minhash_config
from zhllama.corpus.executors import Phase
from zhllama.corpus.pipeline_steps import (
    EditBlock,
    FilterBlock,
    Lengths,
    ReadPieces,
    ReadShard,
    rejects,
    writer,
)
from zhllama.errors import InputError, OutputError
from zhllama.io.json import read_json
from zhllama.run import Run

WORK, REJECTED = "work", "rejected"
MAX_SHARDS = 64
Markup = Literal["keep", "html", "all"]


@dataclass(frozen=True)
class CleaningOptions:
    """Options of the cleaning steps, in their order; each step can be disabled."""

    markup: Markup = "all"
    width: edits.Width = "letters"
    boilerplate: bool = True
    convert: edits.Convert | None = None
    mask: bool = True
    languages: tuple[filters.Language, ...] = ("zh", "en")
    script: filters.Script = "any"
    min_han: float = 0.3
    min_chars: int = 20
    max_chars: int = 5_000_000
    max_repeated: float = 0.3
    words: tuple[tuple[str, tuple[str, ...]], ...] = ()
    word_hits: int = 3
    urls: frozenset[str] = frozenset()
    exact: bool = True
    near: bool = True


def cleaning_steps(options: CleaningOptions) -> list[tuple[str, Any, bool]]:
    """Name and function of each step in order, and whether it rejects documents."""
    steps: list[tuple[str, Any, bool]] = [
        ("broken", filters.broken_text, True),
        ("unicode", edits.unicode_form, False),
    ]
    if options.urls:
        steps.append(("urls", filters.NotListed(options.urls), True))
    if options.markup != "keep":
        steps.append(("html", edits.without_html, False))
    if options.markup == "all":
        steps.append(("markdown", edits.without_markdown, False))
    if options.width != "keep":
        steps.append(("width", edits.EvenWidth(options.width), False))
    if options.boilerplate:
        steps.append(("boilerplate", edits.without_boilerplate, False))
    if options.convert is not None:
        steps.append(("convert", edits.ConvertScript(options.convert), False))
    if options.mask:
        steps.append(("mask", edits.masked, False))
    steps.append(("tidy", edits.unicode_form, False))  # removes empty lines and spaces that the edits left
    steps.append(("length", filters.OfLength(options.min_chars, options.max_chars), True))
    if options.languages:
        steps.append(("language", filters.InLanguages(options.languages, options.min_han), True))
    if options.script != "any":
        steps.append(("script", filters.InScript(options.script), True))
    steps.append(("links", filters.link_list, True))
    if options.max_repeated < 1:
        steps.append(("repetition", filters.NotRepeated(options.max_repeated), True))
    if options.words:
        steps.append(("words", filters.WithoutWords(options.words, options.word_hits), True))
    return steps


def shard(pieces: Sequence[FilePiece], most: int = MAX_SHARDS) -> list[list[FilePiece]]:
    """Consecutive pieces in at most `most` shards of about equal bytes; depends only on the files, not on the machine."""
    sizes = [(piece.stop or piece.path.stat().st_size) - piece.start for piece in pieces]
    share, total = max(1.0, sum(sizes) / most), 0
    shards: list[list[FilePiece]] = []
    for piece, size in zip(pieces, sizes, strict=True):
        if not shards or (total // share) >= len(shards) or len(pieces) <= most:
            shards.append([])
        shards[-1].append(piece)
        total += size
    return shards


def phases(
    shards: Sequence[Sequence[FilePiece]], reading: Reading, options: CleaningOptions, out: Path
) -> list[Phase]:
    """The phases in order; each writes its completion marks, stats and intermediate files to `out`/work."""
    work, rejected, documents = out / WORK, out / REJECTED, out / DOCUMENTS
    deduplicates = options.exact or options.near
    cleaned = work / "cleaned" if deduplicates else documents
    pipeline: list[Any] = [
        ReadPieces(shards, reading),
        FilterBlock("decode", _reason_as_is, rejected, field="broken"),
    ]
    for name, step, drops in cleaning_steps(options):
        if not drops:
            pipeline.append(EditBlock(name, step, work / "examples"))
        elif name == "urls":
            pipeline.append(FilterBlock(name, step, rejected, field="url"))
        else:
            pipeline.append(FilterBlock(name, step, rejected))
    pipeline += [*([] if deduplicates else [Lengths()]), writer(cleaned)]
    phase = partial(_phase, work)
    if not deduplicates:
        return [phase("clean", pipeline, len(shards))]
    unique: list[Any] = [ReadShard(cleaned)]
    last: list[Any] = [ReadShard(cleaned)]
    if options.exact:
        pipeline.append(ExactDedupSignature(str(work / "exact"), exact_config()))
        duplicates = str(work / "exact-found")
        unique.append(ExactDedupFilter(duplicates, exact_config()))
        writer_of_rejects = rejects(rejected, "exact", "exact duplicate")
        last.append(_named("exact", ExactDedupFilter(duplicates, exact_config(), writer_of_rejects)))
    result = [phase("clean", pipeline, len(shards))]
    if options.exact:
        result.append(
            phase(
                "exact",
                [ExactFindDedups(str(work / "exact"), duplicates, exact_config(), lines_to_buffer=1000)],
                1,
            )
        )
    if options.near:
        config = minhash_config()
        signatures, pairs, true, clusters = (
            work / name for name in ("signatures", "pairs", "true-pairs", "clusters")
        )
        result += [
            phase("signatures", [*unique, CharacterSignature(str(signatures))], len(shards)),
            phase(
                "buckets",
                [MinhashDedupBuckets(str(signatures), str(pairs), config=config, lines_to_buffer=1000)],
                BUCKETS,
                small=True,
            ),
            phase("pairs", [TruePairs(signatures, pairs, true)], 1),
            phase(
                "clusters", [MinhashDedupCluster(str(true), str(clusters), config, lines_to_buffer=1000)], 1
            ),
        ]
        last.append(
            _named("near", MinhashDedupFilter(str(clusters), rejects(rejected, "near", "near duplicate")))
        )
    return [*result, phase("write", [*last, Lengths(), writer(documents)], len(shards))]


def check_out(out: Path) -> None:
    """Refuse a path with characters that fsspec interprets, because datatrove opens all files through it."""
    special = next((text for text in ("*", "?", "[", "::", "://") if text in str(out.resolve())), None)
    if special is not None:
        raise OutputError(out, f"has {special} in its path", "Choose a name without it")


def keep_plan(run: Run, shards: Sequence[Sequence[FilePiece]]) -> None:
    """Write which files each task reads. Errors: InputError if a resumed run has other files than before."""
    plan = [
        [[str(p.path.resolve()), p.path.stat().st_size, p.start, p.stop] for p in pieces] for pieces in shards
    ]
    path = run.out / WORK / "plan.json"
    if path.exists():
        if read_json(path, "Start over with `force`") != plan:
            raise InputError(
                run.out, "was started with other files", "Give the same files, or start over with `force`"
            )
    else:
        run.write(f"{WORK}/plan.json", json.dumps(plan))


def sweep(out: Path) -> None:
    """Remove the intermediate files; the folder is renamed first, so that a partly deleted one is never used."""
    deleted = out / f".{WORK}"
    shutil.rmtree(deleted, ignore_errors=True)
    (out / WORK).rename(deleted)
    shutil.rmtree(deleted)


def _phase(work: Path, name: str, pipeline: Sequence[Any], tasks: int, small: bool = False) -> Phase:
    return Phase(name, pipeline, tasks, work / "logs" / name, small)


def _named(name: str, block: Any) -> Any:
    """datatrove's filter under the name that the report shows; its stats got theirs in the constructor."""
    block.type, block.name = "filter", name
    block.stats.name = str(block)
    return block


def _reason_as_is(reason: str | None) -> str | None:
    return reason
