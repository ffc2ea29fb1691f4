"""Tries every causal language model of transformers, at toy size: grow, both stages, sft, full training, export and GGUF.

    python scripts/experiments/architectures.py LINES.jsonl [TYPE ...]      # one line of JSON a type; those there are left out
    python scripts/experiments/architectures.py LINES.jsonl --docs          # puts the lines into docs/reference/architectures.md and .zh.md

Types are those of transformers' mapping for causal language models. Each runs in a process of its own, through the command line.
A cell is `ok`, `plain` (whole matrices and transformers' own loss), `converter` (GGUF by llama.cpp's own converter, if
ZHLLAMA_GGUF_CONVERTER names it), `untried` (so, and this llama.cpp lacks the type), or the line that refuses it. For a type that trains,
`difference` is the largest relative difference of loss and row gradients between zhllama and transformers, on other ids than
those of the check that training makes.
"""

import argparse
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch
from architecture_pages import write_pages
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from toy_architectures import ROWS, toy_model

from zhllama.resources import shipped
from zhllama.vocab.byte_level_json import QWEN

ADDED = 40
SHORT = (
    "--steps",
    "2",
    "--batch",
    "2",
    "--micro-batch",
    "2",
    "--precision",
    "fp32",
    "--log-every",
    "1",
    "--force",
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT, FEW = 4000, 60  # characters for training, and for validation, which runs in windows of 32 tokens


def command(*words: object) -> tuple[int, str]:
    """The exit code of a command line in this process, and what it told on stderr."""
    from zhllama.cli import main

    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main([str(word) for word in words])
    except SystemExit as stopped:
        return int(stopped.code or 0), err.getvalue()
    return 0, err.getvalue()


def cell(*words: object) -> str:
    """What a cell of the table says about a command."""
    code, told = command(*words)
    if code:
        lines = [line for line in told.splitlines() if line.startswith("zhllama: ")] or told.splitlines()[-1:]
        return lines[-1].removeprefix("zhllama: ") if lines else f"exit code {code}"
    return "plain" if "trained with whole matrices" in told else "ok"


def gguf_cell(model: str) -> str:
    """As `cell`, with who wrote the GGUF file, and whether llama.cpp could try what its converter wrote."""
    from zhllama.model.gguf_converted import converter_of

    told = cell("export", model, "--gguf", "f16", "--out", "file", "--force")
    if told != "ok" or converter_of(Path(model)) is None:
        return told
    figures = json.loads(Path("file", "manifest.json").read_text(encoding="utf-8"))["figures"]
    return "converter" if "gguf_gap" in figures else "untried"


def make_vocabularies(folder: Path) -> None:
    """A byte-level vocabulary with the pattern of Qwen2, `base`, and one with more tokens, `larger`."""
    texts = [
        shipped("corpora", "sample", n).read_text(encoding="utf-8") for n in ("en_essay.txt", "zh_news.txt")
    ]
    for name, size in (("base", ROWS), ("larger", ROWS + ADDED)):
        inner = Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(QWEN), behavior="isolated")
        inner.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        inner.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(
            vocab_size=size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        )  # fmt: skip
        inner.train_from_iterator(texts, trainer)
        (folder / name).mkdir()
        inner.save(str(folder / name / "tokenizer.json"))
        named = {"pad_token": SPECIAL[0], "bos_token": SPECIAL[1], "eos_token": SPECIAL[2]}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, **named}
        (folder / name / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "text.txt").write_text(texts[0][:TEXT] + texts[1][:TEXT], encoding="utf-8")
    (folder / "few.txt").write_text(texts[1][:FEW], encoding="utf-8")
    rows = [{"instruction": f"say {n}", "input": "", "output": f"{n} is a number"} for n in range(8)]
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")


