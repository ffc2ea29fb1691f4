"""The recipes that extend a vocabulary, chosen by its kind: the only module that distinguishes the kinds.

Another kind needs a class that implements `Vocabulary`, a case in `read.read_vocabulary`, and a case in each of
`extend_by_words`, `continue_training` and `joined_ids` here. Audit, pruning, proof and folder are written over the protocol
and need none. A Metaspace base is extended by SentencePiece's recipes, through its pieces as a SentencePiece model.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from zhllama.characters import Charset
from zhllama.errors import InputError, OptionError, ZhllamaError
from zhllama.vocab import byte_level_recipes, continued, merge
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary, readable
from zhllama.vocab.metaspace_vocabulary import MetaspaceVocabulary
from zhllama.vocab.piece_filter import ACCEPT_ALL, EXCLUDED, PieceFilter, plain
from zhllama.vocab.prune import pruned
from zhllama.vocab.sentencepiece_trainer import Progress
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.train import train_on_words
from zhllama.vocab.vocabulary import AddedPiece, Merge, Recipe, Vocabulary
from zhllama.vocab.word_lists import jieba_words

WORDS = 20_000  # pieces trained on jieba's word list where none are given, as many as the published list has
NEARLY_ALL = 0.95  # of a list's words left out: it was not read as it was meant
PUBLISHED_SIZE = 17_953  # pieces that the published list adds to LLaMA's vocabulary


@dataclass(frozen=True)
class MergeOptions:
    """How a vocabulary is extended.

    `continued` adds `add` pieces, or reaches `size` pieces not counting `[PAD]`; by default it adds as many as the
    published list. With `prune`, `size` is the size after pruning, by default the base's. `prior` is the weight of
    jieba's word list relative to the text. `coverage` and `cover` select the characters that become pieces.
    `mixed` admits words of Han characters with letters or digits to `safe`. `pieces` says what does not become a piece.
    """

    recipe: Recipe = "chinese-llama"
    pad: bool = False
    add: int | None = None
    size: int | None = None
    prune: bool = False
    prior: float = 0.1
    coverage: float = 0.999
    cover: tuple[Charset, ...] = ()
    mixed: bool = False
    pieces: PieceFilter = ACCEPT_ALL

    def count(self, base: Vocabulary) -> int:
        """How many pieces `continued` adds to `base`; OptionError where `size` is below the base's."""
        if self.add is not None:
            return self.add
        if self.size is None or self.prune:
            return PUBLISHED_SIZE
        if self.size < base.size:
            message = f"{self.size:,} is fewer than the base's {base.size:,}"
            raise OptionError("size", message, "Raise it, or take `prune` leaf")
        return self.size - base.size


def default_recipe(base: Vocabulary, with_list: bool) -> Recipe:
    """The recipe of a base where none is named; `with_list`: a list of words is given."""
    if base.kind == "sentencepiece":
        return "chinese-llama"
    return "safe" if with_list else "continued"


def check_recipe(base: Vocabulary, recipe: Recipe, listed: bool = True) -> None:
    """Refuse before any work a recipe that is impossible for the base; `listed`: `safe` is given a list of words.

    Errors: OptionError where the recipe does not exist for the base's kind; InputError where the base has no merges, changes
    or splits every Chinese word before them, or has an added token that an extension would match elsewhere.
    """
    if recipe == "chinese-llama" and base.kind != "sentencepiece":
        message = f"chinese-llama is for SentencePiece, and this base is {base.kind}"
        raise OptionError("recipe", message, "Take safe or continued")
    if isinstance(base, SentencePieceVocabulary):
        merge.require_bpe(base)
    if isinstance(base, MetaspaceVocabulary):
        base.require_extensible()
    if isinstance(base, ByteLevelVocabulary):
        byte_level_recipes.require_whole(base, words=recipe == "continued" or not listed)


