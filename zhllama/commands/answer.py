"""The command `answer`."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zhllama.commands.llm_options import (
    STEERING,
    AskedThrough,
    BaseUrl,
    ByBatch,
    Concurrency,
    ExtraBody,
    KeyEnv,
    MaxCost,
    MaxTokens,
    Prices,
    Timeout,
    ask_all,
    connection_of,
    spending_of,
    warn_of_budget,
)
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    Out,
    Resume,
    Seed,
    print_json,
    progress,
    say,
    warn,
)
from zhllama.errors import OptionError
from zhllama.io.files import json_lines
from zhllama.run import Run
from zhllama.run_folder import MANIFEST

if TYPE_CHECKING:
    from zhllama.evaluation.answering import Answering
    from zhllama.llm.client import Client
    from zhllama.llm.journal import Journal
    from zhllama.llm.rounds import Rounds

HERE = "A model here"


def answer(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="Folder, hub name or run; with --base-url the model's name on that server.",
            show_default=False,
        ),
    ],
    questions: Annotated[
        Path,
        typer.Option(
            "--questions",
            "-q",
            help="JSON lines {id, instruction, input?, category?, reference?}, Alpaca's form, or seed tasks.",
            show_default=False,
        ),
    ],
    out: Out,
    n: Annotated[
        int | None, typer.Option("--n", help="Answer the first so many.", show_default="all")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0: the likeliest token, always.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Of the likeliest tokens, this share of the chance.")] = 1.0,
    reply_tokens: Annotated[int, typer.Option(help="Tokens of one answer at most.")] = 512,
    template: Annotated[
        str | None,
        typer.Option(
            help="alpaca, vicuna, chatml, llama3 or own.",
            rich_help_panel=HERE,
            show_default="the tokenizer's own; alpaca where it has none",
        ),
    ] = None,
    system: Annotated[
        str, typer.Option(help="What the system says first.", rich_help_panel=HERE, show_default=False)
    ] = "",
    at_once: Annotated[
        int, typer.Option(help="Questions that the model takes at once.", rich_help_panel=HERE)
    ] = 8,
    base_url: BaseUrl = None,
    api: AskedThrough = "chat",
    batch: ByBatch = False,
    key_env: KeyEnv = "OPENAI_API_KEY",
    extra_body: ExtraBody = None,
    concurrency: Concurrency = 32,
    timeout: Timeout = 120.0,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    prices: Prices = None,
    seed: Seed = 0,
    config: Config = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Answer a file of questions with a model, for judge."""
    from zhllama.evaluation.answering import Answering
    from zhllama.evaluation.questions import ANSWERS, read_questions
    from zhllama.generation.outputs import JOURNAL
    from zhllama.llm.journal import Journal

    began = time.monotonic()
    _check(context.params)
    asked = read_questions(questions)[:n]
    sampling: dict[str, Any] = {"temperature": temperature, "max_tokens": reply_tokens}
    sampling |= {"top_p": top_p} if top_p < 1 or not base_url else {}
    sampling |= {"seed": seed} if temperature > 0 else {}
    answering = Answering(asked, sampling)
    made = {key: value for key, value in context.params.items() if key not in STEERING}
    # Not as `model`, by which a run names what it trained on: this one is no model.
    made["by"], made["served"] = made.pop("model"), bool(base_url)
    inputs = [questions] if base_url else [questions, *_files_of(model)]
    with Run(out, "answer", made, inputs, force=force, resume=resume, seed=seed) as run:
        with Journal(out / JOURNAL) as journal:
            if base_url:
                whole, told = _ask(context.params, run, answering, journal)
            else:
                whole, told = _answer(context.params, run, answering, journal)
        run.write(ANSWERS, json_lines(answering.rows(model)))
        if refused := answering.refused():
            run.write("refused.jsonl", json_lines(refused))
        result = {
            **answering.figures(),
            **told,
            "finished": whole,
            "seconds": round(time.monotonic() - began, 2),
        }
        if whole:
            run.finish(result)
    if not whole:
        warn_of_budget()
    print_json({"out": str(out), **result}) if as_json else _show(out / ANSWERS, result)


def _check(options: Mapping[str, Any]) -> None:
    for name, least, most in (("n", 1, None), ("reply_tokens", 1, None), ("at_once", 1, None), ("temperature", 0, 5), ("top_p", 1e-6, 1)):  # fmt: skip
        value = options[name]
        if value is not None and (value < least or (most is not None and value > most)):
            told = f"is not from 0 to {most}" if most is not None else "is below 1"
            raise OptionError(f"--{name.replace('_', '-')} {value}", told, "Leave it out")
    if options["base_url"] and options["system"]:
        raise OptionError("--system", "is for a model here", "Leave it out with --base-url")


def _ask(
    options: Mapping[str, Any], run: Run, answering: "Answering", journal: "Journal"
) -> tuple[bool, dict[str, Any]]:
    spending = spending_of(options)

    @contextmanager
    def watched(rounds: "Rounds", client: "Client | None") -> Iterator[None]:
        with progress("answer", len(answering.questions), "answers") as bar:
            answering.watch = bar
            yield

    connection, seed = connection_of(options), options["seed"]
    whole, told = ask_all(run, answering, journal, connection, spending, options["batch"], seed, watched)
    return whole, {**spending.figures(), **told}


def _answer(
    options: Mapping[str, Any], run: Run, answering: "Answering", journal: "Journal"
) -> tuple[bool, dict[str, Any]]:
    from zhllama.evaluation.answering import answer_locally
    from zhllama.inference.transformers_chat_model import open_chat_model

    try:
        with progress("answer", len(answering.questions), "answers") as bar:
            bar.note("loading the model")
            speaker = open_chat_model(options["model"], options["template"])
            if speaker.assumed:
                warn("the tokenizer has no chat template: asked by Alpaca's")
            answering.watch = bar
            bar.note(f"{speaker.template.name}, {options['at_once']} at once")
            answer_locally(answering, journal, speaker, options["at_once"], options["system"])
    except BaseException:
        if not len(journal):
            run.resume = None
        raise
    return True, {"template": speaker.template.name}


def _files_of(model: str) -> list[Path]:
    """What the answers come from: the manifests of the runs, and of the base its manifest or else its files."""
    from zhllama.model.chain import model_files, resolve_chain

    chain = resolve_chain(model)
    manifests = [run / MANIFEST for run in chain.runs]
    if (own := chain.base / MANIFEST).is_file():
        return [own, *manifests]
    return [*model_files(chain.base), *manifests]


def _show(path: Path, result: Mapping[str, Any]) -> None:
    say(
        f"{path}: answered {result['answered']:,} of {result['questions']:,}, refused {result['refused']:,}, "
        f"cut off at the limit {result['cut_off']:,}"
    )
