"""Tokenizes new pieces into old ones, from which their rows are initialized, and checks that a vocabulary extends another."""

from collections.abc import Sequence
from pathlib import Path

from zhllama.errors import InputError
from zhllama.vocab.any_tokenizer import AnyTokenizer


def tokenize_surfaces(old: AnyTokenizer, surfaces: Sequence[bytes]) -> list[list[int]]:
    """The old ids of each surface as in the middle of a text, so without a space prefix.

    A surface that is not whole characters (a piece of a byte-level vocabulary) is tokenized byte by byte.
    """
    texts = [_text(surface) for surface in surfaces]
    whole = [text for text in texts if text is not None]
    remaining = iter(old.encode_inside(whole))
    byte_ids = _byte_ids(old) if len(whole) < len(texts) else {}
    return [
        next(remaining) if text is not None else [byte_ids[b] for b in surface if b in byte_ids]
        for surface, text in zip(surfaces, texts, strict=True)
    ]


def _text(surface: bytes) -> str | None:
    try:
        return surface.decode()
    except UnicodeDecodeError:
        return None


def _byte_ids(old: AnyTokenizer) -> dict[int, int]:
    """The id of each single byte."""
    return {surface[0]: id for id in range(old.size) for surface in [old.surface(id)] if len(surface) == 1}


def check_extends(
    old: AnyTokenizer, new: AnyTokenizer, old_ids: Sequence[int], where: Path, model: Path
) -> None:
    """Refuse a new tokenizer unless its id i has the surface, or is the special token, of the old id `old_ids[i]`."""
    if new.size < len(old_ids):
        raise InputError(
            where,
            f"has {new.size:,} ids and the model's own vocabulary {len(old_ids):,}",
            "Give a tokenizer built from the model's own; a pruned one needs its id_map.json",
        )
    for id, old_id in enumerate(old_ids):
        if new.surface(id) != old.surface(old_id):
            raise InputError(
                where,
                f"does not fit the model: id {id} is {new.surface(id)!r} there and "
                f"{old.surface(old_id)!r} in the model's own tokenizer in {model}",
                "Give one built from that",
            )
        if (
            not new.surface(id)
            and None not in (names := (new.name(id), old.name(old_id)))
            and names[0] != names[1]
        ):
            raise InputError(
                where,
                f"does not fit the model: id {id} is {names[0]} there and {names[1]} in the model's own tokenizer in {model}",
                "Give one built from that",
            )
