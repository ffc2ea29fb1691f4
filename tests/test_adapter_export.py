"""export --adapter-only: what a chain of runs trained, as a PEFT folder that PEFT, AutoPeft and our own fold open."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.model_toys import (
    CHINESE,
    base_vocabulary,
    larger_vocabulary,
    line,
    logits,
    write_chain,
    write_model,
    write_run,
)
from zhllama.io.files import sha256
from zhllama.model import export
from zhllama.model.load import load_base

IDS = larger_vocabulary().processor.encode(CHINESE)


def peft_logits(base: Path, folder: Path, rows: int | None, ids: list[int] = IDS) -> torch.Tensor:
    from peft import PeftModel

    model = load_base(base, torch.float32)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    model = PeftModel.from_pretrained(model, str(folder)).eval()
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "tied"), [("llama", False), ("llama", True), ("gemma", True)])
def test_a_chain_is_an_adapter_of_the_model_before_it_grew(
    tmp_path: Path, kind: str, tied: bool, dtype: torch.dtype
) -> None:
    run = write_chain(tmp_path, tied, dtype, kind)
    grown = tmp_path / "grown-model"
    for name, words in (
        ("config.yaml", "command: grow\nmodel: base\n"),
        ("manifest.json", '{"command": "grow"}'),
    ):
        (grown / name).write_text(words, encoding="utf-8")
    assert line(tmp_path, "export", run, "--out", "plain").code == 0
    done = line(tmp_path, "export", run, "--adapter-only", "--out", "adapter", "--json")
    assert done.code == 0, done.err
    told, rows = json.loads(done.out), len(larger_vocabulary().pieces)
    assert (told["rows"], told["grows"], told["base"]) == (rows, True, "base")
    expected = logits(tmp_path / "plain", IDS)
    found = peft_logits(tmp_path / "base", tmp_path / "adapter", rows)
    limit = 1e-5 if dtype == torch.float32 else 3e-2
    assert float((found - expected).norm() / expected.norm()) < limit
    named = json.loads((tmp_path / "adapter" / "base.json").read_text(encoding="utf-8"))
    weights = "model.safetensors"
    assert named == {"model": "base", "files": {weights: sha256(tmp_path / "base" / weights)}, "rows": rows}
    # And folded again, it is the plain export to the byte of its matrices, and within one rounding elsewhere.
    folded = line(tmp_path, "export", "--model", "base", "--adapter", "adapter", "--out", "folded")
    assert folded.code == 0, folded.err
    one, two = (load_file(tmp_path / f / weights) for f in ("plain", "folded"))
    assert one.keys() == two.keys()
    eps = torch.finfo(dtype).eps
    assert all(torch.allclose(one[k].float(), two[k].float(), rtol=eps, atol=1e-6) for k in one)
    assert all(torch.equal(one[k], two[k]) for k in one if "embed" in k or "lm_head" in k)
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"resize_token_embeddings({rows}, mean_resizing=False)" in card and "library_name: peft" in card
    assert str(tmp_path) not in card


def test_auto_peft_gives_the_base_the_rows_of_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM

    run = write_chain(tmp_path)
    grown = tmp_path / "grown-model"
    (grown / "config.yaml").write_text("command: grow\nmodel: base\n", encoding="utf-8")
    (grown / "manifest.json").write_text('{"command": "grow"}', encoding="utf-8")
    assert line(tmp_path, "export", run, "--out", "plain").code == 0
    assert line(tmp_path, "export", run, "--adapter-only", "--out", "adapter").code == 0
    monkeypatch.chdir(tmp_path)  # the adapter names its base as it was given
    model = AutoPeftModelForCausalLM.from_pretrained("adapter", dtype=torch.float32).eval()
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(found, logits(tmp_path / "plain", IDS), rtol=1e-4, atol=1e-4)


def test_the_base_that_it_names_is_checked(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    run = write_run(tmp_path / "run", base, lora=True)
    done = line(tmp_path, "export", run, "--adapter-only", "--out", "adapter")
    assert done.code == 0 and f"an adapter for {base}; logits differ by" in done.out, done.err
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert not any("embed" in name or "lm_head" in name for name in held), "no row was trained"
    other = write_model(tmp_path / "other", rope_theta=500.0)
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (other / "model.safetensors").write_bytes(content)
    told = line(tmp_path, "export", "--model", "other", "--adapter", "adapter", "--out", "out")
    assert told.code == 1 and told.err.count("\n") == 1, told.err
    assert f"adapter: was trained on {base}, whose weights are model.safetensors " in told.err
    assert not (tmp_path / "out").exists()
    (tmp_path / "adapter" / "base.json").unlink()
    assert line(tmp_path, "export", "--model", "other", "--adapter", "adapter", "--out", "out").code == 0


def test_rows_alone_are_an_adapter_too(tmp_path: Path) -> None:
    """PEFT opens no adapter without a layer: one is named whose update is nothing."""
    base = write_model(tmp_path / "base")
    run = write_run(tmp_path / "run", base, range(500, 600))
    assert line(tmp_path, "export", run, "--out", "plain").code == 0
    done = line(tmp_path, "export", run, "--adapter-only", "--out", "adapter")
    assert done.code == 0, done.err
    ids = base_vocabulary().processor.encode(CHINESE)
    found = peft_logits(base, tmp_path / "adapter", None, ids)
    torch.testing.assert_close(found, logits(tmp_path / "plain", ids))


def test_a_grown_base_stands_for_one_that_is_gone(tmp_path: Path) -> None:
    run = write_chain(tmp_path)
    grown = tmp_path / "grown-model"
    for name, words in (
        ("config.yaml", "command: grow\nmodel: base\n"),
        ("manifest.json", '{"command": "grow"}'),
    ):
        (grown / name).write_text(words, encoding="utf-8")
    shutil.rmtree(tmp_path / "base")
    done = line(tmp_path, "export", run, "--adapter-only", "--out", "adapter", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["grows"] is False
    assert line(tmp_path, "export", run, "--out", "plain").code == 0
    torch.testing.assert_close(
        peft_logits(grown, tmp_path / "adapter", None), logits(tmp_path / "plain", IDS), rtol=1e-4, atol=1e-4
    )


def test_what_is_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*arguments: object) -> str:
        done = line(tmp_path, "export", *arguments, "--out", "out")
        assert done.code == 1 and done.err.count("\n") == 1 and not (tmp_path / "out").exists(), done
        return done.err

    base = write_model(tmp_path / "base")
    run = write_run(tmp_path / "run", base, lora=True)
    assert "base: is no run, so that nothing was trained" in told(base, "--adapter-only")
    told_of_gguf = told(run, "--adapter-only", "--gguf", "f16")
    assert "--gguf: is a whole model, and --adapter-only writes none" in told_of_gguf
    assert "--adapter-only: is for a run" in told(
        "--model", base, "--adapter", run / "adapter", "--adapter-only"
    )
    empty = write_run(tmp_path / "empty", base)
    assert "trained nothing that an adapter could say" in told(empty, "--adapter-only")
    full = write_run(tmp_path / "full", base)
    shutil.copytree(base, full / "tuned")
    told_of_full = told(full, "--adapter-only")
    assert "was trained with all of its weights" in told_of_full and "without --adapter-only" in told_of_full
    monkeypatch.setattr(export, "PRECISION", {"F32": -1.0})
    assert "differs from the run" in told(run, "--adapter-only")
