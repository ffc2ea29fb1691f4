"""`grow --init shared` and `--untie`: what a head of its own gains, what it changes, and that nothing else does."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model_toys import (
    CHINESE,
    ENGLISH,
    WORDS,
    base_vocabulary,
    larger_vocabulary,
    line,
    logits,
    write_model,
    write_tokenizer,
)
from zhllama.errors import InputError, OptionError
from zhllama.model import row_init_shared as shared
from zhllama.model.grow import grow
from zhllama.model.load import load_base
from zhllama.model.old_pieces import tokenize_surfaces
from zhllama.model.old_rows import compare_old_rows
from zhllama.model.row_init_fitted import bias_direction, logit_scale
from zhllama.vocab.any_tokenizer import load_any_tokenizer
from zhllama.vocab.merge import chinese_llama

N_OLD = 600
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TEXTS = ["".join(np.random.default_rng(n).choice(WORDS[:20], 60)) for n in range(8)]


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    return write_tokenizer(larger_vocabulary(), tmp_path / "larger")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["llama", "qwen3", "bloom", "gpt2"])
def test_an_untied_model_has_the_old_logits_and_two_matrices(tmp_path: Path, larger: Path, kind: str) -> None:
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4} if kind == "gpt2" else {}
    base = write_model(tmp_path / "base", kind, tied=True, **sizes)
    grown = grow(base, larger, tmp_path / "out", untie=True)
    assert not grown.tied and grown.untied == grown.rows * 64
    ids = base_vocabulary().processor.encode(ENGLISH)
    assert torch.equal(logits(base, ids), logits(tmp_path / "out", ids)[:, :N_OLD])
    model = load_base(tmp_path / "out")
    assert model.get_input_embeddings().weight is not model.get_output_embeddings().weight
    assert model.config.tie_word_embeddings is False


def test_untying_follows_shards_and_bin_files(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", tied=True, shard="100KB")
    ids = base_vocabulary().processor.encode(ENGLISH)
    grow(base, larger, tmp_path / "out", untie=True)
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["weight_map"][HEAD] == index["weight_map"][EMBEDDING]
    assert torch.equal(logits(base, ids), logits(tmp_path / "out", ids)[:, :N_OLD])
    whole = write_model(tmp_path / "whole", tied=True)
    held = weights(whole)
    for name, copy in (("alone", {}), ("both", {HEAD: held[EMBEDDING]})):
        (whole / "model.safetensors").unlink(missing_ok=True)
        torch.save({**held, **copy}, whole / "pytorch_model.bin")
        grow(whole, larger, tmp_path / name, init="shared", texts=TEXTS, untie=True)
        made = torch.load(tmp_path / name / "pytorch_model.bin", weights_only=True)
        assert torch.equal(made[EMBEDDING][:N_OLD], held[EMBEDDING])
        assert not torch.equal(made[EMBEDDING], made[HEAD])


def test_untying_a_model_that_stores_two_copies_or_the_head_alone(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", tied=True)
    held = weights(base)
    ids = base_vocabulary().processor.encode(ENGLISH)
    before = logits(base, ids)
    rest = {name: tensor for name, tensor in held.items() if name != EMBEDDING}
    for name, matrices in (
        ("copies", {EMBEDDING: held[EMBEDDING], HEAD: held[EMBEDDING].clone()}),
        ("head", {HEAD: held[EMBEDDING]}),
    ):
        save_file({**rest, **matrices}, base / "model.safetensors", metadata={"format": "pt"})
        assert not grow(base, larger, tmp_path / name, untie=True).tied
        assert {EMBEDDING, HEAD} <= weights(tmp_path / name).keys()
        assert torch.equal(before, logits(tmp_path / name, ids)[:, :N_OLD])


def test_only_the_declared_rows_of_the_head_change(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", tied=False)
    before = weights(base)
    grown = grow(base, larger, tmp_path / "out", init="shared", texts=TEXTS)
    after = weights(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = (after[HEAD][:N_OLD] != before[HEAD]).any(1).nonzero(as_tuple=True)[0].tolist()
    assert changed == grown.changed_head_rows and changed
    assert torch.equal(after[EMBEDDING][:N_OLD], before[EMBEDDING])
    for name in before.keys() - {EMBEDDING, HEAD}:
        assert torch.equal(after[name], before[name])
    kept = grow(base, larger, tmp_path / "kept", init="shared", texts=TEXTS, keep_old_rows=True)
    assert kept.changed_head_rows == []
    assert torch.equal(weights(tmp_path / "kept")[HEAD][:N_OLD], before[HEAD])


def test_the_tokens_that_begin_alike_share_what_the_first_one_had(
    tmp_path: Path, larger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing added to the shares, the old token and the new ones together are as probable as it was alone."""
    monkeypatch.setattr(shared, "MORE", 0.0)
    base = write_model(tmp_path / "base", tied=False)
    old, new = load_any_tokenizer(base), load_any_tokenizer(larger)
    cuts = tokenize_surfaces(old, [new.surface(id) for id in range(N_OLD, new.size)])
    model = load_base(base)
    fitted = shared.fit_shared_head(model, old, new, cuts, TEXTS, [ENGLISH])
    head = model.get_output_embeddings().weight.detach()
    changed = head.clone()
    changed[fitted.changed] = fitted.changed_rows
    with torch.no_grad():
        ids = torch.tensor([old.encode([TEXTS[0]])[0]])
        states = model.base_model(input_ids=ids).last_hidden_state[0]
    was, now, added = (states @ matrix.T for matrix in (head, changed, fitted.rows))
    firsts = torch.tensor([cut[0] for cut in cuts])
    for lead in fitted.changed:
        together = torch.cat([now[:, lead, None], added[:, firsts == lead]], 1).logsumexp(1)
        assert float((together - was[:, lead]).abs().mean()) < 0.35, lead
    plain = torch.cat([states @ head.T, added], 1).logsumexp(1) - (states @ head.T).logsumexp(1)
    mended = torch.cat([now, added], 1).logsumexp(1) - (states @ head.T).logsumexp(1)
    assert float(mended.abs().mean()) < 0.3 * float(plain.abs().mean())


