"""Pipes and devices among the files of a model or tokenizer that other libraries open by name: refused at once, never waited for."""

import os
import re
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model_toys import CHINESE, ENGLISH, base_vocabulary, line, write_model, write_run, write_tokenizer
from zhllama.errors import InputError
from zhllama.model.load import load_base, load_transformers_tokenizer
from zhllama.pretrained import open_adapter, open_config
from zhllama.vocab.any_tokenizer import tokenizer_file
from zhllama.vocab.read import read_vocabulary

SECONDS = 20
OF_MODEL = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
)
OF_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                "chat_template.jinja", "chat_template.json", "vocab.json", "additional_chat_templates/tool_use.jinja")  # fmt: skip
KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": lambda path: os.mkfifo(path),
    "a link to a pipe": lambda path: (os.mkfifo(path.with_name(".pipe")), path.symlink_to(".pipe")),
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a file of the kernel": lambda path: path.symlink_to("/proc/kmsg"),
}


def in_child(work: Callable[[], str]) -> str:
    """What `work` returns, from a process that may not wait, compute or take memory without end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(SECONDS)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            size = 1 << 33
            resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 32), size + (1 << 32)))
            told = work()
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writing, told.encode()[:4000])
        os._exit(0)
    os.close(writing)
    told = os.read(reading, 4096).decode()
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"ended by signal {-code}, after {SECONDS} s where that is {signal.SIGALRM}"
    return told


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "base")


def spoiled(base: Path, folder: Path, name: str, kind: str) -> Path:
    """A copy of the model with one file replaced, and the text that commands read beside it."""
    shutil.copytree(base, folder / "m")
    (folder / "m" / name).unlink(missing_ok=True)
    (folder / "m" / name).parent.mkdir(exist_ok=True)
    KINDS[kind](folder / "m" / name)
    (folder / "text.txt").write_text(f"{ENGLISH}\n{CHINESE}\n", encoding="utf-8")
    write_tokenizer(base_vocabulary(), folder / "t")
    return folder / "m"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", (*OF_MODEL, *OF_TOKENIZER))
def test_opening(base: Path, tmp_path: Path, name: str, kind: str) -> None:
    folder = spoiled(base, tmp_path, name, kind)
    opens = [open_config, load_base] if name in OF_MODEL else [load_transformers_tokenizer, load_base]
    for opened in opens:
        told = in_child(lambda opened=opened: repr(opened(folder)))  # type: ignore[misc]
        assert told.startswith("InputError") and (
            "not a regular file" in told or "has no config.json" in told
        ), told


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapters(base: Path, tmp_path: Path, name: str, kind: str) -> None:
    run = write_run(tmp_path / "run", base, lora=True)
    (run / "adapter" / name).unlink()
    KINDS[kind](run / "adapter" / name)
    told = in_child(lambda: repr(open_adapter(None, run / "adapter")))
    assert told.startswith("InputError") and "not a regular file" in told, told


SOME = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
)
READ_WITH_A_VOCABULARY = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
LINES = {
    "eval": ("eval", "m", "--text", "text.txt", "--limit", "100"),
    "chat": ("chat", "m", "--prompt", "a", "--max-tokens", "2"),
    "answer": ("answer", "m", "--questions", "q.jsonl", "--reply-tokens", "2", "--out", "out"),
    "grow": ("grow", "--model", "m", "--tokenizer", "t", "--out", "out"),
    "pretrain": ("pretrain", "--stage", "1", "--model", "m", "--text", "a=text.txt", "--rows", "all", "--dry-run"),
    "pack": ("pack", "--text", "text.txt", "--tokenizer", "m", "--block-size", "8", "--out", "out"),
    "merge-vocab": ("merge-vocab", "--base", "m", "--zh", "words.txt", "--recipe", "safe", "--fuzz", "5", "--out", "out"),
    "sharegpt split": ("sharegpt", "split", "talks.json", "--tokenizer", "m", "--max-length", "64", "--out", "out"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ_WITH_A_VOCABULARY)
def test_a_vocabulary_is_not_read_without_its_settings(base: Path, tmp_path: Path, name: str) -> None:
    """A pipe, a folder or a link to nothing in a setting's place counted as no setting, and the audit left it out."""
    for kind, make in {
        "pipe": os.mkfifo,
        "folder": os.mkdir,
        "link": lambda path: Path(path).symlink_to("gone"),
    }.items():
        model = shutil.copytree(base, tmp_path / kind)
        (model / name).unlink(missing_ok=True)
        make(model / name)
        with pytest.raises(InputError, match=re.escape(str(model / name))):
            read_vocabulary(tokenizer_file(model))


@pytest.mark.parametrize("command", LINES)
def test_commands(base: Path, tmp_path: Path, command: str) -> None:
    """One that does not read a file may leave it alone; none waits, and each error names the file or its folder."""
    (tmp_path / "q.jsonl").write_text('{"id": "1", "instruction": "a"}\n', encoding="utf-8")
    talk = '[{"id": "1", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]'
    (tmp_path / "talks.json").write_text(talk, encoding="utf-8")
    (tmp_path / "words.txt").write_text("中国\n历史\n", encoding="utf-8")
    refused = 0
    for name in SOME:
        folder = spoiled(base, tmp_path, name, "a pipe")

        def run() -> str:
            told = line(tmp_path, *LINES[command])
            return f"{told.code} {told.err.strip().splitlines()[-1:]}"

        told = in_child(run)
        assert told.startswith("0 ") or re.match(r"1 \['zhllama: (\S*/)?m[/:]", told), (name, told)
        refused += told.startswith("1 ")
        for path in (folder, tmp_path / "t", tmp_path / "out"):
            shutil.rmtree(path, ignore_errors=True)
    assert refused >= (len(SOME) if command in ("eval", "chat", "answer") else 1)


@pytest.mark.parametrize("shard", ["../pipe", "/dev/zero", "sub/pipe", "..", "pipe"])
def test_a_shard_that_is_no_file_of_the_folder(base: Path, tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    (folder / "sub").mkdir()
    for pipe in (tmp_path / "pipe", folder / "sub" / "pipe", folder / "pipe"):
        os.mkfifo(pipe)
    (folder / "model.safetensors.index.json").write_text(
        f'{{"weight_map": {{"lm_head.weight": "{shard}"}}}}', encoding="utf-8"
    )
    with pytest.raises(InputError):
        load_base(folder)
    assert in_child(lambda: repr(load_base(folder))).startswith("InputError")
