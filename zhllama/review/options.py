"""The options of `review`: the data, the reviewer, and how decisions become data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zhllama.errors import OptionError
from zhllama.inference.options import ListenOptions
from zhllama.options import option, required, variant

LONGEST_NAME = 60  # characters; with its UTF-8 bytes still a file name


@dataclass(frozen=True, kw_only=True)
class ReviewOptions:
    """What is reviewed, and by whom."""

    data: Path = required(
        "A run of gen-zh, refilter, sharegpt clean or judge, or a file of tasks, conversations or ranked answers.",
        positional=True,
    )
    reviewer: str | None = option(
        None, "Name of the reviewer, who has a journal of decisions.", show_default="the user's name"
    )
    decisions: Path | None = option(
        None, "Folder of the journals, one for each reviewer.", show_default="DATA.review"
    )

    def __post_init__(self) -> None:
        name = self.reviewer
        if name is not None and (
            not 0 < len(name) <= LONGEST_NAME or name.startswith(".") or "/" in name or not name.isprintable()
            or name != name.strip()
        ):  # fmt: skip
            message = f"{name[:80]!r} is not the name of a reviewer"
            raise OptionError("reviewer", message, "Give a name without slashes, such as 张三")

    @property
    def folder(self) -> Path:
        """The folder of the journals."""
        data = self.data.expanduser().absolute()
        return self.decisions or data.with_name(f"{data.name}.review")


@dataclass(frozen=True, kw_only=True)
class PageOptions(ListenOptions):
    """Where the page listens."""

    port: int = variant(ListenOptions, "port", 8020, help="Port of the page; 0: any free one.")


@dataclass(frozen=True, kw_only=True)
class ReviewExportOptions:
    """How decisions become data."""

    export: bool = option(False, "Write the reviewed data to OUT instead of opening the page.")
    undecided: Literal["keep", "leave-out"] = option(
        "keep", "What happens to accepted rows without a decision; with leave-out only rows that were kept are written."
    )  # fmt: skip
