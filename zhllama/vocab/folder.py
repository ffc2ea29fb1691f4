"""The folder of a merged vocabulary: its descriptive files, and how to read them back."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast, get_args

from zhllama.errors import InputError
from zhllama.io.files import is_present, sha256, to_json
from zhllama.io.json import read_object
from zhllama.manifest import read_manifest
from zhllama.run_folder import MANIFEST, is_run_folder
from zhllama.vocab.audit import Audit
from zhllama.vocab.piece_filter import use_cells
from zhllama.vocab.recipes import plain_texts
from zhllama.vocab.vocabulary import AddedPiece, Merge, Recipe, V

ID_MAP = "id_map.json"  # for `grow`: {"kept": [old ids in their new order]}
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def report_files(merge: Merge[V], audit: Audit) -> dict[str, bytes]:
    """The files, by name, that describe a merge: what was added and left out, the audit, a README."""
    rows = [{**merge.base.table_row(piece), **_use_cells(merge, piece)} for piece in merge.added]
    header = [*merge.base.table_row(AddedPiece("", "list")), *_use_cells(merge, AddedPiece("", "list"))]
    files = {"added.tsv": table([header, *(list(row.values()) for row in rows)])}
    if merge.left_out:
        files["left_out.tsv"] = table([("piece", "reason"), *merge.left_out])
    return {**files, "audit.json": to_json(audit.to_dict()).encode(), "README.md": _readme(audit).encode()}


def _use_cells(merge: Merge[V], piece: AddedPiece) -> dict[str, str]:
    """The cells of added.tsv that tell where a piece occurs and what is suspicious about it; none without counts."""
    if not merge.uses:
        return {}
    text = plain_texts(merge.base)(piece)
    return use_cells(text, merge.uses.get(text), merge.exclude)


def id_map(merge: Merge[V]) -> dict[str, bytes]:
    """id_map.json of a pruned vocabulary, by its name; nothing for any other."""
    return {ID_MAP: (json.dumps({"kept": merge.base_ids}) + "\n").encode()} if merge.removed else {}


def table(rows: Iterable[Sequence[str]]) -> bytes:
    """Rows as tab-separated values, in which tabs and line ends are escaped."""
    return "".join("\t".join(cell.translate(_ESCAPES) for cell in row) + "\n" for row in rows).encode()


def base_ids_of(folder: Path, base_size: int) -> list[int] | None:
    """The ids of the base that a pruned vocabulary still has, in its order; None where nothing was pruned."""
    path = folder / ID_MAP
    if not path.is_file():
        return None
    kept = read_object(path, "Make the vocabulary again").get("kept")
    if not isinstance(kept, list):
        raise InputError(path, "is not an id map: it has no list `kept`", "Make the vocabulary again")
    if len({id for id in kept if type(id) is int and 0 <= id < base_size}) == len(kept):
        return kept
    raise InputError(
        path, f"repeats an id, or has one beyond the base's {base_size:,}", "Name the right base with `base`"
    )


def base_of(folder: Path) -> Path | None:
    """The unchanged base that the manifest of a zhllama folder names; None for other folders."""
    if not _has_manifest(folder):
        return None
    recorded = read_manifest(folder)["inputs"][0]
    path = Path(recorded["path"])
    if not path.is_file() or sha256(path) != recorded["sha256"]:
        raise InputError(
            path, "is no longer the base that this vocabulary was made from", "Name it with `base`"
        )
    return path


def recipe_of(folder: Path) -> Recipe | None:
    """The recipe that a zhllama folder was made with; None for other folders."""
    if not _has_manifest(folder):
        return None
    recipe = read_manifest(folder).get("options", {}).get("recipe")
    if recipe is not None and recipe not in get_args(Recipe):
        raise InputError(
            folder / MANIFEST, f"names an unknown recipe {recipe!r}", "Make the vocabulary again"
        )
    return cast(Recipe | None, recipe)


def _has_manifest(folder: Path) -> bool:
    """Whether this is the folder of a finished run. Errors: InputError for that of an unfinished one, which states no recipe."""
    if is_present(folder / MANIFEST):
        return True
    if is_run_folder(folder):
        raise InputError(folder, "is an unfinished run: it has no manifest.json", "Make the vocabulary again")
    return False


def _readme(audit: Audit) -> str:
    if audit.why_no_fast_tokenizer is None:
        reference = "the tokenizer's own" if audit.kind != "sentencepiece" else "SentencePiece's"
        loading = f"`tokenizer.json` gives {reference} ids exactly; load the folder with `AutoTokenizer.from_pretrained`.\n"
    else:
        loading = (
            f"There is no `tokenizer.json`, and none can be exact: {audit.why_no_fast_tokenizer}.\n"
            "`AutoTokenizer.from_pretrained` uses SentencePiece itself (class SentencePieceBackend, transformers 5), as\n"
            "`zhllama.load_any_tokenizer` does. A `tokenizer.json` that another tool makes of this folder will tokenize text\n"
            "differently.\n\n"
            "zhllama's commands decode exactly. A bare `AutoTokenizer` (transformers 5.23) encodes exactly, but its `decode` shows a\n"
            "character without a piece as its bytes, a line feed as `<0x0A>`, and strips the text. Decode with SentencePiece:\n"
            "`tokenizer.sp_model.decode([id for id in ids if id not in tokenizer.all_special_ids])`.\n\n"
            "Copy this folder rather than saving it again: `save_pretrained` (transformers 5.23) keeps the ids of\n"
            'the text but drops `"special_tokens_pattern": "bos"`, and with it the BOS that the tokenizer puts first.\n'
        )
    base = f"{audit.base_size:,} of the base at their old ids"
    if audit.pruned:
        remaining = audit.base_size - audit.pruned
        base = f"{remaining:,} of the base's {audit.base_size:,}, at the ids in `id_map.json`"
    return (
        f"# {audit.size:,} pieces, recipe `{audit.recipe}`\n\nWritten by `zhllama merge-vocab`: {base}, and "
        f"{audit.added:,} added (`added.tsv`).\n`audit.json` contains the proofs, `manifest.json` the inputs.\n\n{loading}"
    )
