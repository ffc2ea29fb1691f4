"""The cleaning of a corpus as datatrove phases: read, edit and filter; exact duplicates; near duplicates; write."""

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
MOST_SHARDS = 64
Markup = Literal["keep", "html", "all"]


@dataclass(frozen=True)
class CleaningOptions:
    """What is done to each document; the steps stand in this order, and each can be left out."""

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


def cleaning_steps(how: CleaningOptions) -> list[tuple[str, Any, bool]]:
    """Name, function and whether it drops documents, in order."""
    steps: list[tuple[str, Any, bool]] = [
        ("broken", filters.broken_text, True),
        ("unicode", edits.unicode_form, False),
    ]
    if how.urls:
        steps.append(("urls", filters.NotListed(how.urls), True))
    if how.markup != "keep":
        steps.append(("html", edits.without_html, False))
    if how.markup == "all":
        steps.append(("markdown", edits.without_markdown, False))
    if how.width != "keep":
        steps.append(("width", edits.EvenWidth(how.width), False))
    if how.boilerplate:
        steps.append(("boilerplate", edits.without_boilerplate, False))
    if how.convert is not None:
        steps.append(("convert", edits.ConvertScript(how.convert), False))
    if how.mask:
        steps.append(("mask", edits.masked, False))
    steps.append(
        ("tidy", edits.unicode_form, False)
    )  # what the edits left behind: empty lines, spaces at line ends
    steps.append(("length", filters.OfLength(how.min_chars, how.max_chars), True))
    if how.languages:
        steps.append(("language", filters.InLanguages(how.languages, how.min_han), True))
    if how.script != "any":
        steps.append(("script", filters.InScript(how.script), True))
    steps.append(("links", filters.link_list, True))
    if how.max_repeated < 1:
        steps.append(("repetition", filters.NotRepeated(how.max_repeated), True))
    if how.words:
        steps.append(("words", filters.WithoutWords(how.words, how.word_hits), True))
    return steps


def shard(pieces: Sequence[FilePiece], most: int = MOST_SHARDS) -> list[list[FilePiece]]:
    """Consecutive pieces in at most `most` shards of about the same bytes. Depends on the files alone, not on the machine."""
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
    shards: Sequence[Sequence[FilePiece]], reading: Reading, how: CleaningOptions, out: Path
) -> list[Phase]:
    """The pipelines in order; each leaves its marks, stats and passing products under `out`/work."""
    work, rejected, documents = out / WORK, out / REJECTED, out / DOCUMENTS
    deduplicates = how.exact or how.near
    cleaned = work / "cleaned" if deduplicates else documents
    pipeline: list[Any] = [
        ReadPieces(shards, reading),
        FilterBlock("decode", _broken, rejected, field="broken"),
    ]
    for name, step, drops in cleaning_steps(how):
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
    if how.exact:
        pipeline.append(ExactDedupSignature(str(work / "exact"), exact_config()))
        found = str(work / "exact-found")
        unique.append(ExactDedupFilter(found, exact_config()))
        last.append(
            _named(
                "exact",
                ExactDedupFilter(found, exact_config(), rejects(rejected, "exact", "exact duplicate")),
            )
        )
    done = [phase("clean", pipeline, len(shards))]
    if how.exact:
        done.append(
            phase(
                "exact",
                [ExactFindDedups(str(work / "exact"), found, exact_config(), lines_to_buffer=1000)],
                1,
            )
        )
    if how.near:
        config = minhash_config()
        signatures, pairs, true, clusters = (
            work / name for name in ("signatures", "pairs", "true-pairs", "clusters")
        )
        done += [
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
    return [*done, phase("write", [*last, Lengths(), writer(documents)], len(shards))]


def check_out(out: Path) -> None:
    """Refuse a folder whose name means something to fsspec, through which datatrove opens everything."""
    odd = next((sign for sign in ("*", "?", "[", "::", "://") if sign in str(out.resolve())), None)
    if odd is not None:
        raise OutputError(out, f"has {odd} in its path", "Choose a plainer name")


def keep_plan(run: Run, shards: Sequence[Sequence[FilePiece]]) -> None:
    """Write down what each task reads; InputError when a run that goes on finds other files than it began with."""
    plan = [
        [[str(p.path.resolve()), p.path.stat().st_size, p.start, p.stop] for p in pieces] for pieces in shards
    ]
    path = run.out / WORK / "plan.json"
    if path.exists():
        if read_json(path, "Start over with --force") != plan:
            raise InputError(
                run.out, "was begun with other files", "Give back the same ones, or start over with --force"
            )
    else:
        run.write(f"{WORK}/plan.json", json.dumps(plan))


def sweep(out: Path) -> None:
    """Remove what only the phases needed: first all of it at once, so that no half of it is ever taken for a whole."""
    gone = out / f".{WORK}"
    shutil.rmtree(gone, ignore_errors=True)
    (out / WORK).rename(gone)
    shutil.rmtree(gone)


def _phase(work: Path, name: str, pipeline: Sequence[Any], tasks: int, small: bool = False) -> Phase:
    return Phase(name, pipeline, tasks, work / "logs" / name, small)


def _named(name: str, block: Any) -> Any:
    """datatrove's block under the name that the page tells; its stats were named when it was made."""
    block.type, block.name = "filter", name
    block.stats.name = str(block)
    return block


def _broken(reason: str | None) -> str | None:
    return reason
