"""The commands `grow`, `export` and `eval`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    MaxLineBytes,
    Model,
    Out,
    Seed,
    check_torch,
    notes,
    options_of,
    print_json,
    progress,
    say,
    screen,
    warn,
)
from zhllama.errors import OptionError
from zhllama.io.files import LONGEST_LINE
from zhllama.resources import shipped
from zhllama.run import Run

Init = Literal["mean", "weighted", "random", "hf-mean", "focus", "fitted", "distill"]
PROOF = (("zh_news.txt", 500), ("en_essay.txt", 600), ("code_python.txt", 200))  # characters of each


def grow(
    context: typer.Context,
    model: Model,
    tokenizer: Annotated[
        Path, typer.Option("--tokenizer", "-t", help="Folder of the larger vocabulary.", show_default=False)
    ],
    out: Out,
    init: Annotated[
        Init, typer.Option("--init", help="What a new row begins as; mean is the best one measured.")
    ] = "mean",
    pad_rows_to: Annotated[int, typer.Option("--pad-rows-to", help="Make the rows a multiple of this.")] = 1,
    vectors: Annotated[
        Path | None, typer.Option("--vectors", help="For focus: word vectors of the pieces.")
    ] = None,
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="For fitted and distill: text in the new language.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="For distill: how many.")] = 200,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Give a model one row for each id of a larger vocabulary, its old rows unchanged to the byte."""
    check_torch("grow")
    from zhllama.io.text import find_files, read_documents
    from zhllama.model.chain import local_folder, model_files
    from zhllama.model.grow import grow as grown
    from zhllama.model.row_init_distilled import Distillation

    texts = list(read_documents(find_files(text))) if text else []
    folder = local_folder(model)
    inputs = [
        *model_files(folder),
        *_tokenizer_files(tokenizer),
        *([vectors] if vectors else []),
        *find_files(text or []),
    ]
    with (
        Run(out, "grow", options_of(context), inputs, force, seed=seed) as run,
        progress("grow", steps if init == "distill" else 1) as bar,
    ):
        made = grown(
            folder,
            tokenizer,
            run.out,
            init=init,
            pad_rows_to=pad_rows_to,
            seed=seed,
            vectors=vectors,
            texts=texts,
            distillation=Distillation(steps=steps, seed=seed),
            advance=bar,
        )
        run.finish(asdict(made))
    if as_json:
        print_json({"out": str(out), **asdict(made)})
        return
    say(
        f"{out}: {made.n_old:,} old rows kept, {made.n_new:,} new ones ({init}), {made.rows:,} in all; "
        f"the head is {'the embedding itself' if made.tied else 'a matrix of its own'}"
    )