def test_english_rows_are_kept_where_english_would_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list whose pieces begin with English words takes these words' rows away from English text."""
    words = [piece.text for piece in base_vocabulary().pieces if piece.text.startswith("▁")][:60]
    folder = write_tokenizer(
        chinese_llama(base_vocabulary(), [f"{word}的" for word in words if len(word) > 2]).vocabulary,
        tmp_path / "larger",
    )
    base = write_model(tmp_path / "base", tied=False)
    new = load_any_tokenizer(folder)
    texts = [" ".join(f"{new.surface(id).decode().strip()}" for id in range(N_OLD, new.size))] * 30
    monkeypatch.setattr(shared, "ENGLISH_LIMIT", math.inf)
    unguarded = grow(base, folder, tmp_path / "unguarded", init="shared", texts=texts)
    monkeypatch.undo()
    guarded = grow(base, folder, tmp_path / "guarded", init="shared", texts=texts)
    before, after = unguarded.english_bits_per_byte or (0.0, 0.0)
    assert after > before * (1 + shared.ENGLISH_LIMIT)
    assert guarded.english_bits_per_byte is not None and guarded.english_bits_per_byte[0] == before
    assert guarded.english_bits_per_byte[1] < after
    assert set(guarded.changed_head_rows) < set(unguarded.changed_head_rows)


@pytest.mark.parametrize(("kind", "more", "scale"), [("cohere", {"logit_scale": 0.25}, 0.25), ("granite", {"logits_scaling": 8.0}, 0.125)])  # fmt: skip
def test_the_direction_adds_one_to_the_logit_of_models_that_scale_it(
    tmp_path: Path, kind: str, more: dict[str, Any], scale: float
) -> None:
    base = write_model(tmp_path / "base", kind, tied=False, **more)
    model, old = load_base(base), load_any_tokenizer(base)
    ids = old.encode([ENGLISH])[0]
    assert logit_scale(model, ids) == pytest.approx(scale, rel=1e-4)
    direction = bias_direction(model, old, [ENGLISH] * 4)
    with torch.no_grad():
        before = model(input_ids=torch.tensor([ids])).logits[0, :, 5]
        model.get_output_embeddings().weight[5] += direction
        after = model(input_ids=torch.tensor([ids])).logits[0, :, 5]
    assert float((after - before - 1).abs().mean()) < 0.1


