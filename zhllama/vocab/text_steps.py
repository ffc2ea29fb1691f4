"""The steps of a tokenizer.json around its merges that do what SentencePiece does: spaces, ▁ before or after a text, user-defined pieces."""

import re
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

from zhllama.vocab.vocabulary import SPACE

if TYPE_CHECKING:
    from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary


def why_no_steps(model: "SentencePieceVocabulary") -> str | None:
    """Why no steps of a tokenizer.json do what SentencePiece does to a text before and between merges, or None."""
    normalizer, trainer = model.normalizer, model.trainer
    if normalizer.precompiled_charsmap:
        return "it changes the text before tokenizing it"
    if not normalizer.escape_whitespaces:
        return f"it does not write spaces as {SPACE}"
    if model.user_defined and (trainer.treat_whitespace_as_suffix or normalizer.remove_extra_whitespaces):
        return f"it contains user-defined pieces, and removes spaces or puts {SPACE} after words"
    puts_before = normalizer.add_dummy_prefix and not trainer.treat_whitespace_as_suffix
    if normalizer.remove_extra_whitespaces and puts_before and _inside(model) == "never":
        return f"it removes spaces, and its folder's tokenizer puts no {SPACE} after a special token"
    user = matched_pieces(model)
    raw = matched_before_spaces(model)
    changes = normalizer.remove_extra_whitespaces or trainer.treat_whitespace_as_suffix
    if raw and (changes or (user and not normalizer.add_dummy_prefix)):
        return f"its folder adds the token {raw}, and the model itself must change the spaces around it"
    if user and normalizer.add_dummy_prefix:
        dead = len(model.dead(range(model.size)))
        if dead:
            return f"it contains user-defined pieces, puts {SPACE} before a text and has {dead:,} dead pieces"
    return None


def matched_pieces(model: "SentencePieceVocabulary") -> tuple[str, ...]:
    """User-defined pieces that SentencePiece matches, and that are no added tokens of the model's folder."""
    tokens = model.settings.tokens.values() if model.settings is not None else ()
    added = {token.content for token in tokens}
    return tuple(text for text in model.user_defined if text not in added)


def matched_before_spaces(model: "SentencePieceVocabulary") -> str | None:
    """An added token with ▁ in it that the folder's tokenizer matches in a text as it stands, before spaces become ▁; or None.

    It is marked to be matched after normalizing, but LlamaTokenizer of transformers 5 has no normalizer: ▁ is put by its
    pre-tokenizer. So no normalizer may turn " the" into "▁the" before such a token is looked for.
    """
    settings = model.settings
    if settings is None or getattr(settings.tokenizer, "_tokenizer", None) is None:
        return None
    if settings.tokenizer._tokenizer.normalizer is not None:
        return None
    tokens = (token for token in settings.tokens.values() if token.normalized and SPACE in token.content)
    return next((token.content for token in tokens), None)


def matched_as_words(model: "SentencePieceVocabulary") -> bool:
    """Whether user-defined pieces are split off after ▁ was put before the text, and are then looked up as whole words.

    `tokenizers` matches added tokens before it normalizes a text, or it normalizes their names too: either way a text that
    begins with one would get no ▁. Looking up whole words (`ignore_merges`) is exact where no piece is dead.
    """
    return bool(matched_pieces(model)) and model.normalizer.add_dummy_prefix


def set_text_steps(tokenizer: Tokenizer, model: "SentencePieceVocabulary") -> None:
    """Set the normalizer, pre-tokenizer and decoder of a tokenizer whose model has the merges."""
    spec, space, inside = model.normalizer, normalizers.Replace(" ", SPACE), _inside(model)
    suffix = model.trainer.treat_whitespace_as_suffix
    steps: list[Any] = []
    words: list[Any] = _word_splits(model) if matched_as_words(model) else []
    if spec.remove_extra_whitespaces:
        steps = [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" +"), " ")]
    if not spec.add_dummy_prefix:
        steps.append(space)
    elif suffix and spec.remove_extra_whitespaces:
        # All ▁ at the end become one, also where there is nothing else.
        end = Regex(f"(?:(?<!{SPACE}){SPACE}+|(?<=[^{SPACE}]))\\z")
        steps += [space, normalizers.Replace(end, SPACE)]
    elif suffix:
        steps += [space, normalizers.Replace(Regex(r"(?<=[\s\S])\z"), SPACE)]
    elif inside == "prepend" or spec.remove_extra_whitespaces:
        steps += [normalizers.Prepend(SPACE), space]
    else:
        # A normalizer sees each text between special tokens as a text of its own. `Metaspace` knows the place in the whole
        # text, but puts no ▁ where there is one already. So the first one, in which ▁ is an ordinary character, puts a space
        # before the text.
        steps.append(space)
        first = pre_tokenizers.Metaspace(" ", prepend_scheme="first", split=False)
        words = [first, pre_tokenizers.Metaspace(SPACE, prepend_scheme=inside, split=False), *words]
    if matched_before_spaces(model) is not None:
        steps.remove(space)
        words = [pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=False), *words]
    if spec.remove_extra_whitespaces and not (suffix and spec.add_dummy_prefix):
        # Without the lookbehind a run of ▁ inside a line would be searched from each of its characters.
        steps.append(normalizers.Replace(Regex(f"(?<!{SPACE}){SPACE}+\\z"), ""))
    if steps:
        tokenizer.normalizer = steps[0] if len(steps) == 1 and words else normalizers.Sequence(steps)
    if words:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    strip = [decoders.Strip(" ", *((0, 1) if suffix else (1, 0)))] if spec.add_dummy_prefix else []
    bytes_ = [decoders.ByteFallback()] if model.byte_ids else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), *bytes_, decoders.Fuse(), *strip])


def _inside(model: "SentencePieceVocabulary") -> Any:
    return model.settings.inside if model.settings is not None else "prepend"


def _word_splits(model: "SentencePieceVocabulary") -> list[Any]:
    """Splits off each user-defined piece, and splits a word that is spelled as <0x41> or </s> where SentencePiece splits it."""
    user = "|".join(map(re.escape, matched_pieces(model)))
    splits = [pre_tokenizers.Split(Regex(user), "isolated")]
    names = [p.text for p in model.pieces if p.kind in ("byte", "control", "unknown", "unused")]
    firsts: dict[str, list[str]] = {}
    for name, ids in zip(names, model.bare.encode(names), strict=True):
        first = model.texts[ids[0]] if name.startswith(model.texts[ids[0]]) else name[:1]
        firsts.setdefault(first, []).append(name[len(first) :])
    if firsts:
        rests = (
            f"{re.escape(first)}(?=(?:{'|'.join(map(re.escape, rest))})\\z)" for first, rest in firsts.items()
        )
        splits.append(pre_tokenizers.Split(Regex(f"\\A(?:{'|'.join(rests)})"), "isolated"))
    return splits
