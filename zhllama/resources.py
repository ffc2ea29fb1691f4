"""Finds the shipped seeds, prompts, corpora and tasks, in the wheel or in the checkout of an editable install."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Literal

from zhllama.errors import InputError

Folder = Literal["seeds_zh", "prompts_zh", "corpora", "tasks_zh"]
SAMPLES = ("zh", "zhtw", "zhhk", "mixed", "en", "code")  # labels of the texts in corpora/sample


def shipped(folder: Folder, *parts: str) -> Path:
    """Path of a shipped file or folder, e.g. `shipped("corpora", "sample")`."""
    package = Path(str(files("zhllama")))
    for root in (package / "shipped", package.parent):
        path = root.joinpath(folder, *parts)
        if path.exists():
            return path
    raise InputError("/".join((folder, *parts)), "is not in this installation", "Reinstall zhllama")


def sample_files(label: str) -> list[Path]:
    """The shipped texts of a label, some tens of KB; empty for a label without shipped texts."""
    return sorted(shipped("corpora", "sample").glob(f"{label}_*.txt"))


def sample_lines() -> dict[str, Iterator[str]]:
    """The lines of the shipped texts by label."""
    from zhllama.io.text import read_lines

    return {label: read_lines(sample_files(label)) for label in SAMPLES}
