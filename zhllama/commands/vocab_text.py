"""The text that `train-vocab` and `merge-vocab` train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.commands.shared import TextOptions, progress
from zhllama.options import option

if TYPE_CHECKING:
    from zhllama.vocab.sample import LineSample

MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TextSampleOptions:
    """Which characters get pieces of their own, and how much text is read."""

    cover: str = option("", "Character sets whose characters get a piece each, e.g. gb2312,big5-1.")
    sample_bytes: int = option(40 * MB, "Bytes of text to draw for training, evenly from all.", minimum=1)
    seed: int = option(0, "Seed of everything random.")


def sample_text(files: Sequence[Path], reading: TextOptions, sampling: TextSampleOptions) -> "LineSample":
    """An even sample of the lines of some files."""
    from zhllama.io.text import read_lines
    from zhllama.vocab.sample import sample_lines

    with progress("reading", total=sum(f.stat().st_size for f in files)) as bar:
        return sample_lines(read_lines(files, reading.field, bar), sampling.sample_bytes, sampling.seed)