def export(
    context: typer.Context,
    run_folder: Annotated[
        str, typer.Argument(metavar="RUN", help="A finished pretrain run (or any model).", show_default=False)
    ],
    out: Out,
    gguf: Annotated[
        Literal["f16", "q8_0", "q4_0"] | None,
        typer.Option("--gguf", help="Also write a file for llama.cpp.", show_default=False),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Fold what a chain of runs trained into one plain model, and prove that it says the same."""
    check_torch("export")
    from zhllama.model.chain import chain_files, resolve_chain
    from zhllama.model.export import merge_chain, prove_export, write_generation_config, write_model_card
    from zhllama.model.gguf_export import write_gguf

    chain = resolve_chain(run_folder)
    with (
        Run(out, "export", options_of(context), chain_files(chain), force) as run,
        notes.status("folding") as status,
    ):
        changed = merge_chain(chain, run.out)
        write_generation_config(run.out)
        status.update("comparing logits with the run")
        texts = [shipped("corpora", "sample", name).read_text(encoding="utf-8")[:n] for name, n in PROOF]
        proof = prove_export(chain, run.out, texts, changed)
        write_model_card(chain, run.out, proof)
        if gguf is not None:
            status.update(f"writing GGUF {gguf}")
            write_gguf(run.out, run.out / f"model-{gguf}.gguf", gguf)
        run.finish(asdict(proof))
    if as_json:
        print_json({"out": str(out), **asdict(proof)})
        return
    say(
        f"{out}: {len(chain.runs)} run{'s' * (len(chain.runs) != 1)} folded into {chain.base.name}; logits differ "
        f"by {proof.difference:.1e} of their size (allowed {proof.limit:.0e}), the same next token after "
        f"{100 * proof.agree:.1f} % of {proof.tokens} tokens"
    )


def evaluate(
    context: typer.Context,
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Folders, hub names or runs.", show_default=False)
    ],
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="Text file, told apart in the table.")
    ] = None,
    window: Annotated[int, typer.Option("--window", help="Tokens that the model sees at once.")] = 1024,
    stride: Annotated[int, typer.Option("--stride", help="Tokens scored by each window.")] = 512,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Characters of each text.", show_default=False)
    ] = None,
    tasks: Annotated[
        str | None, typer.Option("--tasks", help="Tasks of lm-eval, by commas.", show_default=False)
    ] = None,
    task_path: Annotated[
        Path | None, typer.Option("--task-path", help="Folder of your own tasks for lm-eval.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Questions of each task.", show_default=False)
    ] = None,
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Bits per byte and per character of texts under models, whatever their vocabularies; and tasks."""
    check_torch("eval")
    from zhllama.evaluation.bits_per_byte import measure_bits, read_text
    from zhllama.evaluation.lm_eval_tasks import run_tasks
    from zhllama.io.text import find_files
    from zhllama.model.chain import resolve_chain
    from zhllama.model.load import open_model
    from zhllama.vocab.any_tokenizer import load_any_tokenizer

    if not text and not tasks:
        raise OptionError("eval", "has nothing to measure", "Give --text FILE or --tasks NAME")
    files = find_files(text or [])
    texts = {str(path): read_text(path, limit) for path in files}
    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for name in models:
        opened = open_model(name)
        vocabulary = load_any_tokenizer(resolve_chain(name).tokenizer)
        for path, content in texts.items():
            with progress(f"{name} on {Path(path).name}", len(content), "bytes") as bar:
                got = measure_bits(
                    opened.model, vocabulary, content, window=window, stride=stride, advance=bar
                )
            rows.append(
                {
                    "model": name,
                    "text": path,
                    "bits_per_byte": got.per_byte,
                    "bits_per_character": got.per_character,
                    "tokens_per_character": got.tokens / got.characters,
                    "tokens": got.tokens,
                    "bytes": got.bytes,
                    "characters": got.characters,
                    "unknown": got.unknown,
                }
            )
        if tasks:
            scores += [
                {"model": name, **score} for score in run_tasks(opened, tasks.split(","), task_path, samples)
            ]
    if as_json:
        print_json({"texts": rows, "tasks": scores})
        return
    if rows:
        screen.print(_bits_table(rows))
    if scores:
        screen.print(_scores_table(scores))


def _bits_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("model", "text", "bits/byte", "bits/character", "tokens/character")
    for row in rows:
        table.add_row(
            row["model"],
            Path(row["text"]).name,
            f"{row['bits_per_byte']:.4f}",
            f"{row['bits_per_character']:.4f}",
            f"{row['tokens_per_character']:.3f}",
        )
        if row["unknown"]:
            warn(
                f"{row['unknown']} tokens of {row['text']} are unknown ones to {row['model']}: its bits flatter it"
            )
    return table


def _scores_table(scores: list[dict[str, Any]]) -> Table:
    table = Table("model", "task", "metric", "value", "±")
    for score in scores:
        error = score["error"]
        table.add_row(
            *(str(score[name]) for name in ("model", "task", "metric")),
            f"{score['value']:.4f}",
            "" if error is None else f"{error:.4f}",
        )
    return table


def _tokenizer_files(folder: Path) -> list[Path]:
    return sorted(
        folder / name
        for name in ("tokenizer.json", "tokenizer.model", "id_map.json")
        if (folder / name).is_file()
    )
