"""Conversion between Simplified and Traditional Chinese by OpenCC."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Literal

OutputScript = Literal["as-is", "simplified", "traditional", "both"]


@cache
def converter(config: str) -> Callable[[str], str]:
    """OpenCC's conversion by one of its configurations, such as "t2s" (Traditional to Simplified)."""
    from opencc import OpenCC

    convert: Callable[[str], str] = OpenCC(config).convert
    return convert


def in_script(texts: Iterable[str], script: OutputScript) -> Iterator[str]:
    """Each text in the requested script; `both` yields both versions, or one where they are equal."""
    if script == "as-is":
        yield from texts
        return
    simplify, to_traditional = converter("t2s"), converter("s2t")
    for text in texts:
        if script == "both":
            yield from dict.fromkeys((simplify(text), to_traditional(text)))
        else:
            yield (simplify if script == "simplified" else to_traditional)(text)
