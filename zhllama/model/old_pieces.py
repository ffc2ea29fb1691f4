"""New pieces cut into the old vocabulary: what a new row can be made of before any training."""

from collections.abc import Sequence
from pathlib import Path

from zhllama.errors import InputError
from zhllama.vocab.any_tokenizer import AnyTokenizer, JsonTokenizer, SentencePieceTokenizer
from zhllama.vocab.vocabulary import SPACE


def cut_inside(old: AnyTokenizer, surfaces: Sequence[bytes]) -> list[list[int]]:
    """The old ids of each surface as it is cut in the middle of a text: nothing is put before it.

    Bytes that are no whole characters (pieces of byte-level vocabularies) are cut byte by byte.
    """
    texts = [_text(surface) for surface in surfaces]
    whole = [text for text in texts if text is not None]
    if isinstance(old, SentencePieceTokenizer):
        cuts: list[list[int]] = old.model.bare.encode(whole)
    elif isinstance(old, JsonTokenizer) and not old.byte_level:
        cuts = [[t.id for t in old.inner.model.tokenize(text.replace(" ", SPACE))] for text in whole]
    else:
        cuts = old.encode(whole)
    ready = iter(cuts)
    single = _bytes_of(old) if len(whole) < len(texts) else {}
    return [
        next(ready) if text is not None else [single[b] for b in surface if b in single]
        for surface, text in zip(surfaces, texts, strict=True)
    ]


def _text(surface: bytes) -> str | None:
    try:
        return surface.decode()
    except UnicodeDecodeError:
        return None


def _bytes_of(old: AnyTokenizer) -> dict[int, int]:
    """The id of each single byte."""
    return {surface[0]: id for id in range(old.size) for surface in [old.surface(id)] if len(surface) == 1}


def check_extends(old: AnyTokenizer, new: AnyTokenizer, kept: Sequence[int], where: Path) -> None:
    """Refuse a tokenizer whose first ids do not stand for what the model's rows `kept` stand for."""
    if new.size < len(kept):
        raise InputError(
            where,
            f"has {new.size:,} ids and the model's own vocabulary {len(kept):,}",
            "Give a tokenizer made from the model's own; a pruned one needs its id_map.json",
        )
    for id, was in enumerate(kept):
        if new.surface(id) != old.surface(was):
            raise InputError(
                where,
                f"does not fit the model: id {id} is {new.surface(id)!r} there and "
                f"{old.surface(was)!r} in the model's own tokenizer",
                "Give one that was made from that",
            )
