"""Options are declared once: bounds, flags, defaults and errors all come from the dataclass."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from zhllama.commands.declare import command
from zhllama.errors import InputError, MissingPackage, OptionError, ZhllamaError
from zhllama.extras import install_command
from zhllama.options import check_bounds, option, recorded, required, variant


@dataclass(frozen=True)
class Toy:
    source: Path = required("Where from.", positional=True)
    block_size: int = option(512, "Tokens of a block.", minimum=8, panel="Length", former=("--max-length",))
    rate: float = option(0.1, "A share.", above=0, below=1)
    fit: Literal["cut", "whole"] = option("cut", "How it fits.")
    text: tuple[Path, ...] = option((), "Files.")
    seed: int | None = option(None, "Seed.")
    quiet: bool = option(False, "Say nothing.", flags=("--quiet", "-q"), recorded=False)

    def __post_init__(self) -> None:
        check_bounds(self)


def called(*words: str) -> tuple[int, str, list[Toy]]:
    """Exit code, output, and the options that the command was called with."""
    seen: list[Toy] = []

    @command
    def toy(toy: Toy, name: Annotated[str, typer.Option("--name")] = "x") -> None:
        """A toy."""
        if toy.fit == "whole":
            raise OptionError("block_size", "does not fit", "Give less")
        seen.append(toy)

    app = typer.Typer(add_completion=False)
    app.command()(toy)
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output if result.exception is None else str(result.exception), seen


def test_defaults_lists_and_flags() -> None:
    assert called("here")[2] == [Toy(Path("here"))]
    code, _, seen = called("here", "--block-size", "9", "--text", "a", "--text", "b", "-q", "--seed", "3")
    assert code == 0 and seen == [Toy(Path("here"), 9, text=(Path("a"), Path("b")), quiet=True, seed=3)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "1"], "--rate: 1 is not below 1. Give e.g. 0.1."),
        (["--rate", "0"], "--rate: 0 is not above 0. Give e.g. 0.1."),
        (["--fit", "whole"], "--block-size: does not fit. Give less."),
        (["--max-length", "4"], "--max-length: is now --block-size. Give --block-size."),
    ],
)
def test_errors_name_the_flag(words: list[str], message: str) -> None:
    code, output, seen = called("here", *words)
    assert code == 1 and output == message and seen == []


def test_usage_errors_are_typers() -> None:
    assert called("here", "--block-size", "4")[0] == 2
    assert called("here", "--fit", "odd")[0] == 2
    assert called()[0] == 2


def test_help_has_panel_default_and_bounds() -> None:
    shown = called("--help")[1]
    assert (
        "Length" in shown and "512" in shown and "Tokens of a block." in shown and "--max-length" not in shown
    )


def test_python_callers_get_the_field() -> None:
    with pytest.raises(OptionError, match="block_size: 4 is below 8"):
        Toy(Path("here"), block_size=4)


def test_recorded_options_are_plain_values() -> None:
    assert recorded(Toy(Path("here"), text=(Path("a"),), quiet=True)) == {
        "source": "here", "block_size": 512, "rate": 0.1, "fit": "cut", "text": ["a"], "seed": None,
    }  # fmt: skip


def test_a_subclass_redeclares_an_option_under_another_key() -> None:
    @dataclass(frozen=True)
    class Long(Toy):
        block_size: int = variant(Toy, "block_size", 1024, key="max_tokens", former=())

    seen: list[Long] = []

    @command
    def long(options: Long) -> None:
        seen.append(options)
        raise OptionError("block_size 9", "does not fit `rate`", "Give `block_size` and `text`, not `other`")

    app = typer.Typer(add_completion=False)
    app.command()(long)
    result = CliRunner().invoke(app, ["here", "--max-tokens", "9"])
    assert str(result.exception) == (
        "--max-tokens 9: does not fit --rate. Give --max-tokens and --text, not `other`."
    )
    assert seen[0].block_size == 9 and recorded(seen[0])["max_tokens"] == 9
    assert Long(Path("here")).block_size == 1024 and Toy(Path("here")).block_size == 512


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            InputError("`text`", "is empty", "Give a larger `block_size`"),
            "--text: is empty. Give a larger --block-size.",
        ),
        (InputError("a.txt:3", "has no `field`", "Give `text`"), "a.txt:3: has no `field`. Give --text."),
        (
            MissingPackage("`fit` whole", "toy", "all"),
            f"--fit whole: needs the package toy. {install_command('all')}.",
        ),
        (OptionError("source", "is `here`", ""), "SOURCE: is `here`."),
    ],
)
def test_errors_of_every_kind_show_flags(error: ZhllamaError, message: str) -> None:
    @command
    def toy(toy: Toy) -> None:
        raise error

    app = typer.Typer(add_completion=False)
    app.command()(toy)
    raised = CliRunner().invoke(app, ["here"]).exception
    assert raised is error and str(raised) == message
