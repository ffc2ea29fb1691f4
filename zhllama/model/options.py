"""The options of `grow` and `export`, and the adapters of commands that take a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zhllama.model.gguf_types import Quantization
from zhllama.options import option, required


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Published adapters that are folded into the model before anything else."""

    # Recorded by `recorded_adapters`, where there are any.
    adapter: tuple[str, ...] = option(
        (),
        "A published PEFT adapter to fold into the model first, folder or hub name; several in this order.",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class GrowOptions:
    """The model, its larger vocabulary, and the initialization of the new rows."""

    model: str = required("Folder, hub name or GGUF file.", flags=("--model", "-m"))
    tokenizer: Path = required("Folder of the larger vocabulary.", flags=("--tokenizer", "-t"))
    init: Literal[
        "mean", "weighted", "random", "hf-mean", "focus", "fitted", "shared", "distill", "taught"
    ] = option(
        "mean",
        "Initialization of the new rows; of those without text, mean measured best. taught also changes the first layers.",
    )
    untie: bool = option(
        False, "Give a tied model an LM head of its own, which fitted, shared and taught need."
    )
    keep_old_rows: bool = option(
        False, "For shared and taught: leave the old rows of the LM head unchanged too."
    )
    fit: bool = option(
        False,
        "For shared and taught: fit the LM head further to what the model predicts after each first token, if that gains on held-out text.",
    )
    teach_layers: int | None = option(
        None,
        "For taught: how many of the first layers learn, 8 by default or half of them; 0 for rows alone.",
        minimum=0,
    )
    pad_rows_to: int = option(1, "Make the number of rows a multiple of this.")
    vectors: Path | None = option(None, "For focus: word vectors of the pieces.")
    text: tuple[Path, ...] = option(
        (), "For fitted, shared, distill and taught: text in the new language; for taught also English."
    )
    steps: int | None = option(
        None, "For distill and taught: number of steps; 200 and 120 by default.", minimum=1
    )
    seed: int = option(0, "Seed of everything random.")
    dry_run: bool = option(
        False, "Print what would be written and trained, and the memory, and stop.", recorded=False
    )


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The run, or a base with published adapters, and the format of an additional file."""

    run: str | None = option(
        None, "A finished run (or any model).", key="run_folder", positional=True, metavar="RUN"
    )
    model: str | None = option(
        None, "Instead of RUN: a model, or the base of the adapters.", flags=("--model", "-m")
    )
    trained_from: str | None = option(
        None,
        "The model from which another program trained this one: proves that no token changed, and counts the changed rows.",
    )
    adapter: tuple[str, ...] = option(
        (), "A published PEFT adapter to fold into the base, folder or hub name; several in this order."
    )
    tokenizer: Path | None = option(
        None, "Tokenizer of the adapters; by default that of the last one.", flags=("--tokenizer", "-t")
    )
    adapter_only: bool = option(
        False, "Write what the runs trained as a PEFT adapter for the model that they began with."
    )
    gguf: Quantization | None = option(
        None, "Also write a file for llama.cpp; the K types need the package xllamacpp."
    )
    push: str | None = option(
        None,
        "List what would be uploaded to this repository, OWNER/NAME or modelscope:OWNER/NAME. Without RUN: the export in --out.",
        recorded=False,
    )
    push_now: bool = option(
        False,
        "Upload to --push, with the login of the hub's own client; a new repository is private.",
        recorded=False,
    )
