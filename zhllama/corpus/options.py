"""The options of corpus clean: how files are read, how documents are cleaned, and where the tasks run."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zhllama.errors import OptionError
from zhllama.options import option, required

if TYPE_CHECKING:
    from zhllama.corpus.clean import CleaningOptions
    from zhllama.corpus.documents import Reading
    from zhllama.corpus.executors import Machines

FILES, STEPS, MACHINES = "Files", "Steps", "Machines"


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How files become documents."""

    field: tuple[str, ...] = option(
        ("text",), "Field that contains the text; several are joined.", panel=FILES
    )
    unit: Literal["blank-line", "line", "file"] = option(
        "blank-line", "Where a document of plain text ends.", panel=FILES
    )
    encoding: str | None = option(
        None, "Encoding of all files, decoded strictly. Without it each file's is detected.", panel=FILES
    )

    def reading(self, max_chars: int) -> "Reading":
        """How the files are read; documents beyond four times `max_chars` characters are cut."""
        from zhllama.corpus.decode import known_encoding
        from zhllama.corpus.documents import Reading

        encoding = known_encoding(self.encoding) if self.encoding else None
        return Reading(self.field, self.unit, encoding, 4 * max_chars)


@dataclass(frozen=True, kw_only=True)
class CorpusCleaningOptions:
    """How documents are edited, and which are accepted."""

    markup: Literal["keep", "html", "all"] = option(
        "all", "Markup to remove: of HTML, or of Markdown too.", panel=STEPS
    )
    width: Literal["keep", "letters", "all"] = option(
        "letters",
        "Full-width letters and digits to ASCII; all: also , ; : ? ! after Han to full width.",
        panel=STEPS,
    )
    boilerplate: bool = option(
        True,
        "Remove lines of navigation and copyright.",
        flags=("--boilerplate/--no-boilerplate",),
        panel=STEPS,
    )
    convert: Literal["t2s", "s2t", "tw2s", "s2tw", "hk2s", "s2hk"] | None = option(
        None, "Convert to the other script by OpenCC.", panel=STEPS
    )
    mask: bool = option(
        True, "Mask e-mail addresses, phone and identity numbers.", flags=("--mask/--no-mask",), panel=STEPS
    )
    language: Literal["zh+en", "zh", "en", "any"] = option(
        "zh+en", "Languages that are accepted.", panel=STEPS
    )
    min_han: float = option(0.3, "Share of Han in the letters of Chinese.", minimum=0, maximum=1, panel=STEPS)
    script: Literal["any", "simplified", "traditional"] = option(
        "any", "The Chinese script that is accepted.", panel=STEPS
    )
    min_chars: int = option(20, "Characters at least.", minimum=1, panel=STEPS)
    max_chars: int = option(5_000_000, "Characters at most.", minimum=1, panel=STEPS)
    max_repeated: float = option(
        0.3, "Share of repeated runs of 10 characters; 1 accepts all.", minimum=0, maximum=1, panel=STEPS
    )
    word_list: tuple[Path, ...] = option((), "File of words, one a line: advertising, adult ...", panel=STEPS)
    word_hits: int = option(3, "Words of one list that reject a document.", minimum=1, panel=STEPS)
    url_list: tuple[Path, ...] = option((), "File of sites or addresses, one a line, to reject.", panel=STEPS)
    exact: bool = option(True, "Reject exact duplicates.", flags=("--exact/--no-exact",), panel=STEPS)
    near: bool = option(
        True, "Reject near duplicates (Jaccard about .7 up).", flags=("--near/--no-near",), panel=STEPS
    )

    def __post_init__(self) -> None:
        if self.min_chars > self.max_chars:
            raise OptionError("min_chars", "is more than `max_chars`", "Give a smaller one")

    def cleaning(self) -> "CleaningOptions":
        """The steps, with the word lists read."""
        from zhllama.corpus.clean import CleaningOptions
        from zhllama.corpus.filters import read_words

        languages: Any = () if self.language == "any" else tuple(self.language.split("+"))
        urls = frozenset(word for _, words in read_words(self.url_list) for word in words)
        return CleaningOptions(
            self.markup, self.width, self.boilerplate, self.convert, self.mask, languages, self.script, self.min_han,
            self.min_chars, self.max_chars, self.max_repeated, read_words(self.word_list), self.word_hits, urls,
            self.exact, self.near,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Where the tasks run; a run may be resumed with others."""

    executor: Literal["local", "ray", "slurm"] = option(
        "local", "Where the tasks run.", panel=MACHINES, recorded=False
    )
    workers: int | None = option(
        None, "Tasks at a time; by default the number of cores.", minimum=1, panel=MACHINES, recorded=False
    )
    memory_gb: int = option(2, "Memory of a task (Ray, Slurm).", minimum=1, panel=MACHINES, recorded=False)
    partition: str = option("", "Slurm partition.", panel=MACHINES, recorded=False)
    time: str = option("24:00:00", "Slurm time limit of a task.", panel=MACHINES, recorded=False)

    def machines(self) -> "Machines":
        from zhllama.corpus.executors import Machines

        return Machines(
            self.executor, self.workers or os.cpu_count() or 1, self.memory_gb, self.partition, self.time
        )


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """What is fetched."""

    name: str = required("A source by name or .yaml file, or a folder on this machine.", positional=True)
    limit: int | None = option(None, "Documents to fetch at most.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class CorpusText:
    """The text that is cleaned."""

    text: tuple[str, ...] = required(
        "Files, folders, globs, or runs of corpus fetch: text in any encoding, JSON lines, Parquet; "
        "also .gz, .bz2, .xz, .zst.",
        positional=True,
    )
