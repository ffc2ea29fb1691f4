"""The recipes that extend a vocabulary of either kind: the one place that tells the kinds apart."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from zhllama.characters import Charset
from zhllama.errors import InputError, OptionError
from zhllama.vocab import byte_level_recipes, continued, merge
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary
from zhllama.vocab.prune import pruned
from zhllama.vocab.sentencepiece_trainer import Progress
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.vocabulary import Merge, Recipe, Vocabulary
from zhllama.vocab.word_lists import jieba_words

PUBLISHED_SIZE = 17_953  # pieces that the published list adds to LLaMA's vocabulary


@dataclass(frozen=True)
class MergeOptions:
    """How a vocabulary is extended.

    `add` and `size` are for `continued` and exclude each other unless `prune` is set: pieces to add, and pieces in all
    without `[PAD]`. With `prune`, `size` is what pruning leaves, by default the base's size. `prior` is the weight of
    jieba's word list beside text of weight 1; `coverage` and `cover` choose the characters that become pieces.
    """

    recipe: Recipe = "chinese-llama"
    pad: bool = False
    add: int | None = None
    size: int | None = None
    prune: bool = False
    prior: float = 0.1
    coverage: float = 0.999
    cover: tuple[Charset, ...] = ()

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


def check_recipe(base: Vocabulary, recipe: Recipe) -> None:
    """OptionError where a recipe does not exist for the base's kind."""
    if recipe == "chinese-llama" and base.kind == "byte-level":
        message = "chinese-llama is for SentencePiece, and this base is byte-level"
        raise OptionError("recipe", message, "Take safe or continued")


def extend_by_words(base: Vocabulary, words: Sequence[str], options: MergeOptions) -> Merge[Vocabulary]:
    """Extend by a word list: `chinese-llama` or `safe`."""
    check_recipe(base, options.recipe)
    if isinstance(base, ByteLevelVocabulary):
        return byte_level_recipes.safe(base, words, options.pad)
    assert isinstance(base, SentencePieceVocabulary)
    recipe = merge.chinese_llama if options.recipe == "chinese-llama" else merge.safe
    return recipe(base, words, options.pad)


def extend_by_text(
    base: Vocabulary, lines: Iterable[str] | None, options: MergeOptions, progress: Progress | None = None
) -> Merge[Vocabulary]:
    """Continue the base's own BPE training on text (`continued`), or on jieba's word list where `lines` is None.

    Errors: InputError where the text contains no Chinese or is too little.
    """
    runs = Counter(dict(jieba_words())) if lines is None else count_runs(base, lines)
    if not runs:
        raise InputError("--text", "holds no Chinese", "Give Chinese text")
    prior = 0.0 if lines is None else options.prior
    return continue_training(base, runs, options.count(base), prior, options, progress)


def count_runs(base: Vocabulary, lines: Iterable[str]) -> Counter[str]:
    """How often each run of Chinese occurs, with the spaces that the base's merges can take along."""
    count = byte_level_recipes.count_runs if base.kind == "byte-level" else continued.count_runs
    return count(lines)


def continue_training(
    base: Vocabulary,
    runs: Mapping[str, int],
    add: int,
    prior: float,
    options: MergeOptions = MergeOptions(),
    progress: Progress | None = None,
) -> Merge[Vocabulary]:
    """`continued` for either kind of vocabulary, with `add` pieces from counted runs."""
    words = jieba_words()
    if isinstance(base, ByteLevelVocabulary):
        return byte_level_recipes.continued(
            base, runs, add, words, prior, options.cover, options.pad, progress=progress
        )
    assert isinstance(base, SentencePieceVocabulary)
    return continued.continued(
        base, runs, base.size + add, words, prior, options.coverage, options.cover, options.pad,
        progress=progress,
    )  # fmt: skip


def joined_ids(merge: Merge[Vocabulary]) -> list[tuple[int, ...]]:
    """The ids that each added piece is joined from."""
    vocabulary = merge.vocabulary
    if isinstance(vocabulary, ByteLevelVocabulary):
        return byte_level_recipes.joined_ids(vocabulary, merge.added)
    assert isinstance(vocabulary, SentencePieceVocabulary)
    return continued.joined_ids(vocabulary, merge.added)


def merge_vocabulary(
    base: Vocabulary,
    options: MergeOptions,
    words: Callable[[], Sequence[str]],
    lines: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Merge[Vocabulary]:
    """Extend `base` by its recipe, then prune it where that is requested.

    `words` gives the list of the recipes that take one; `lines` is the text of `continued` and of pruning.
    """
    if options.recipe == "continued":
        merged = extend_by_text(base, lines, options, progress)
    else:
        check_recipe(base, options.recipe)
        merged = extend_by_words(base, words(), options)
    if options.prune:
        assert lines is not None
        merged = pruned(merged, lines, options.size or base.size)
    return merged
