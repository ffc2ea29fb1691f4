"""The list of commands; the module of a command is imported when the command is called."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from zhllama.commands.chinese_help import localize, localize_error
from zhllama.commands.help_page import help_page
from zhllama.commands.terminal import say_part, shown
from zhllama.commands.translation import translated


@dataclass(frozen=True)
class Entry:
    """A command or a group as `zhllama --help` lists it; `target` is MODULE:NAME below zhllama.commands."""

    name: str
    panel: str
    help: str
    target: str

    def load(self) -> Any:
        """Import the module and build the command, or the group if the target is a Typer app."""
        module, _, attribute = self.target.partition(":")
        target = getattr(importlib.import_module(f"zhllama.commands.{module}"), attribute)
        single = isinstance(target, typer.Typer)
        app = target if single else typer.Typer(add_completion=False, rich_markup_mode="rich")
        if not single:
            app.command(self.name)(target)
        command: Any = typer.main.get_command(app)
        command.name, command.rich_help_panel = self.name, self.panel
        localize(command, f"zhllama {self.name}")
        return command


ENTRIES = (
    Entry("train-vocab", "Vocabulary", "Train a Chinese SentencePiece model: zh.model, for merge-vocab --zh.", "train_vocab:train_vocab"),
    Entry("merge-vocab", "Vocabulary", "Merge Chinese pieces into a model's vocabulary, and prove what that changed.", "merge_vocab:merge_vocab"),
    Entry("audit", "Vocabulary", "Prove what an extension changed and what it did not; exit 1 where a promise of its recipe is broken.", "audit:audit"),
    Entry("report", "Vocabulary", "Compare how efficiently tokenizers encode text: report.json, report.md and report.html.", "report:report"),
    Entry("advise", "Vocabulary", "Recommend how far to extend a vocabulary for Chinese, and whether it pays at all.", "advise:advise"),
    Entry("grow", "Model", "Add rows to a model for the ids of a larger vocabulary; old rows stay unchanged to the byte, unless --init shared or taught.", "grow:grow"),
    Entry("export", "Model", "Merge what a chain of runs trained, or published adapters, into one plain model, and prove that its outputs are equal.", "export:export"),
    Entry("eval", "Model", "Bits per byte and per character of texts under models, whatever their vocabularies; tasks; and the cost of serving.", "eval:evaluate"),
    Entry("pretrain", "Training", "Train new rows (stage 1), then adapters and rows (stage 2), on Chinese and English text.", "pretrain:pretrain"),
    Entry("pack", "Training", "Encode documents into memory-mapped blocks of one length, an end of text after each.", "pack:pack"),
    Entry("sft", "Training", "Tune a model on conversations: the loss covers the answers alone, and packed samples do not attend to each other.", "sft:sft"),
    Entry("reward", "Training", "Train a reward model that scores which of two answers is better, for zhllama judge --reward.", "reward:reward"),
    Entry("dpo", "Training", "Train a model to prefer the better answers (direct preference optimization).", "dpo:dpo"),
    Entry("kto", "Training", "Train a model on answers that are good or bad by themselves (Kahneman-Tversky optimization).", "kto:kto"),
    Entry("watch", "Training", "Show a training run at work: its curves, rate, remaining time and memory; ends with the run, or by Ctrl-C.", "watch:watch"),
    Entry("corpus", "Data", "Find, fetch and clean text for training.", "corpus:app"),
    Entry("sharegpt", "Data", "Clean, split and convert conversations, ShareGPT's and others.", "sharegpt:app"),
    Entry("gen-zh", "Data", "Generate Chinese instruction data with a model behind any OpenAI-compatible server.", "gen_zh:gen_zh"),
    Entry("refilter", "Data", "Apply other filters to the replies of a gen-zh run, without a request to a server.", "refilter:refilter"),
    Entry("review", "Data", "Review data on a local page: keep, drop, edit, comment, or choose the better answer; then export it.", "review:review"),
    Entry("answer", "Judging", "Answer a file of questions with a model, for judge.", "answer:answer"),
    Entry("judge", "Judging", "Judge models' answers by a model behind a server, by a reward model, and against reference answers.", "judge:judge"),
    Entry("chat", "Inference", "Talk with a model in the terminal, by the template that it was trained with.", "chat:chat"),
    Entry("serve", "Inference", "Serve a model over OpenAI's API, by the template that it was trained with, and with --web as a page to chat on.", "serve:serve"),
    Entry("demo", "Pipeline", "Run the whole pipeline at toy size on this machine: no model file, no network, no GPU; a few minutes.", "demo:demo"),
    Entry("run", "Pipeline", "Run the steps of a pipeline one after another; finished steps are skipped.", "run:run"),
    Entry("extras", "Pipeline", "List the optional packages, which of them are installed, and the command that installs the others here.", "extras:extras"),
    Entry("lineage", "Pipeline", "Draw the runs that a run was made from, with their figures, and the files that no run wrote.", "lineage:lineage"),
)  # fmt: skip


class _Commands(Mapping[str, Any]):
    """Commands by name, loaded when one is looked up."""

    def __init__(self) -> None:
        self._entries = {entry.name: entry for entry in ENTRIES}
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._entries[name].load()
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class LazyGroup(TyperGroup):
    """All commands, loaded when named. Usage errors are escaped, since the value may come from a recipe file."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return self.commands.get(cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Draw the options and the commands by panel. typer's own drawing needs every command, and rich."""
        options = [
            (", ".join(sorted(p.opts, key=len)), translated(getattr(p, "help", None) or ""))
            for p in self.get_params(ctx)
        ]
        panels: dict[str, list[tuple[str, str]]] = {translated("Options"): options}
        for entry in ENTRIES:
            panels.setdefault(translated(entry.panel), []).append((entry.name, translated(entry.help)))
        usage = translated("Usage: zhllama [OPTIONS] COMMAND [ARGS]...")
        page = help_page([usage, translated(self.help or "")], panels)
        say_part(f"{page}\n")

    def get_usage(self, ctx: Any) -> str:
        return translated(super().get_usage(ctx))

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        with _escaped_messages():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        from zhllama.commands.recipes import errors_that_name_the_recipe  # not needed for --help

        with _escaped_messages(), errors_that_name_the_recipe(ctx):
            return super().invoke(ctx)


@contextmanager
def _escaped_messages() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "option_name"):
            from zhllama.commands.foreign_options import suggest

            suggest(error)
        if isinstance(getattr(error, "message", None), str) and hasattr(error, "exit_code"):
            # pydantic, which reads the values, names the exception's class before its text.
            error.message = shown(error.message.removeprefix("Value error, "))  # type: ignore[attr-defined]
            localize_error(error)
        raise


app = typer.Typer(
    name="zhllama",
    cls=LazyGroup,
    help="Give a language model Chinese, and prove every step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        from zhllama.commands.shared import say

        say(f"zhllama {version('zhllama')}")
        raise typer.Exit


@app.callback()
def _zhllama(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    """Give a language model Chinese, and prove every step."""
