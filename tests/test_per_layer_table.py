"""Models that add a row of a further table of the vocabulary to each layer's input (Gemma 3n, Gemma 4): it grows too."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scripts.experiments.toy_architectures import toy_model
from tests.model_toys import base_vocabulary, larger_vocabulary, line, logits, write_run, write_tokenizer
from zhllama.errors import OptionError
from zhllama.model.grow import grow
from zhllama.model.growth_plan import plan_growth
from zhllama.model.old_rows import compare_old_rows
from zhllama.model.row_init import RowInit

TYPES = ("gemma3n_text", "gemma4_text")
TABLE, EMBEDDING = "model.embed_tokens_per_layer.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(larger_vocabulary(), tmp_path_factory.mktemp("larger"))


def write(kind: str, folder: Path) -> Path:
    toy_model(kind).save_pretrained(folder)
    return write_tokenizer(base_vocabulary(), folder)


def edit(folder: Path, rows: int, **settings: int) -> None:
    """Cut the table to so many rows, and set what its config says."""
    tensors = load_file(folder / "model.safetensors")
    tensors[TABLE] = tensors[TABLE][:rows].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | settings), encoding="utf-8")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("init", ["mean", "random", "weighted"])
def test_the_table_grows_by_means(tmp_path: Path, larger: Path, kind: str, init: str) -> None:
    base = write(kind, tmp_path / "base")
    grown = grow(base, larger, tmp_path / "out", init=init, pad_rows_to=16)  # type: ignore[arg-type]
    assert grown.per_layer == TABLE
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    for name in (TABLE, EMBEDDING):
        assert after[name].shape == (grown.rows, before[name].shape[1])
        assert torch.equal(after[name][: grown.n_old], before[name])
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == config["vocab_size_per_layer_input"] == grown.rows
    pieces = plan_growth(base, larger).old_tokens[5]
    expected = before[TABLE][pieces].mean(0)
    assert len(pieces) > 1 and torch.allclose(after[TABLE][grown.n_old + 5], expected, atol=1e-6)
    ids = list(range(5, 30))
    assert torch.equal(logits(tmp_path / "out", ids)[:, : grown.n_old], logits(base, ids))


def test_ids_beyond_the_table_keep_what_the_model_looked_up_for_them(tmp_path: Path, larger: Path) -> None:
    """Gemma 3n has no rows for its ids of images and sounds, and takes the first row for them."""
    base = write("gemma3n_text", tmp_path / "base")
    edit(base, 590, vocab_size_per_layer_input=590)
    grown = grow(base, larger, tmp_path / "out")
    table = load_file(tmp_path / "out" / "model.safetensors")[TABLE]
    assert len(table) == grown.rows and torch.equal(table[590:600], table[:1].expand(10, -1))
    ids = list(range(575, 600))
    assert torch.equal(logits(tmp_path / "out", ids)[:, :600], logits(base, ids))
    assert logits(tmp_path / "out", [5, grown.rows - 1, 7]).isfinite().all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("init", ["distill", "taught"])
def test_initializations_without_ids_are_refused(
    tmp_path: Path, larger: Path, kind: str, init: RowInit
) -> None:
    """transformers cannot find the rows of the table for embeddings that are no rows of its matrix."""
    base = write(kind, tmp_path / "base")
    with pytest.raises(
        OptionError, match=f"init {init}: runs the model without ids, and this one looks them up in {TABLE}"
    ):
        grow(
            base,
            larger,
            tmp_path / "out",
            init=init,
            untie=init == "taught",
            texts=["我们今天没有时间研究历史。"],
        )
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_one_of_the_grown_model(tmp_path: Path, larger: Path) -> None:
    """The new rows of the table are in no adapter, so that the model before it grew is no base of it."""
    base = write("gemma4_text", tmp_path / "base")
    grown = grow(base, larger, tmp_path / "grown")
    run = write_run(
        tmp_path / "run", tmp_path / "grown", range(grown.n_old, grown.rows), tied=True, lora=True
    )
    told = line(tmp_path, "export", run, "--adapter-only", "--out", "adapter", "--json")
    assert told.code == 0, told.err
    assert json.loads(told.out)["base"] == str(tmp_path / "grown")


@pytest.mark.parametrize(
    ("kind", "stages"),
    [
        ("gemma4_text", (2,)),
        pytest.param("gemma4_text", (1,), marks=pytest.mark.slow),
        pytest.param("gemma3n_text", (1, 2), marks=pytest.mark.slow),
    ],
)
def test_grown_models_are_trained_exported_and_audited(
    tmp_path: Path, larger: Path, kind: str, stages: tuple[int, ...]
) -> None:
    write(kind, tmp_path / "base")
    told = line(tmp_path, "grow", "--model", "base", "--tokenizer", larger, "--out", "grown")
    assert told.code == 0, told.err
    assert f"{TABLE} has grown too: its new rows are means, and training leaves them so" in told.out
    (tmp_path / "zh.txt").write_text("我们今天没有时间研究历史。\n" * 60, encoding="utf-8")
    text = (
        "--text",
        "zh=zh.txt",
        "--eval-text",
        "zh=zh.txt",
        "--block-size",
        32,
        "--steps",
        2,
        "--batch",
        2,
        "--micro-batch",
        2,
        "--precision",
        "fp32",
    )
    for stage in stages:
        told = line(tmp_path, "pretrain", "--stage", stage, "--model", "grown", *text, "--out", f"run{stage}")
        assert told.code == 0, told.err
        told = line(tmp_path, "export", f"run{stage}", "--out", f"plain{stage}")
        assert told.code == 0, told.err
        tables = [
            load_file(tmp_path / name / "model.safetensors")[TABLE] for name in ("grown", f"plain{stage}")
        ]
        assert torch.equal(*tables), "frozen"
    rows = compare_old_rows(tmp_path / "grown")
    assert rows is not None and not rows.undeclared and not rows.changed_weights
    shutil.copytree(tmp_path / "grown", tmp_path / "other")
    tensors = load_file(tmp_path / "other" / "model.safetensors")
    tensors[TABLE][7] += 1
    save_file(tensors, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    rows = compare_old_rows(tmp_path / "other")
    assert rows is not None and rows.undeclared_weights == (TABLE,)
