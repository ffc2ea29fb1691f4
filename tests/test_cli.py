"""The command line's manners: quick help, one-line errors, exit codes, recipes, JSON."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scripts.cli_docs import cli_docs
from tests.conftest import ROOT, Zhllama
from zhllama.cli import main
from zhllama.commands.chinese_help import WORD
from zhllama.commands.help_page import help_page
from zhllama.commands.table import ENTRIES, Entry, app
from zhllama.commands.translation import COPIED, translated
from zhllama.extras import install_command

HEAVY = (
    "torch",
    "transformers",
    "openai",
    "datasets",
    "jieba",
    "tokenizers",
    "sentencepiece",
    "numpy",
    "datatrove",
    "pydantic",
    "asyncio",
    "yaml",
    "rich.markdown",
    "rich.console",
    "rich.table",
)


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import contextlib, sys, zhllama.cli\n"
        "with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit): zhllama.cli.main(['--help'])\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])\n"
        "print([m for m in sys.modules if m.startswith('zhllama.commands.')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == [
        "[]",
        "['zhllama.commands.translation', 'zhllama.commands.chinese_help', 'zhllama.commands.help_page', 'zhllama.commands.terminal', 'zhllama.commands.table']",
    ]


def test_an_unreadable_file_is_left_to_the_command() -> None:
    """typer told it in a box in English, without a remedy; root reads every file, so that its check itself is looked at."""
    paths = [
        (name, parameter.name)
        for name, parameter in _parameters(typer.main.get_command(app))
        if "Path" in str(parameter.type_descriptor.annotation)
        and parameter.type_descriptor.parameter_info.readable
    ]
    assert paths == []


def _parameters(command: Any, name: str = "zhllama") -> Iterator[tuple[str, Any]]:
    yield from ((name, parameter) for parameter in command.params)
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from _parameters(subcommand, f"{name} {inner}")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("width", "colors"), [(50, False), (80, True), (131, False)])
def test_help_is_drawn_as_rich_would(
    width: int,
    colors: bool,
    language: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("ZHLLAMA_LANG", language)
    monkeypatch.setenv("FORCE_COLOR" if colors else "NO_COLOR", "1")
    monkeypatch.delenv("NO_COLOR" if colors else "FORCE_COLOR", raising=False)
    if language == "zh":
        monkeypatch.setattr("rich._wrap.re_word", WORD)
    panels = {translated("Data"): [("review", translated(entry.help)) for entry in ENTRIES[:3]]}
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(style="bold cyan", width=len("review"))
    grid.add_column(ratio=1)
    for row in panels[translated("Data")]:
        grid.add_row(*row)
    Console(highlight=False).print(
        Panel(grid, title=Text(translated("Data")), title_align="left", border_style="dim")
    )
    drawn = capsys.readouterr().out
    ours = help_page([], panels)
    plain = re.compile("\x1b\\[[0-9;]*m")
    assert plain.sub("", ours).strip() == plain.sub("", drawn).strip()
    assert bool(plain.search(ours)) is bool(plain.search(drawn)) is colors


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_list_of_commands_has_their_docstrings(entry: Entry) -> None:
    command = entry.load()
    assert command.name == entry.name
    assert " ".join(command.help.split("\n\n")[0].split()) == entry.help


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sft", "--max-length", "4"), "--max-length"),
        (("reward", "--max-length", "4"), "--max-length"),
        (("pack", "--text", "a", "--tokenizer", "t", "--out", "o", "--block-size", "4"), "--block-size"),
    ],
)
def test_a_length_out_of_bounds_is_a_usage_error_about_its_flag(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    error = capsys.readouterr().err
    assert left.value.code == 2 and f"Invalid value for '{message}': Input should be greater than" in error


FORMER = [
    ("gen-zh", "--max-tokens", "100", "--token-budget"),
    ("judge", "--max-tokens", "100", "--token-budget"),
    ("answer", "--max-tokens", "100", "--token-budget"),
    ("gen-zh", "--batch", None, "--batch-api"),
    ("reward", "--aside", "0.2", "--validation-share"),
    ("dpo", "--aside", "0.2", "--validation-share"),
    ("judge", "--batch", None, "--batch-api"),
    ("answer", "--batch", None, "--batch-api"),
]


@pytest.mark.parametrize(("command", "former", "value", "flag"), FORMER)
def test_former_spellings_name_the_new_one(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, former: str, value: str | None, flag: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(inputs)
    words = {"judge": ["--answers", "a"], "answer": ["m", "--questions", "q"]}.get(command, [])
    with pytest.raises(SystemExit) as left:
        main([command, *words, "--out", "o", former, *([value] if value else [])])
    assert left.value.code == 1
    assert capsys.readouterr().err == f"zhllama: {former}: is now {flag}. Give {flag}\n"
    (inputs / "old.yaml").write_text(f"{former[2:].replace('-', '_')}: {value or 'true'}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main([command, *words, "--out", "o", "--config", "old.yaml"])
    old, new = (name[2:].replace("-", "_") for name in (former, flag))
    assert capsys.readouterr().err == f"zhllama: old.yaml: the option {old!r} is now {new!r}. Write {new}.\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--text", "zh"), "--text: 'zh' is not LABEL=PATH[:WEIGHT]"),
        (("--text", "zh=small.txt", "--eval-text", "zh"), "--eval-text: 'zh' is not LABEL=PATH[:WEIGHT]"),
        (
            ("--text", "zh=small.txt", "--eval-text", "zh=small.txt:0"),
            "--eval-text: the weight 0 of small.txt",
        ),
        (("--text", "zh=small.txt:-1"), "--text: the weight -1 of small.txt"),
        (("--text", "zh=small.txt", "--load-in-4bit"), "--load-in-4bit: freezes the layers"),
        (("--text", "zh=small.txt", "--rows", "none"), "--rows: none leaves stage 1 nothing to learn"),
        (("--text", "zh=small.txt", "--epochs", "0"), "--epochs: 0 is not above 0"),
        (("--text", "zh=small.txt", "--save-every", "0"), "--save-every: 0 is not above 0"),
    ],
)
def test_training_errors_name_their_flag(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(inputs)
    with pytest.raises(SystemExit) as left:
        main(["pretrain", "--stage", "1", "--model", "m", "--out", "o", *more])
    assert left.value.code == 1 and capsys.readouterr().err.startswith(f"zhllama: {message}")


def test_docs_are_what_help_says() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == cli_docs(), (
        "run python scripts/cli_docs.py"
    )


def test_no_arguments_help_version_and_usage(zhllama: Zhllama) -> None:
    assert "merge-vocab" in zhllama("--help").stdout
    assert zhllama("--version").stdout == "zhllama 0.1.0\n"
    unknown = zhllama("merge-vocabs")
    assert unknown.returncode == 2 and "No such command" in unknown.stderr
    assert zhllama("merge-vocab").returncode == 2


WORDPIECE = {
    "model": {"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 9},
    "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
}  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "empty.model").touch()
    (tmp_path / "random.model").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "latin1.txt").write_bytes(b"ok\n\xe9t\xe9\n")
    (tmp_path / "small.txt").write_text("你好，世界。\n", encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(json.dumps(WORDPIECE), encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text("szie: 3\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "where", "what"),
    [
        ("train-vocab nope.txt --out o", "nope.txt", "no such file"),
        ("train-vocab empty.txt --out o", "empty.txt", "is empty"),
        ("train-vocab latin1.txt --out o", "latin1.txt:2", "is not UTF-8"),
        ("train-vocab small.txt --out o", "the text", "is too little for 20,000 pieces"),
        ("train-vocab small.txt --cover gbk --out o", "--cover", "unknown character set 'gbk'"),
        ("train-vocab small.txt --out /proc/o", "/proc/o", "cannot be written"),
        ("train-vocab small.txt --out small.txt", "small.txt", "is a file"),
        ("train-vocab --config wrong.yaml --out o", "wrong.yaml", "unknown option 'szie'"),
        ("train-vocab --config nothing --out o", "nothing", "is neither a .yaml file nor a shipped recipe"),
        ("merge-vocab --base nope.model --out o", "nope.model", "no such file"),
        (
            "merge-vocab --base gpt-4 --out o",
            "gpt-4",
            "no such file. Check the path, or give a hub name with its owner",
        ),
        (
            "pretrain --stage 1 --model nope --text nope --batch 12 --out o",
            "--batch",
            "12 is no multiple of 8",
        ),
        ("dpo --model m --pairs p --out o --beta -1", "--beta", "-1 is not above 0. Give e.g. 0.1"),
        (
            "dpo --model m --pairs p --out o --label-smoothing 0.5",
            "--label-smoothing",
            "0.5 is not below 0.5",
        ),
        ("kto --model m --data d --out o --beta nan", "--beta", "nan is not a number"),
        ("pretrain --stage 2 --model m --text t --out o --lora-alpha 0", "--lora-alpha", "0 is not above 0"),
        ("refilter r --out o --max-output 0", "--max-output", "0 is not above 0"),
        ("merge-vocab --recipe continued --text small.txt --size -5 --out o", "--size", "-5 is not above 0"),
        ("eval m --text small.txt --limit -3", "--limit", "-3 is not above 0"),
        ("merge-vocab --base empty.model --out o", "empty.model", "is empty"),
        (
            "merge-vocab --base random.model --out o",
            "random.model",
            "is cut off or not a SentencePiece model",
        ),
        ("merge-vocab --base tokenizer.json --out o", "tokenizer.json", ""),
        (
            "merge-vocab --base nobody/nothing --out o",
            "nobody/nothing",
            "is not in the cache, and HF_HUB_OFFLINE is set",
        ),
        ("merge-vocab --zh empty.model --out o", "empty.model", "is empty"),
        (
            "merge-vocab --zh small.txt --recipe continued --out o",
            "--zh",
            "is not used by --recipe continued",
        ),
        ("merge-vocab --text small.txt --out o", "--text", "is not used by --recipe chinese-llama"),
        (
            "merge-vocab --recipe continued --text small.txt --out o",
            "the text",
            "is too little for 49,953 pieces",
        ),
        ("audit nope", "nope", "no such file"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    inputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    where: str,
    what: str,
) -> None:
    before = sorted(inputs.iterdir())
    monkeypatch.chdir(inputs)
    with pytest.raises(SystemExit) as left:  # in this process, where the heavy imports are done once
        main(line.split())
    shown = capsys.readouterr()
    told = [row for row in shown.err.splitlines() if not row.startswith("Training on")]
    assert left.value.code == 1 and shown.out == ""
    assert len(told) == 1 and told[0].startswith(f"zhllama: {where}: {what}")
    assert told[0].endswith(".") is (COPIED.search(told[0].removesuffix(".")) is None)
    assert sorted(inputs.iterdir()) == before


def test_debug_shows_the_traceback(zhllama: Zhllama) -> None:
    assert "Traceback" in zhllama("audit", "nope", "--debug").stderr


def test_merge_twice_and_with_force(zhllama: Zhllama, inputs: Path) -> None:
    line = ("merge-vocab", "--recipe", "safe", "--zh", "small.txt", "--fuzz", "100", "--out", "o")
    first = zhllama(*line, "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) | {"out": "o"} == json.loads(first.stdout)
    second = zhllama(*line)
    assert second.returncode == 1
    assert second.stderr == "zhllama: o: contains a finished run. Give --force to start over.\n"
    assert zhllama(*line, "--force").returncode == 0
    assert {p.name for p in (inputs / "o").iterdir()} == {
        "README.md", "added.tsv", "audit.json", "config.yaml", "manifest.json",
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    }  # fmt: skip
    assert (inputs / "o" / "added.tsv").read_text(encoding="utf-8").splitlines()[0] == "piece\tscore\twhy"


def test_recipe_file_gives_options_and_a_flag_wins(zhllama: Zhllama, inputs: Path) -> None:
    (inputs / "recipe.yaml").write_text(
        "recipe: safe\nzh: small.txt\nfuzz: 50\npad: true\n", encoding="utf-8"
    )
    shown = zhllama("merge-vocab", "--config", "recipe.yaml", "--fuzz", "60", "--out", "o", "--json")
    assert shown.returncode == 0, shown.stderr
    options = json.loads((inputs / "o" / "manifest.json").read_text(encoding="utf-8"))["options"]
    assert (options["recipe"], options["fuzz"], options["pad"]) == ("safe", 60, True)


def test_audit_passes_finds_the_base_and_exits_1_on_another(
    zhllama: Zhllama, inputs: Path, data: Path
) -> None:
    zhllama("merge-vocab", "--recipe", "safe", "--zh", "small.txt", "--fuzz", "50", "--out", "o")
    kept = zhllama("audit", "o", "--fuzz", "50")
    assert kept.returncode == 0 and "✓  no English drift" in kept.stdout
    broken = zhllama("audit", "o", "--base", data / "llama" / "llama.model", "--fuzz", "50", "--json")
    assert broken.returncode == 1 and json.loads(broken.stdout)["passed"] is False


def test_published_folder_on_real_models(zhllama: Zhllama, tmp_path: Path, data: Path) -> None:
    llama = data / "llama"
    shown = zhllama(
        "merge-vocab", "--base", llama / "llama.model", "--zh", llama / "chinese_sp.model", "--out", "o"
    )
    assert shown.returncode == 0, shown.stderr
    assert "345 of 17,953 added pieces can never occur" in shown.stdout
    assert "--recipe safe adds the same Chinese pieces" in shown.stdout
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text(encoding="utf-8"))
    assert (
        manifest["outputs"]["tokenizer.model"]
        == "e2676d4ca29ca1750f6ff203328d73b189321dc5776ceede037cbd36541d70c0"
    )
    assert manifest["figures"]["sentence_tokens"] == [35, 16]
    assert not (tmp_path / "o" / "tokenizer.json").exists()


def test_train_then_merge(zhllama: Zhllama, tmp_path: Path) -> None:
    from zhllama.resources import shipped

    sample = shipped("corpora", "sample")
    trained = zhllama("train-vocab", sample / "zh_*.txt", "--size", 3000, "--out", "list", "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["pieces"] == 3000
    assert {p.name for p in (tmp_path / "list").iterdir()} == {
        "config.yaml", "manifest.json", "pieces.tsv", "sentencepiece.log", "zh.model", "zh.vocab",
    }  # fmt: skip
    merged = zhllama(
        "merge-vocab", "--zh", "list/zh.model", "--recipe", "safe", "--out", "o", "--fuzz", 100, "--json"
    )
    assert merged.returncode == 0, merged.stderr
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["parents"] == [str((tmp_path / "list").resolve())]


def test_killed_merge_leaves_a_folder_that_force_clears(zhllama: Zhllama, inputs: Path) -> None:
    (inputs / "o").mkdir()
    (inputs / "o" / "config.yaml").write_text("command: merge-vocab\n", encoding="utf-8")
    line = ("merge-vocab", "--recipe", "safe", "--zh", "small.txt", "--fuzz", "50", "--out", "o")
    assert "contains an unfinished run. Give --force to start over" in zhllama(*line).stderr
    assert zhllama(*line, "--force").returncode == 0


def test_a_path_is_neither_folded_nor_taken_for_markup(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(inputs)
    out = f"[/red]{'很长的名字' * 30}"[:80]
    line = ("merge-vocab", "--recipe", "safe", "--zh", "small.txt", "--fuzz", "50", "--out", out)
    with pytest.raises(SystemExit) as left:
        main(list(line))
    assert left.value.code == 0 and f"Written to {out}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("datatrove.data", "datatrove.data: is needed for this and not installed. INSTALL[corpus]"),
        ("numba", "numba: is needed for this and not installed. INSTALL[fast]"),
        ("nobody_knows", "nobody_knows: is needed for this and not installed. INSTALL[all]"),
    ],
)  # fmt: skip
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str, told: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as good as not installed

    def needs_it(*_: object, **__: object) -> None:
        importlib.import_module(module)

    monkeypatch.setattr("zhllama.cli.app", needs_it)
    with pytest.raises(SystemExit) as left:
        main(["corpus", "clean"])
    sentence, _, extra = told.removesuffix("]").partition("INSTALL[")
    expected = f"zhllama: {sentence}{install_command(extra)}\n"
    assert left.value.code == 1 and capsys.readouterr().err == expected