def extend_by_words(base: Vocabulary, words: Sequence[str], options: MergeOptions) -> Merge[Vocabulary]:
    """Extend by a word list: `chinese-llama` or `safe`."""
    check_recipe(base, options.recipe)
    if isinstance(base, ByteLevelVocabulary):
        return byte_level_recipes.safe(
            base, words, options.pad, options.mixed, options.cover, options.pieces.exclude
        )
    if isinstance(base, MetaspaceVocabulary):
        reasons = zip(words, base.why_changed(words), strict=True)
        changed = {word: reason for word, reason in reasons if reason is not None}
        merged = merge.safe(
            base.model, [word for word in words if word not in changed], options.pad, options.mixed, options.cover,
            options.pieces.exclude,
        )  # fmt: skip
        return _of(base, replace(merged, left_out=(*merged.left_out, *changed.items())))
    assert isinstance(base, SentencePieceVocabulary)
    if options.recipe == "chinese-llama":
        if options.cover:
            raise OptionError(
                "cover",
                "is not used by `recipe` chinese-llama",
                "Take safe or continued, or train the list with it",
            )
        return merge.chinese_llama(base, words, options.pad, options.pieces.exclude)
    return merge.safe(base, words, options.pad, options.mixed, options.cover, options.pieces.exclude)


def check_accepted(merged: Merge[Vocabulary], words: Iterable[str]) -> None:
    """InputError where nearly nothing of a list of words was accepted, for another reason than that the base has it."""
    listed = set(map(plain, words))  # characters of `cover` are left out as well
    left_out = [(word, reason) for word, reason in merged.left_out if plain(word) in listed]
    rejected = Counter(reason for _, reason in left_out if reason not in ("is in the base", EXCLUDED))
    tried = merged.counts().get("list", 0) + rejected.total()
    if tried < 20 or rejected.total() < NEARLY_ALL * tried:
        return
    reason, count = rejected.most_common(1)[0]
    example = next(word for word, why in left_out if why == reason)
    raise InputError(
        "`zh`",
        f"nearly nothing of the list was accepted: {rejected.total():,} of {tried:,} words were left out, {count:,} "
        f"because each {reason}, as {example!r}",
        "Check that the list has a word a line or a column of words; `mixed` admits words as 维生素C",
    )


def _check_whole(merged: Merge[Vocabulary]) -> None:
    """InputError where the base changes or splits an added piece in text: one between its parts and a piece that it leaves whole."""
    if merged.recipe == "chinese-llama":
        return
    vocabulary = merged.vocabulary
    changed = vocabulary.split(range(merged.base.size, vocabulary.size))
    if changed:
        raise InputError(
            "`base`",
            f"changes or splits {len(changed):,} of the new pieces in text, as {vocabulary.display(changed[0])!r}, by its "
            "normalizer or pre-tokenizer",
            "Put them on the `exclude` list",
        )


def extend_by_text(
    base: Vocabulary, lines: Iterable[str] | None, options: MergeOptions, progress: Progress | None = None
) -> Merge[Vocabulary]:
    """Continue the base's own BPE training on text (`continued`), or on jieba's word list where `lines` is None.

    Errors: InputError where the text contains no Chinese or is too little.
    """
    runs = Counter(dict(jieba_words())) if lines is None else count_runs(base, lines)
    if not runs:
        raise InputError("`text`", "contains no Chinese", "Give Chinese text")
    prior = 0.0 if lines is None else options.prior
    return continue_training(base, runs, options.count(base), prior, options, progress)


def count_runs(base: Vocabulary, lines: Iterable[str]) -> Counter[str]:
    """How often each run of Chinese occurs in text as the base's merges see it, with the space before it where they can."""
    count = byte_level_recipes.count_runs if base.kind == "byte-level" else continued.count_runs
    return count(base.normalized(lines))


