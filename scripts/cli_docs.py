"""Writes docs/cli.md and docs/cli.zh.md from the --help of every command in both languages.

    python scripts/cli_docs.py

Tests check that both are up to date. With `--print`, the page is printed in the language of the environment.
"""

import os
import subprocess
import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from zhllama.cli import app
from zhllama.commands.chinese_help import choose_language
from zhllama.commands.translation import chinese

ROOT = Path(__file__).parent.parent
HEAD = """# Command line

Made from `--help` by `python scripts/cli_docs.py`; do not edit.

With `ZHLLAMA_LANG=zh`, or in a Chinese locale without `ZHLLAMA_LANG`, help, progress, results and errors are in Chinese. Files and `--json` do not
depend on the language.
"""
CHINESE_HEAD = """# 命令行

本页由`python scripts/cli_docs.py`根据`--help`生成，请勿手工修改。

设置环境变量`ZHLLAMA_LANG=zh`，或未设置`ZHLLAMA_LANG`而系统区域为中文时，帮助、进度、结果和错误信息都显示为中文。写出的文件和`--json`的输出与语言无关。
"""


def commands(group: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every command, groups before their commands."""
    paths = [path]
    for name, command in getattr(group, "commands", {}).items():
        paths += commands(command, (*path, name))
    return paths


def cli_docs() -> str:
    """The whole page in the language of the environment."""
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    page = [CHINESE_HEAD if chinese() else HEAD]
    for path in commands(typer.main.get_command(app)):
        shown = runner.invoke(app, [*path, "--help"], prog_name="zhllama").output
        lines = "\n".join(line.rstrip() for line in shown.strip("\n").splitlines())
        page.append(f"## zhllama {' '.join(path)}".rstrip() + f"\n\n```text\n{lines}\n```\n")
    return "\n".join(page)


def chinese_cli_docs() -> str:
    """The whole page in Chinese, made by a process of its own, since typer is Chinese for a whole process."""
    command = [sys.executable, "-X", "utf8", __file__, "--print"]
    environment = {**os.environ, "ZHLLAMA_LANG": "zh", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, check=True, encoding="utf-8").stdout


if __name__ == "__main__":
    choose_language()
    if "--print" in sys.argv:
        sys.stdout.write(cli_docs())
    else:
        os.environ["ZHLLAMA_LANG"] = "en"
        (ROOT / "docs" / "cli.md").write_text(cli_docs(), encoding="utf-8")
        (ROOT / "docs" / "cli.zh.md").write_text(chinese_cli_docs(), encoding="utf-8")
