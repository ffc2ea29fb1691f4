"""Audits a vocabulary as written to disk: the folder is read back by the libraries that users will use."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zhllama.errors import BrokenPromise, InputError
from zhllama.io.files import is_present
from zhllama.io.json import read_object
from zhllama.vocab.any_tokenizer import JsonTokenizer
from zhllama.vocab.audit import Audit, audit
from zhllama.vocab.carried_over import SampledLines, compare_folders
from zhllama.vocab.fast_tokenizer import SENTENCEPIECE, Specials, fast_tokenizer
from zhllama.vocab.folder import base_ids_of, recipe_of
from zhllama.vocab.metaspace_vocabulary import MetaspaceVocabulary
from zhllama.vocab.read import read_vocabulary
from zhllama.vocab.reload import auto_tokenizer
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
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
    """Audit the vocabulary written to `file`; BrokenPromise where it breaks a promise of its recipe.

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
    """Audit the vocabulary in `file` against its base.

    transformers reads the folder's tokenizer.json; recipe and id map come from the folder. Errors: InputError.
    """
    vocabulary, folder = read_vocabulary(file), file.parent
    vocabulary, base = _of_one_kind(vocabulary, base)
    if vocabulary.kind != base.kind:
        raise InputError(
            file,
            f"is not of the same kind as its base: it is {vocabulary.kind}, and the base is {base.kind}",
            "Name its base",
        )
    sampled, base_ids = SampledLines(texts), base_ids_of(folder, base.size)
    result = audit(
        vocabulary,
        base,
        sampled.texts,
        recipe or recipe_of(folder),
        _fast_tokenizer(file, source),
        fuzz,
        seed,
        advance,
        base_ids,
    )
    remaining = sorted(base.entries) if base_ids is None else base_ids
    new_id = {id: id if base_ids is None else new for new, id in enumerate(remaining)}
    if not is_present(folder / CONFIG):
        return result
    return replace(result, carried=compare_folders(folder, base, new_id, sampled.lines))


def _of_one_kind(vocabulary: Vocabulary, base: Vocabulary) -> tuple[Vocabulary, Vocabulary]:
    """The same vocabularies; where one is a .model and the other a tokenizer.json in its spelling, both as a tokenizer.json.

    `save_pretrained` leaves no .model in a folder: its tokenizer.json is compared with the exact one of the .model.
    """
    if {vocabulary.kind, base.kind} != {"sentencepiece", "metaspace"}:
        return vocabulary, base
    return _as_json(vocabulary), _as_json(base)


def _as_json(vocabulary: Vocabulary) -> Vocabulary:
    """A SentencePiece vocabulary as the tokenizer.json that gives its ids, where there is one; any other as it is."""
    if isinstance(vocabulary, SentencePieceVocabulary) and vocabulary.why_no_fast_tokenizer() is None:
        content = fast_tokenizer(vocabulary, Specials()).to_str(pretty=False)
        return MetaspaceVocabulary(content, vocabulary.settings)
    return vocabulary


def _fast_tokenizer(file: Path, source: Path | None) -> Any:
    """The tokenizer that transformers loads from the file's folder, called as `tokenizers` is.

    Without tokenizer_config.json it is tokenizer.json alone, or None where that is `file` itself or does not exist.
    """
    path, config = file.with_name("tokenizer.json"), file.with_name(CONFIG)
    if is_present(config) and (
        is_present(path) or read_object(config).get("tokenizer_class") == SENTENCEPIECE
    ):
        return auto_tokenizer(file.parent, source)
    return JsonTokenizer(path).inner if is_present(path) and path != file else None