def try_type(model_type: str, folder: Path) -> dict[str, Any]:
    """The row of one type, in a folder with the vocabularies and data."""
    from zhllama.model.copy_files import copy_tokenizer

    try:
        model = toy_model(model_type)
        model.save_pretrained(folder / "model")
    except BaseException as error:  # of any kind, in code of any model
        return {
            "type": model_type,
            "cannot be built": " ".join(f"{type(error).__name__}: {error}".split())[:200],
        }
    row: dict[str, Any] = {
        "type": model_type,
        "class": type(model).__name__,
        "parameters": model.num_parameters(),
    }
    del model
    copy_tokenizer(folder / "base", folder / "model")
    row["grow"] = cell("grow", "--model", "model", "--tokenizer", "larger", "--out", "grown")
    start = "grown" if row["grow"] == "ok" else "model"
    rows = () if start == "grown" else ("--rows", "all")
    text = ("--text", "zh=text.txt", "--eval-text", "zh=few.txt", "--block-size", "32", *SHORT)
    row["stage 1"] = cell("pretrain", "--stage", 1, "--model", start, *rows, *text, "--out", "one")
    row["stage 2"] = cell("pretrain", "--stage", 2, "--model", start, *rows, *text, "--out", "two")
    data = ("--data", "data.json", "--model", start, "--max-length", "256", *SHORT)
    row["sft"] = cell("sft", *data, *rows, "--out", "tuned")
    row["full"] = cell("sft", *data, "--full", "--rows", "all", "--out", "full")
    trained = [("two", "stage 2"), ("tuned", "sft"), ("full", "full"), ("one", "stage 1")]
    runs = [run for run, step in trained if row[step] in ("ok", "plain")]
    cells = [cell("export", run, "--out", f"plain-{run}", "--force") for run in runs]
    row["export"] = next((one for one in cells if one != "ok"), "ok" if cells else "nothing was trained")
    row["GGUF"] = gguf_cell(start)
    if row["stage 1"] == "ok" and start == "grown":
        row["difference"] = difference(start)
    return row


def difference(folder: str) -> float:
    """The largest relative difference of loss and row gradients of the trained model and transformers' own."""
    from zhllama.model.chain import resolve_chain
    from zhllama.model.load import load_base
    from zhllama.training.prepare_model import open_for_training, prepare_model
    from zhllama.training.trainable_rows import TrainableRows, arrange_rows

    own = load_base(Path(folder), torch.float32)
    rows = own.get_input_embeddings().weight.shape[0]
    ids = torch.randint(3, rows, (2, 24), generator=torch.Generator().manual_seed(5))
    head = own.get_output_embeddings().weight
    weights = [own.get_input_embeddings().weight, head]
    expected_loss = own(input_ids=ids, labels=ids, use_cache=False).loss
    expected = [
        g[ROWS:] for g in torch.autograd.grad(expected_loss, list({id(w): w for w in weights}.values()))
    ]
    opened = open_for_training(resolve_chain(folder), "both", "fp32", torch.device("cpu"))
    prepared = prepare_model(opened, arrange_rows(range(ROWS, rows), rows), "both", None)
    assert isinstance(prepared.rows, TrainableRows)
    parts = [prepared.rows.embedding.rows, prepared.rows.head.rows][: len(expected)]
    loss = prepared.model(input_ids=ids, labels=ids, use_cache=False).loss
    gradients = torch.autograd.grad(loss, parts)
    pairs = [(loss, expected_loss), *zip(gradients, expected, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs)


def run_type(model_type: str, world: Path) -> dict[str, Any]:
    """The row of one type, from a process of its own: some models change global state, and some end the process.

    `world`: the folder with the vocabularies and data. `modules` of the row are those that the process has imported.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            os.environ["ZHLLAMA_CACHE"] = str(Path(folder, "cache"))
            shutil.copytree(world, folder, dirs_exist_ok=True)
            try:
                row = try_type(model_type, Path(folder))
            except BaseException as error:
                row = {"type": model_type, "failed": f"{type(error).__name__}: {error}"[:300]}
        with os.fdopen(writing, "wb") as file:
            file.write(json.dumps(row | {"modules": sorted(sys.modules)}).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    return json.loads(content) if content else {"type": model_type, "failed": "its process ended"}


def this_commit() -> str:
    """The commit of this checkout, `-` without git."""
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    with suppress(OSError):
        return subprocess.run(words, capture_output=True, text=True).stdout.strip() or "-"
    return "-"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lines", type=Path)
    parser.add_argument("types", nargs="*")
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args()
    content = options.lines.read_text(encoding="utf-8") if options.lines.exists() else ""
    known = {row["type"]: row for row in map(json.loads, content.splitlines())}
    if options.docs:
        write_pages(list(known.values()), Path(__file__).parents[2] / "docs" / "reference")
        return
    from transformers import AutoModelForCausalLM, Trainer  # noqa: F401 - imported here, not in each child
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.utils import logging

    import zhllama.training.train  # noqa: F401

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    toy_model("llama"), toy_model("mixtral")
    world = Path(tempfile.mkdtemp())
    commit = this_commit()
    make_vocabularies(world)
    for number, model_type in enumerate(options.types or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        if model_type in known:
            continue
        row = run_type(model_type, world)
        modules = row.pop("modules", [])
        for name in modules if number == 0 else ():  # what each of the others would import
            if name not in sys.modules and not name.startswith(("transformers.models.", "__")):
                with suppress(Exception):
                    importlib.import_module(name)
        with options.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | {"commit": commit}, ensure_ascii=False) + "\n")
        print(json.dumps(row, ensure_ascii=False)[:1500], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