def test_a_bias_of_the_head_is_that_of_the_first_old_token(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", "phi", tied=False)
    held = weights(base)
    torch.manual_seed(1)
    held["lm_head.bias"] = torch.randn(N_OLD)
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    grow(base, larger, tmp_path / "out", init="shared", texts=TEXTS)
    made = weights(tmp_path / "out")["lm_head.bias"]
    new, old = load_any_tokenizer(larger), load_any_tokenizer(base)
    cuts = tokenize_surfaces(old, [new.surface(id) for id in range(N_OLD, new.size)])
    assert torch.equal(made[:N_OLD], held["lm_head.bias"])
    assert made[N_OLD:].tolist() == [float(held["lm_head.bias"][cut[0]]) for cut in cuts]


def test_what_does_not_fit_together_is_refused_before_the_work(tmp_path: Path, larger: Path) -> None:
    tied, own = write_model(tmp_path / "tied", tied=True), write_model(tmp_path / "own", tied=False)
    rows = len(larger_vocabulary().pieces)
    with pytest.raises(
        OptionError, match=rf"needs an untied LM head.*`untie` \({rows * 64:,} more parameters"
    ):
        grow(tied, larger, tmp_path / "out", init="shared", texts=TEXTS)
    with pytest.raises(OptionError, match=r"untied\. Leave it out"):
        grow(own, larger, tmp_path / "out", untie=True)
    with pytest.raises(OptionError, match="changes nothing with `init` mean"):
        grow(own, larger, tmp_path / "out", keep_old_rows=True)
    with pytest.raises(OptionError, match="needs text"):
        grow(own, larger, tmp_path / "out", init="shared")
    with pytest.raises(InputError, match="contains nothing of two tokens"):
        grow(own, larger, tmp_path / "out", init="shared", texts=[""])
    assert not (tmp_path / "out").exists()


def test_the_whole_line_with_an_untied_model(tmp_path: Path) -> None:
    """grow, pretrain, export and the audit of the rows on the command line."""
    write_model(tmp_path / "base", tied=True)
    write_tokenizer(larger_vocabulary(), tmp_path / "tok")
    (tmp_path / "zh.txt").write_text("\n\n".join([CHINESE * 9, *TEXTS]), encoding="utf-8")
    done = line(tmp_path, "grow", "--model", "base", "--tokenizer", "tok", "--init", "shared", "--untie",
                "--text", "zh.txt", "--out", "grown")  # fmt: skip
    assert done.code == 0, done.err
    figures = json.loads((tmp_path / "grown/manifest.json").read_text(encoding="utf-8"))["figures"]
    changed = figures["changed_head_rows"]
    assert changed and f"except {len(changed)} old rows of the LM head" in done.out and "untied" in done.out
    assert f"{figures['untied']:,} more parameters" in done.out
    audit = ("audit", "tok", "--base", "base", "--fuzz", 0)
    shown = line(tmp_path, *audit, "--model", "grown")
    assert shown.code == 0 and f"{len(changed)} of 600 changed," in shown.out
    assert "all 600 equal to the" in shown.out
    done = line(
        tmp_path, "pretrain", "--stage", 1, "--model", "grown", "--out", "run", "--text", "zh=zh.txt", "--eval-text", "zh=zh.txt", "--steps", 2,
        "--block-size", 64, "--batch", 4, "--micro-batch", 4, "--precision", "fp32",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = load_file(tmp_path / "run/rows.safetensors")
    assert rows["output_ids"].tolist() == rows["input_ids"].tolist() == list(range(N_OLD, figures["rows"]))
    assert line(tmp_path, "export", "run", "--out", "plain").code == 0
    plain = weights(tmp_path / "plain")
    assert torch.equal(plain[HEAD][:N_OLD], weights(tmp_path / "grown")[HEAD][:N_OLD])
    assert not torch.equal(plain[HEAD], plain[EMBEDDING])
    told = json.loads(line(tmp_path, *audit, "--model", "plain", "--json").out)["undertrained"]["old_rows"]
    assert told["head"] == told["listed"] == changed and told["embedding"] == []
    # A row that changed behind the manifest's back
    held = weights(tmp_path / "grown")
    other = next(id for id in range(300, N_OLD) if id not in changed)
    held[HEAD][other, 0] += 1
    held[EMBEDDING][7, 0] += 1
    save_file(held, tmp_path / "grown/model.safetensors", metadata={"format": "pt"})
    told_rows = compare_old_rows(tmp_path / "grown")
    assert told_rows is not None and told_rows.undeclared == (7, other)
    assert line(tmp_path, *audit, "--model", "grown").code == 1
