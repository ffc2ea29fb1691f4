"""llama.cpp's own converter, where the user has it: found, tried before the work, and run without its vocabulary part.

The converter is convert_hf_to_gguf.py of llama.cpp's sources. It opens some tokenizers with code that a folder names, and
recognizes pre-tokenizers by the ids of one text; so it is given a folder without code, and writes no vocabulary at all.
"""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zhllama.errors import InputError
from zhllama.io.files import to_json
from zhllama.io.json import read_object
from zhllama.model.converter_runner import ANOTHER
from zhllama.model.copy_files import copy_tokenizer
from zhllama.model.weight_files import read_weights
from zhllama.vocab.tokenizer_config import CONFIG

SCRIPT, VARIABLE = "convert_hf_to_gguf.py", "ZHLLAMA_GGUF_CONVERTER"
SET_IT = f"Set it to llama.cpp's {SCRIPT}, or to PYTHON and that"
FETCH = f"Download llama.cpp's sources, and set {VARIABLE} to their {SCRIPT}"
RUNNER = Path(__file__).with_name("converter_runner.py")
AGAIN = "Download the model again"


@dataclass(frozen=True)
class Converter:
    """The script, and the interpreter that runs it."""

    python: str
    script: Path


def find_converter() -> Converter | None:
    """The converter that ZHLLAMA_GGUF_CONVERTER names, alone or after an interpreter, else the one on PATH; None without both.

    Errors: InputError for a name of nothing.
    """
    named = os.environ.get(VARIABLE, "").strip()
    if not named:
        found = shutil.which(SCRIPT)
        return None if found is None else Converter(sys.executable, Path(found).resolve())
    python, script = sys.executable, named
    if not Path(named).is_file():
        *before, script = shlex.split(named)
        if len(before) > 1:
            raise InputError(VARIABLE, f"is {named!r}, more than an interpreter and a file", SET_IT)
        python = before[0] if before else python
    path = Path(script).expanduser()
    if not path.is_file():
        raise InputError(VARIABLE, f"names {script}, which is no file", SET_IT)
    if shutil.which(python) is None:
        raise InputError(VARIABLE, f"names the interpreter {python}, which cannot be run", SET_IT)
    return Converter(python, path.resolve())


def converter_for(folder: Path, model_type: str) -> Converter:
    """The converter for a type that zhllama does not write itself. Errors: InputError where there is none."""
    found = find_converter()
    if found is None:
        message = f"has the type {model_type}, which `gguf` writes by llama.cpp's own converter alone"
        raise InputError(folder, message, FETCH)
    return found


def try_converter(converter: Converter, folder: Path) -> None:
    """Let the converter plan all tensors of a folder, which reads no weights and writes nothing. Errors: InputError."""
    with TemporaryDirectory(prefix="zhllama-gguf-") as name:
        _run(converter, folder, Path(name), Path(name, "plan.gguf"), "--dry-run")


def run_converter(converter: Converter, folder: Path, out: Path) -> None:
    """Write the file `out` with the folder's weights in float16 and no vocabulary. Errors: InputError, OutputError."""
    out = out.resolve()  # the converter runs in the folder that it reads
    with TemporaryDirectory(prefix=".convert-", dir=out.parent) as name:
        _run(converter, folder, Path(name), out)


def _run(converter: Converter, folder: Path, staged: Path, out: Path, *options: str) -> None:
    _stage(folder, staged)
    command = [
        converter.python, str(RUNNER), str(converter.script), str(staged), "--outfile", str(out), "--outtype", "f16",
        "--model-name", folder.name, *options,
    ]  # fmt: skip
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=staged,
            env={**os.environ, **offline}, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except OSError as error:
        reason = f"names the interpreter {converter.python}, which cannot be run ({error.strerror})"
        raise InputError(VARIABLE, reason, SET_IT) from error
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    # Its logger writes `ERROR:hf-to-gguf:` before what it says.
    last = lines[-1].removeprefix("ERROR:hf-to-gguf:")[:300] if lines else f"exit code {done.returncode}"
    if done.returncode == ANOTHER:
        raise InputError(converter.script, last, SET_IT.replace("it", VARIABLE, 1))
    if done.returncode or not (options or out.is_file()):
        message = f"does not convert {folder.name} ({last})"
        raise InputError(converter.script, message, "Take a newer llama.cpp, or omit `gguf`")


def _stage(folder: Path, staged: Path) -> None:
    """Lay out what the converter reads: links to the weights, and config and tokenizer without the names of code."""
    files = read_weights(folder).files
    for number, file in enumerate(files, 1):
        # The converter knows shards by these beginnings of their names.
        begin, end = ("model", "safetensors") if file.endswith(".safetensors") else ("pytorch_model", "bin")
        link = staged / f"{begin}-{number:05}-of-{len(files):05}.{end}"
        link.symlink_to((folder / file).resolve())
    copy_tokenizer(folder, staged)
    config = _without_code(read_object(folder / "config.json", AGAIN))
    (staged / "config.json").write_text(to_json(config), encoding="utf-8")
    if (staged / CONFIG).is_file():
        settings = _without_code(read_object(staged / CONFIG, AGAIN))
        (staged / CONFIG).write_text(to_json(settings), encoding="utf-8")


def _without_code(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_code(inner) for key, inner in value.items() if key != "auto_map"}
    return [_without_code(inner) for inner in value] if isinstance(value, list) else value
