"""The options of gen-zh and refilter: which tasks are generated, and which are accepted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zhllama.options import option

FILTERS = "Filters"
MethodName = Literal["alpaca", "self-instruct", "translate", "rank", "evolve"]


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How tasks are generated."""

    n: int | None = option(
        None, "Tasks to accept; for given tasks (translate, rank, evolve) how many to read.",
        show_default="100, or all that are given",
    )  # fmt: skip
    method: MethodName = option("alpaca", "Method of generation.")
    given: Path | None = option(None, "Tasks in Alpaca's form, for translate, rank and evolve.")
    seeds: Path | None = option(None, "Seed tasks, one JSON object a line.", show_default="the 175 shipped")
    prompts: Path | None = option(None, "Folder of prompts.", show_default="the shipped prompts_zh")
    structured: bool = option(False, "Have the server enforce a JSON schema (alpaca only).")
    answers: int = option(4, "Answers to each instruction (rank only).", above=0)
    temperature: float | None = option(
        None, "Instead of each step's own.", minimum=0, maximum=5, show_default="the papers'"
    )
    top_p: float | None = option(
        None, "Instead of each step's own.", above=0, maximum=1, show_default="the papers'"
    )
    reply_tokens: int | None = option(
        None, "Tokens of one reply at most, instead of each step's own.", above=0
    )
    max_unreadable: float = option(
        0.8,
        "Share of candidates that cannot be read, from 32 replies on, above which the run stops; 1 never stops it.",
        minimum=0.0,
        maximum=1.0,
        recorded=False,
    )
    seed: int = option(0, "Seed of everything random.")


@dataclass(frozen=True, kw_only=True)
class GenerationFilters:
    """Which tasks are accepted; lengths in characters, shares from 0 to 1."""

    min_instruction: int = option(4, "Characters of an instruction at least.", minimum=0, panel=FILTERS)
    max_instruction: int = option(500, "Characters of an instruction at most.", above=0, panel=FILTERS)
    max_input: int = option(2000, "Characters of an input at most.", minimum=0, panel=FILTERS)
    min_output: int = option(1, "Characters of an output at least.", minimum=0, panel=FILTERS)
    max_output: int = option(4000, "Characters of an output at most.", above=0, panel=FILTERS)
    min_han: float = option(
        0.3,
        "Share of Han in the letters at least; code and tasks for other languages are exempt.",
        panel=FILTERS,
    )
    max_repeats: float = option(0.3, "Share of an output's 8-grams that repeat, at most.", panel=FILTERS)
    threshold: float = option(0.7, "ROUGE-L from which an instruction is a near duplicate.", panel=FILTERS)
    blacklist: tuple[Path, ...] = option((), "File of words that no instruction may contain.", panel=FILTERS)
    keep_traditional: bool = option(False, "Leave Traditional characters unconverted.", panel=FILTERS)
    drop_personal: bool = option(
        False, "Reject tasks with personal data instead of flagging them.", panel=FILTERS
    )
    without: tuple[str, ...] = option(
        (), "A filter to leave out, by its reason, such as 'repeats'.", panel=FILTERS
    )


@dataclass(frozen=True, kw_only=True)
class RefilterOptions(GenerationFilters):
    """The filters and the number of tasks; those that are not given are the run's own."""

    n: int | None = option(None, "Tasks to accept.", above=0, show_default="the run's")
