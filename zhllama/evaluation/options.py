"""The options of `answer`, `judge` and `eval`: which models, questions and texts are evaluated, and how."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from zhllama.errors import OptionError
from zhllama.model.gguf_types import Quantization
from zhllama.model.options import AdapterOptions
from zhllama.options import check_bounds, option, required

LOCAL = "Local model"
JUDGING = "Judging"
SERVING = "Serving"


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(AdapterOptions):
    """Which questions are answered by which model, and how it samples."""

    # Recorded as `by`: `model` is the key of a run's base in a chain, and these answers are no model.
    model: str = required(
        "Folder, hub name or run; with --base-url the model's name on that server.",
        positional=True,
        recorded=False,
    )
    questions: Path = required(
        "JSON lines {id, instruction, input?, category?, reference?}, Alpaca's form, or seed tasks.",
        flags=("--questions", "-q"),
    )
    n: int | None = option(None, "Answer only the first questions, this many.", show_default="all")
    temperature: float = option(0.0, "0: greedy decoding.")
    top_p: float = option(1.0, "Sample from the likeliest tokens with this total probability.")
    reply_tokens: int = option(512, "Tokens of one answer at most.")
    template: str | None = option(
        None, "alpaca, vicuna, chatml, llama3 or own.", panel=LOCAL,
        show_default="the tokenizer's own; alpaca where it has none",
    )  # fmt: skip
    system: str = option("", "System prompt.", panel=LOCAL)
    at_once: int = option(8, "Questions in one batch.", panel=LOCAL)
    seed: int = option(0, "Seed of everything random.")

    def __post_init__(self) -> None:
        for name in ("n", "reply_tokens", "at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} {value}", "is below 1", "Leave it out")
        if not 0 <= self.temperature <= 5:
            raise OptionError(f"temperature {self.temperature}", "is not from 0 to 5", "Leave it out")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p {self.top_p}", "is not from 0 to 1", "Leave it out")


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Whose answers are judged, and by what method."""

    answers: tuple[str, ...] = required(
        "FILE, folder of zhllama answer, or NAME=FILE; given once for each contestant.",
        flags=("--answers", "-a"),
    )
    questions: Path | None = option(
        None, "Questions, with references and categories; by default those in the answers' files."
    )
    mode: Literal["pair", "score"] | None = option(
        None, "pair: two answers side by side, in both orders. score: each on its own, 1 to 10.", panel=JUDGING,
        show_default="pair; score for one file",
    )  # fmt: skip
    baseline: str | None = option(
        None,
        "Contestant that all others are compared with, by its name; by default all with all.",
        panel=JUDGING,
    )
    references: Literal["exact", "all", "none"] = option(
        "exact", "Reference answers that the judge sees. exact: in mathematics, code and reasoning, by category.",
        panel=JUDGING,
    )  # fmt: skip
    prompts: Path | None = option(
        None, "Folder of prompts.", panel=JUDGING, show_default="the shipped prompts_zh"
    )
    temperature: float = option(
        0.0, "Temperature of the judge's replies.", minimum=0, maximum=5, panel=JUDGING
    )
    reply_tokens: int = option(
        1024, "Tokens of one reply at most; a judge that thinks needs more.", panel=JUDGING
    )
    reward: Path | None = option(None, "Run of zhllama reward that scores each answer.", panel=JUDGING)
    seed: int = option(0, "Seed of everything random.")

    def __post_init__(self) -> None:
        if self.reply_tokens < 1:
            raise OptionError(f"reply_tokens {self.reply_tokens}", "is below 1", "Leave it out")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(AdapterOptions):
    """Which models are evaluated on which texts and tasks."""

    models: tuple[str, ...] = required("Folders, hub names or runs.", positional=True, metavar="MODEL...")
    text: tuple[Path, ...] = option((), "Text file; each has a row of its own.")
    window: int = option(1024, "Tokens of a window, the model's context.")
    stride: int = option(512, "Tokens scored in each window.")
    limit: int | None = option(None, "Characters of each text.", above=0)
    tasks: str | None = option(None, "Tasks of lm-eval, separated by commas.")
    task_path: Path | None = option(None, "Folder of your own tasks for lm-eval.")
    samples: int | None = option(None, "Questions of each task.", above=0)


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """Whether speed and memory are measured, on which prompts, and in which programs."""

    serving: bool = option(
        False,
        "Measure speed and memory on the first text too, each model against the first one. Without --text: the Chinese of corpora/sample.",
        panel=SERVING,
    )
    prompt: tuple[int, ...] = option(
        (50, 200, 800), "Characters of a prompt; each length is measured on its own.", panel=SERVING
    )
    reply: int = option(50, "Characters written after each prompt.", panel=SERVING, minimum=2)
    rounds: int = option(
        5, "Replies of each model to each length, after one that is not counted.", panel=SERVING, minimum=1
    )
    engine: Literal["transformers", "llamacpp"] | None = option(
        None, "Program that runs the models.", panel=SERVING,
        show_default="both, llama.cpp where it is installed",
    )  # fmt: skip
    gguf: Quantization = option("q8_0", "Type of the temporary files for llama.cpp.", panel=SERVING)
    shape: str | None = option(
        None,
        "Compute instead of measuring, for a model of this config.json or shipped shape; MODEL may be a tokenizer.",
        panel=SERVING,
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if any(length < 1 for length in self.prompt):
            raise OptionError("prompt", f"{min(self.prompt)} is below 1", "Give e.g. 200")
        if not self.serving:
            for declared in fields(self):
                if getattr(self, declared.name) != declared.default:
                    raise OptionError(declared.name, "is for `serving`", "Give both")
