"""Traditional and Simplified, through OpenCC."""

from collections.abc import Iterable, Iterator
from typing import Literal

Script = Literal["as-is", "simplified", "traditional", "both"]


def in_script(entries: Iterable[str], script: Script) -> Iterator[str]:
    """Each text in the script asked for; `both` gives it in each of the two, once where they are the same."""
    if script == "as-is":
        yield from entries
        return
    from opencc import OpenCC

    simplified, traditional = OpenCC("t2s"), OpenCC("s2t")
    for text in entries:
        if script == "both":
            yield from dict.fromkeys((simplified.convert(text), traditional.convert(text)))
        else:
            yield (simplified if script == "simplified" else traditional).convert(text)
