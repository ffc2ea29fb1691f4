"""The text that `train-vocab` and `merge-vocab` train on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.commands.shared import TextOptions, progress
from zhllama.vocab.options import TextSampleOptions

if TYPE_CHECKING:
    from zhllama.vocab.sample import LineSample


def sample_text(files: Sequence[Path], reading: TextOptions, sampling: TextSampleOptions) -> "LineSample":
    """An even sample of the lines of some files."""
    from zhllama.io.text import read_lines
    from zhllama.vocab.sample import sample_lines

    with progress("reading", total=sum(f.stat().st_size for f in files)) as bar:
        return sample_lines(read_lines(files, reading.field, bar), sampling.sample_bytes, sampling.seed)
