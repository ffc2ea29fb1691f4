"""Shared by all tests: no network, the real data where it is, the command line as users see it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import hypothesis
import pytest

from zhllama.io.text import read_lines
from zhllama.vocab.merge import safe
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.train import train_on_words
from zhllama.vocab.word_lists import base_file, listed_pieces

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ZHLLAMA_LANG"] = "en"  # texts are compared in English, whatever the locale
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).parent.parent
Zhllama = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure(config: pytest.Config) -> None:
    for told in (
        "ignore:invalid escape sequence:DeprecationWarning",  # jieba's patterns, when they are compiled first
        "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning",  # peft asks transformers by that name
    ):
        config.addinivalue_line("filterwarnings", told)
    # An example has no time limit: on a busy machine a limit fails tests that are right.
    hypothesis.settings.register_profile("zhllama", deadline=None)
    hypothesis.settings.load_profile("zhllama")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real models and texts, or a skip with its reason."""
    path = Path(os.environ.get("ZHLLAMA_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no test data at {path}; set ZHLLAMA_TEST_DATA")
    return path


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with tests/golden/NAME, or write it there under --update-golden."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), (
            f"{name} changed; if rightly so, run with --update-golden"
        )

    return compare


@pytest.fixture
def zhllama(tmp_path: Path) -> Zhllama:
    """Run `zhllama ...` in a process of its own, in a folder of its own.

    The process is forked, so that torch and transformers are imported once for all tests; with `env` it is started as
    `python -m zhllama`.
    """

    def run(
        *arguments: object, env: dict[str, str] | None = None, timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        words = list(map(str, arguments))
        if env is None:
            return forked(tmp_path, words, timeout)
        return subprocess.run(
            [sys.executable, "-m", "zhllama", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1", **env},
        )

    return run


def forked(folder: Path, words: list[str], timeout: float) -> "subprocess.CompletedProcess[str]":
    """Run a command line in a fork of this process, as `python -m zhllama` would with 120 columns and no color."""
    import torch  # noqa: F401 - imported here, not in each child
    import transformers.models.auto.tokenization_auto  # noqa: F401

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = _run_here(folder, words, out.fileno(), err.fileno())
            finally:
                os._exit(code)
        deadline = time.monotonic() + timeout
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise subprocess.TimeoutExpired(words, timeout)
            time.sleep(0.01)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(ended[1]), *texts)


def _run_here(folder: Path, words: list[str], out: int, err: int) -> int:
    from zhllama.cli import main
    from zhllama.commands.shared import notes, screen

    os.chdir(folder)
    os.environ.update(COLUMNS="120", NO_COLOR="1")
    screen.width = notes.width = 120
    os.dup2(out, 1)
    os.dup2(err, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with (
        Path(os.devnull).open(encoding="utf-8") as sys.stdin,
        os.fdopen(1, "w", encoding="utf-8", closefd=False) as sys.stdout,
        os.fdopen(2, "w", encoding="utf-8", closefd=False) as sys.stderr,
    ):
        try:
            main(words)
        except SystemExit as left:
            return int(left.code or 0)
        except Exception:
            traceback.print_exc()
            return 1
    return 0


@pytest.fixture(scope="session")
def llama(data: Path) -> SentencePieceVocabulary:
    """LLaMA's own vocabulary."""
    return SentencePieceVocabulary.read(data / "llama" / "llama.model")


@pytest.fixture(scope="session")
def published_list(data: Path) -> list[str]:
    """The published 20,000-piece Chinese list."""
    return listed_pieces(data / "llama" / "chinese_sp.model")


@pytest.fixture(scope="session")
def embedded() -> SentencePieceVocabulary:
    """The base that travels in mistral-common."""
    return SentencePieceVocabulary.read(base_file(None))


@pytest.fixture(scope="session")
def jieba_list() -> list[str]:
    """A small list from jieba's words: what a user without text gets, only shorter."""
    return [p.text for p in train_on_words(4000, coverage=0.98).model.pieces]


@pytest.fixture(scope="session")
def safe_vocabulary(embedded: SentencePieceVocabulary, jieba_list: list[str]) -> SentencePieceVocabulary:
    """The embedded base, safely extended: needs nobody's files."""
    return safe(embedded, jieba_list).vocabulary


def read_xz(path: Path, most: int | None = None) -> list[str]:
    """Non-empty lines of a text of the real data, the first `most` of them."""
    return list(islice(read_lines([path]), most))
