"""The command `answer`, which answers a file of questions with a model."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.commands.declare import command
from zhllama.commands.llm_requests import ask_all, warn_of_end
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    LineOptions,
    Out,
    Resume,
    check_torch,
    print_json,
    progress,
    say,
    warn,
)
from zhllama.errors import OptionError
from zhllama.evaluation.options import AnswerOptions
from zhllama.io.files import json_lines
from zhllama.llm.options import ServerOptions
from zhllama.options import recorded
from zhllama.run import Run
from zhllama.run_folder import MANIFEST

if TYPE_CHECKING:
    from zhllama.evaluation.answering import Answering
    from zhllama.llm.client import Client
    from zhllama.llm.journal import Journal
    from zhllama.llm.rounds import Rounds


@command
def answer(
    options: AnswerOptions,
    reading: LineOptions,
    server: ServerOptions,
    out: Out,
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

    start, remote = time.monotonic(), bool(server.base_url)
    if remote and options.system:
        raise OptionError("system", "is for a local model", "Leave it out with `base_url`")
    if remote and options.adapter:
        raise OptionError("adapter", "is for a local model", "Leave it out with `base_url`")
    if not remote:
        check_torch("answer")
    questions = read_questions(options.questions)[: options.n]
    sampling: dict[str, Any] = {"temperature": options.temperature, "max_tokens": options.reply_tokens}
    sampling |= {"top_p": options.top_p} if options.top_p < 1 or not remote else {}
    sampling |= {"seed": options.seed} if options.temperature > 0 else {}
    answering = Answering(questions, sampling)
    settings = recorded(options, server) | {"by": options.model, "served": remote}
    inputs, opened = [options.questions], options.model
    if not remote:
        from zhllama.model.folded_models import adapter_paths, with_adapters

        opened = with_adapters(options.model, options.adapter)
        settings |= {"adapter": adapter_paths(options.adapter)} if options.adapter else {}
        inputs += _files_of(opened)
    with Run(out, "answer", settings, inputs, force=force, resume=resume, seed=options.seed) as run:
        with Journal(out / JOURNAL) as journal:
            if remote:
                finished, figures = _query_server(options, server, run, answering, journal)
            else:
                finished, figures = _run_model(opened, options, run, answering, journal)
        run.write(ANSWERS, json_lines(answering.rows(options.model)))
        if refused := answering.refused():
            run.write("refused.jsonl", json_lines(refused))
        result = {
            **answering.figures(),
            **figures,
            "finished": finished,
            "seconds": round(time.monotonic() - start, 2),
        }
        if finished:
            run.finish(result)
    if not finished:
        warn_of_end(server)
    print_json({"out": str(out), **result}) if as_json else _show(out / ANSWERS, result)


def _query_server(
    options: AnswerOptions, server: ServerOptions, run: Run, answering: "Answering", journal: "Journal"
) -> tuple[bool, dict[str, Any]]:
    spending = server.spending(options.model)

    @contextmanager
    def screen(rounds: "Rounds", client: "Client | None") -> Iterator[None]:
        with progress("answer", len(answering.questions), "answers") as bar:
            answering.watch = bar
            yield

    connection = server.connection(options.model)
    finished, figures = ask_all(run, answering, journal, connection, spending, server, options.seed, screen)
    return finished, {**spending.figures(), **figures}


def _run_model(
    model_name: str, options: AnswerOptions, run: Run, answering: "Answering", journal: "Journal"
) -> tuple[bool, dict[str, Any]]:
    from zhllama.evaluation.answering import answer_locally
    from zhllama.inference.transformers_chat_model import open_chat_model

    try:
        with progress("answer", len(answering.questions), "answers") as bar:
            bar.note("loading the model")
            model = open_chat_model(model_name, options.template)
            if model.assumed:
                warn("the tokenizer has no chat template: prompted in the format of Alpaca")
            answering.watch = bar
            bar.note(f"{model.template.name}, {options.at_once} at once")
            answer_locally(answering, journal, model, options.at_once, options.system)
    except BaseException:
        if not len(journal):
            run.resume = None
        raise
    return True, {"template": model.template.name}


def _files_of(model: str) -> list[Path]:
    """The files that decide the answers: the manifests of the runs, and the manifest of the base or else its files."""
    from zhllama.model.chain import model_files, resolve_chain

    chain = resolve_chain(model)
    manifests = [run / MANIFEST for run in chain.runs]
    if (own := chain.base / MANIFEST).is_file():
        return [own, *manifests]
    return [*model_files(chain.base), *manifests]


def _show(path: Path, result: Mapping[str, Any]) -> None:
    say(
        f"{path}: answered {result['answered']:,} of {result['questions']:,}, refused {result['refused']:,}, "
        f"truncated at the limit {result['cut_off']:,}"
    )
