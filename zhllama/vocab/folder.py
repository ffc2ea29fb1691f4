"""The folder of a merged vocabulary: what it holds, and how to read it back."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from zhllama.errors import InputError
from zhllama.folder import MANIFEST
from zhllama.io.files import sha256, to_json
from zhllama.io.json import read_object
from zhllama.manifest import read_manifest
from zhllama.vocab.audit import Audit
from zhllama.vocab.byte_merge import ByteMerge
from zhllama.vocab.bytelevel import readable
from zhllama.vocab.merge import Merge, Recipe

ID_MAP = "id_map.json"  # for `grow`: {"kept": [old ids in their new order]}
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def vocabulary_files(
    merge: Merge | ByteMerge, audit: Audit, transformers: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Every file of the folder, by name; `transformers` are those that AutoTokenizer loads."""
    if isinstance(merge, ByteMerge):
        rows: list[tuple[str, ...]] = [("token", "left", "right", "why")]
        rows += [(readable(j.token) or j.token, j.left, j.right, j.why) for j in merge.added]
    else:
        rows = [
            ("piece", "score", "why"),
            *((a.piece.text, f"{a.piece.score:g}", a.why) for a in merge.added),
        ]
    files = {**transformers, "added.tsv": _table(rows)}
    if merge.left_out:
        files["left_out.tsv"] = _table([("piece", "reason"), *merge.left_out])
    if merge.dropped:
        files[ID_MAP] = (json.dumps({"kept": merge.kept}) + "\n").encode()
    return {**files, "audit.json": to_json(audit.to_dict()).encode(), "README.md": _readme(audit).encode()}


def _table(rows: Iterable[Sequence[str]]) -> bytes:
    return "".join("\t".join(cell.translate(_ESCAPES) for cell in row) + "\n" for row in rows).encode()


def kept_of(folder: Path, base_size: int) -> list[int] | None:
    """The ids of the base that a pruned vocabulary still has, in its order; None where nothing was pruned."""
    path = folder / ID_MAP
    if not path.is_file():
        return None
    kept = read_object(path, "Make the vocabulary again").get("kept")
    if not isinstance(kept, list):
        raise InputError(path, "is no id map: it has no list `kept`", "Make the vocabulary again")
    if len({id for id in kept if type(id) is int and 0 <= id < base_size}) == len(kept):
        return kept
    raise InputError(
        path, f"names an id twice, or one beyond the base's {base_size:,}", "Name the right base with --base"
    )


def base_of(folder: Path) -> Path | None:
    """The base that the manifest of a folder of ours names, unchanged since; None for a stranger's folder."""
    if not (folder / MANIFEST).is_file():
        return None
    named = read_manifest(folder)["inputs"][0]
    path = Path(named["path"])
    if not path.is_file() or sha256(path) != named["sha256"]:
        raise InputError(
            path, "is not the base any more that this vocabulary was made from", "Name it with --base"
        )
    return path


def recipe_of(folder: Path) -> Recipe | None:
    """The recipe with which a folder of ours was made, or None for a stranger's."""
    if not (folder / MANIFEST).is_file():
        return None
    recipe = read_manifest(folder).get("options", {}).get("recipe")
    if recipe is not None and recipe not in get_args(Recipe):
        raise InputError(
            folder / MANIFEST, f"names an unknown recipe {recipe!r}", "Make the vocabulary again"
        )
    return cast(Recipe | None, recipe)


def _readme(found: Audit) -> str:
    if found.no_twin is None:
        judge = "the tokenizer's own" if found.kind == "byte-level" else "SentencePiece's"
        how = f"`tokenizer.json` gives {judge} ids exactly; load the folder with `AutoTokenizer.from_pretrained`.\n"
    else:
        how = (
            f"There is no `tokenizer.json`, and none can be exact: {found.no_twin}. `AutoTokenizer.from_pretrained` feeds\n"
            "SentencePiece itself (class SentencePieceBackend, transformers 5), as `zhllama.load_tokenizer` does. A\n"
            "`tokenizer.json` that another tool makes of this folder will cut text differently. Copy this folder rather than\n"
            "saving it again: `save_pretrained` (transformers 5.23) keeps the ids of the text but drops\n"
            '`"special_tokens_pattern": "bos"`, and with it the BOS that the tokenizer puts first.\n'
        )
    base = f"{found.base_size:,} of the base, unmoved"
    if found.pruned:
        base = f"{found.base_size - found.pruned:,} of the base's {found.base_size:,}, moved as `id_map.json` says"
    return (
        f"# {found.size:,} pieces, recipe `{found.recipe}`\n\nMade by `zhllama merge-vocab`: {base}, and "
        f"{found.added:,} added (`added.tsv`).\nWhat was proved is in `audit.json`, what it was made of in `manifest.json`.\n\n{how}"
    )