def continue_training(
    base: Vocabulary,
    runs: Mapping[str, int],
    add: int,
    prior: float,
    options: MergeOptions = MergeOptions(),
    progress: Progress | None = None,
) -> Merge[Vocabulary]:
    """Add `add` pieces to `base` by continuing its BPE training on counted runs."""
    words = list(jieba_words()) if prior > 0 else []
    if isinstance(base, ByteLevelVocabulary):
        return byte_level_recipes.continued(
            base,
            runs,
            add,
            words,
            prior,
            options.cover,
            options.pad,
            progress=progress,
            wanted=options.pieces,
        )
    model = base.model if isinstance(base, MetaspaceVocabulary) else base
    assert isinstance(model, SentencePieceVocabulary)
    runs = continued.as_merges_see(base, runs)
    seen = continued.as_merges_see(base, dict(words)).items()
    try:
        merged = continued.continued(
            model, runs, base.size + add, seen, prior, options.coverage, options.cover, options.pad,
            progress=progress, wanted=options.pieces,
        )  # fmt: skip
    except ZhllamaError as error:
        if options.add is None or "`size`" not in error.remedy:
            raise
        # The user set `add`, so the refusal names that and not the size that results.
        what = "add" if error.where == "size" else error.where
        raise type(error)(what, error.what, error.remedy.replace("`size`", "`add`")) from None
    return _of(base, merged)


def _of(base: Vocabulary, merged: Merge[SentencePieceVocabulary]) -> Merge[Vocabulary]:
    """The same pieces added to `base`, of which `merged` extends a SentencePiece model."""
    return Merge(merged.recipe, base, merged.added, merged.left_out)


def joined_ids(merge: Merge[Vocabulary]) -> list[tuple[int, ...]]:
    """The ids that each added piece is joined from."""
    vocabulary = merge.vocabulary
    if isinstance(vocabulary, ByteLevelVocabulary):
        return byte_level_recipes.joined_ids(vocabulary, merge.added)
    model = vocabulary.model if isinstance(vocabulary, MetaspaceVocabulary) else vocabulary
    assert isinstance(model, SentencePieceVocabulary)
    return continued.joined_ids(model, merge.added)


def merge_vocabulary(
    base: Vocabulary,
    options: MergeOptions,
    words: Sequence[str] | None = None,
    lines: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Merge[Vocabulary]:
    """Extend `base` by a recipe, then prune it if `options.prune` is set.

    `words` are the pieces that `chinese-llama` and `safe` add; None trains 20,000 on jieba's word list. `lines` is the
    text that `continued` trains on (None: jieba's word list) and from which pruning counts tokens.
    Errors: OptionError for a recipe that the base's kind lacks and for pruning without text; InputError for a base
    without merges and for too little text.
    """
    if options.prune and lines is None:
        raise OptionError("text", "is needed to count which pieces are rare", "Name text to prune by")
    check_recipe(base, options.recipe, words is not None)
    text = options.pieces.text
    if text is not None:  # a piece occurs where the base's normalizer writes it
        text = replace(text, lines=list(base.normalized(text.lines)))
        options = replace(options, pieces=replace(options.pieces, text=text))
    if options.recipe == "continued":
        merged = extend_by_text(base, lines, options, progress)
    else:
        words = _trained_words(progress) if words is None else words
        merged = extend_by_words(base, words, options)
        check_accepted(merged, words)
    _check_whole(merged)
    if options.prune and lines is not None:
        merged = pruned(merged, lines, options.size or base.size)
    uses = {} if text is None else text.uses(map(plain_texts(base), merged.added))
    return replace(merged, uses=uses, exclude=options.pieces.exclude, pad_requested=options.pad)


def plain_texts(base: Vocabulary) -> Callable[[AddedPiece], str]:
    """The function that gives the text of an added piece with spaces for ▁; "" for a fragment of a character."""
    if isinstance(base, ByteLevelVocabulary):
        return lambda piece: readable(piece.text) or ""
    return lambda piece: plain(piece.text)


def _trained_words(progress: Progress | None) -> list[str]:
    return [piece.text for piece in train_on_words(WORDS, progress=progress).model.pieces]
