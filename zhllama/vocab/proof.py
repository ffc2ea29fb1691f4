"""Proves a merge on what was written: the folder is read back by the libraries that users will use, and audited."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tokenizers import Tokenizer

from zhllama.errors import BrokenPromise, InputError
from zhllama.vocab.any_tokenizer import JsonTokenizer
from zhllama.vocab.audit import Audit, audit
from zhllama.vocab.folder import base_ids_of, recipe_of
from zhllama.vocab.read import read_vocabulary
from zhllama.vocab.reload import auto_tokenizer
from zhllama.vocab.tokenizer_config import CONFIG
from zhllama.vocab.vocabulary import Recipe, Vocabulary

Texts = Mapping[str, Iterable[str]]
Advance = Callable[[int], None]


def prove(
    file: Path,
    base: Vocabulary,
    texts: Texts,
    recipe: Recipe,
    fuzz: int = 20_000,
    seed: int = 0,
    advance: Advance = lambda lines: None,
    source: Path | None = None,
) -> Audit:
    """The audit of the vocabulary written to `file`; BrokenPromise where it is not what its recipe promises.

    `source` is the folder of the base, whose settings were carried over: an InputError about them names it.
    """
    result = audit_file(file, base, texts, recipe, fuzz, seed, advance, source)
    if not result.passed:
        broken = next(p for p in result.promises if not p.kept)
        message = f"{broken.name}: {broken.detail}"
        raise BrokenPromise(f"recipe {recipe}", message, "Please report this with the files used")
    return result


def audit_file(
    file: Path,
    base: Vocabulary,
    texts: Texts,
    recipe: Recipe | None = None,
    fuzz: int = 20_000,
    seed: int = 0,
    advance: Advance = lambda lines: None,
    source: Path | None = None,
) -> Audit:
    """The audit of the vocabulary in `file` against its base, with what its folder says of it.

    The folder's tokenizer.json is read by transformers, and its manifest and id map are honored. Errors: InputError.
    """
    vocabulary, folder = read_vocabulary(file), file.parent
    if vocabulary.kind != base.kind:
        raise InputError(file, "is not of its base's kind: one is byte-level and one is not", "Name its base")
    return audit(
        vocabulary,
        base,
        texts,
        recipe or recipe_of(folder),
        _fast_tokenizer(file, source),
        fuzz,
        seed,
        advance,
        base_ids_of(folder, base.size),
    )


def _fast_tokenizer(file: Path, source: Path | None) -> Tokenizer | None:
    """What transformers loads beside a vocabulary's file; without its settings the tokenizer.json alone, if another file."""
    path = file.with_name("tokenizer.json")
    if not path.is_file():
        return None
    if (file.parent / CONFIG).is_file():
        return auto_tokenizer(file.parent, source)
    if path == file:
        return None
    tokenizer: Tokenizer = JsonTokenizer(path).inner
    return tokenizer
