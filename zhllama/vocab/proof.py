"""A merge proved: the audit that holds it to its recipe's promises, and the files of its folder."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from zhllama.errors import BrokenPromise, InputError
from zhllama.vocab import byte_folder, huggingface
from zhllama.vocab.audit import Audit, audit
from zhllama.vocab.byte_audit import byte_audit
from zhllama.vocab.byte_merge import ByteMerge
from zhllama.vocab.bytelevel import ByteLevel
from zhllama.vocab.folder import kept_of, recipe_of, vocabulary_files
from zhllama.vocab.kinds import Vocabulary, read_vocabulary, size_of
from zhllama.vocab.load import JsonTokenizer
from zhllama.vocab.merge import PAD, Merge, Recipe
from zhllama.vocab.settings import CONFIG

Texts = Mapping[str, Iterable[str]]
Advance = Callable[[int], None]


def proved(
    merge: Merge | ByteMerge, source: Path, texts: Texts, fuzz: int, seed: int, advance: Advance
) -> tuple[Audit, dict[str, bytes]]:
    """The audit of a merge and the files of its folder; BrokenPromise where it is not what its recipe promises.

    `source` is the file of its base.
    """
    kept = merge.kept if merge.dropped else None
    if isinstance(merge, ByteMerge):
        files = byte_folder.transformers_files(merge, source)
        twin = byte_folder.reloaded(files, source.parent)
        found = byte_audit(merge.model, merge.base, texts, merge.recipe, twin, fuzz, seed, advance, kept)
    else:
        model = merge.model
        specials = huggingface.Specials(pad=PAD if PAD in model.ids else None)
        files = huggingface.transformers_files(model, specials)
        exact = None
        if huggingface.why_no_twin(model) is None:
            exact = huggingface.fast_tokenizer(model, specials)
            exact.encode_special_tokens = True
        found = audit(model, merge.base, texts, merge.recipe, exact, fuzz, seed, advance, kept)
    if not found.passed:
        broken = next(p for p in found.promises if not p.kept)
        raise BrokenPromise(
            f"recipe {merge.recipe}",
            f"{broken.name}: {broken.told}",
            "Please report this with the files used",
        )
    return found, vocabulary_files(merge, found, files)


def audit_file(
    file: Path,
    base: Vocabulary,
    texts: Texts,
    recipe: Recipe | None,
    fuzz: int,
    seed: int,
    advance: Advance,
) -> Audit:
    """The audit of the vocabulary in `file` against its base, with what lies beside it: manifest, id map, twin."""
    model, folder = read_vocabulary(file), file.parent
    recipe = recipe or recipe_of(folder)
    kept = kept_of(folder, size_of(base))
    if isinstance(model, ByteLevel) and isinstance(base, ByteLevel):
        loads = (folder / CONFIG).is_file() and file.name == "tokenizer.json"
        reloaded = byte_folder.auto_tokenizer(folder) if loads else None
        return byte_audit(model, base, texts, recipe, reloaded, fuzz, seed, advance, kept)
    if isinstance(model, ByteLevel) or isinstance(base, ByteLevel):
        raise InputError(file, "is not of its base's kind: one is byte-level and one is not", "Name its base")
    twin = file.with_name("tokenizer.json")
    inner = JsonTokenizer(twin).inner if twin.exists() else None
    return audit(model, base, texts, recipe, inner, fuzz, seed, advance, kept)
