"""The folder of a merged vocabulary: what it holds, and how to read it back."""

from pathlib import Path
from typing import cast, get_args

from zhllama.errors import InputError
from zhllama.files import sha256, to_json
from zhllama.run import MANIFEST, read_manifest
from zhllama.vocab.audit import Audit
from zhllama.vocab.huggingface import Specials, transformers_files, why_no_twin
from zhllama.vocab.merge import PAD, Merge, Recipe

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def vocabulary_files(merge: Merge, audit: Audit) -> dict[str, bytes]:
    """Every file of the folder, by name."""
    model = merge.model
    pad = PAD if PAD in model.ids else None
    rows = [f"{a.piece.text.translate(_ESCAPES)}\t{a.piece.score:g}\t{a.why}" for a in merge.added]
    return {
        **transformers_files(model, Specials(pad=pad)),
        "added.tsv": ("\n".join(["piece\tscore\twhy", *rows]) + "\n").encode(),
        "audit.json": to_json(audit.to_dict()).encode(),
        "README.md": _readme(merge, why_no_twin(model)).encode(),
    }


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


def _readme(merge: Merge, no_twin: str | None) -> str:
    size, base = len(merge.base.pieces) + len(merge.added), len(merge.base.pieces)
    how = (
        "`tokenizer.json` gives SentencePiece's ids exactly; load the folder with `AutoTokenizer.from_pretrained`.\n"
        if no_twin is None
        else f"There is no `tokenizer.json`, and none can be exact: {no_twin}. `AutoTokenizer.from_pretrained` feeds\n"
        "SentencePiece itself (class SentencePieceBackend, transformers 5), as `zhllama.load_tokenizer` does. A\n"
        "`tokenizer.json` that another tool makes of this folder will cut text differently. Copy this folder rather than\n"
        "saving it again: `save_pretrained` (transformers 5.23) keeps the ids of the text but drops\n"
        '`"special_tokens_pattern": "bos"`, and with it the BOS that the tokenizer puts first.\n'
    )
    return (
        f"# {size:,} pieces, recipe `{merge.recipe}`\n\nMade by `zhllama merge-vocab`: {base:,} of the base, unmoved, and "
        f"{size - base:,} added (`added.tsv`).\nWhat was proved is in `audit.json`, what it was made of in `manifest.json`.\n\n{how}"
    )
