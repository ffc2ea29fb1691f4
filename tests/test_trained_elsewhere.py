"""Models that other programs trained come back: rows and vocabulary are proved, and trl's own SFTTrainer is run on the page's code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT
from tests.model_toys import (
    CHINESE,
    base_vocabulary,
    larger_vocabulary,
    line,
    logits,
    write_model,
    write_tokenizer,
)
from zhllama.io.yaml import parse_yaml
from zhllama.model.load import load_base

PAGE = ROOT / "docs" / "how-to" / "other-trainers.md"
OLD, ALL = len(base_vocabulary().pieces), len(larger_vocabulary().pieces)
NEW = list(range(OLD, ALL))
BLOCK = r"```{}\n(.*?)```"


def grown(folder: Path, tied: bool = False, **settings: Any) -> Path:
    """A model that `zhllama grow` wrote, in `folder`/grown."""
    write_model(folder / "base", tied=tied, **settings)
    write_tokenizer(larger_vocabulary(), folder / "vocab")
    made = line(folder, "grow", "--model", "base", "--tokenizer", "vocab", "--out", "grown")
    assert made.code == 0, made.err
    return folder / "grown"


def retrained(start: Path, out: Path, rows: list[int], head: bool = True) -> Path:
    """The model as a trainer would leave it that changed these rows, and one layer."""
    model = load_base(start)
    with torch.no_grad():
        model.get_input_embeddings().weight[rows] += 0.1
        if head and model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
            model.get_output_embeddings().weight[rows] += 0.1
        model.model.layers[0].self_attn.q_proj.weight.mul_(1.1)
    model.save_pretrained(out)
    write_tokenizer(larger_vocabulary(), out)
    return out


@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_model_comes_back(tmp_path: Path, tied: bool) -> None:
    trained = retrained(grown(tmp_path, tied), tmp_path / "trained", [*NEW[:5], 7])
    done = line(tmp_path, "export", "trained", "--trained-from", "grown", "--out", "plain")
    assert done.code == 0, done.err
    name = "tied matrix" if tied else "LM head"
    assert f"{name}: training changed 5 of {len(NEW)} new rows and 1 of {OLD} old rows" in done.out
    assert "The vocabulary is that of grown" in done.out
    figures = json.loads((tmp_path / "plain" / "manifest.json").read_text(encoding="utf-8"))["figures"]
    assert figures["added"] == [] and figures["spare_rows"] == 0
    assert {one["old_changed"] for one in figures["matrices"]} == {1}
    ids = larger_vocabulary().processor.encode(CHINESE)
    assert torch.equal(logits(tmp_path / "plain", ids), logits(trained, ids))
    same = line(
        tmp_path, "export", "--model", "trained", "--trained-from", "grown", "--out", "again", "--json"
    )
    assert same.code == 0 and json.loads(same.out)["matrices"] == figures["matrices"]


def test_untrained_new_rows_are_told(tmp_path: Path) -> None:
    retrained(grown(tmp_path), tmp_path / "trained", NEW, head=False)
    done = line(tmp_path, "export", "trained", "--trained-from", "grown", "--out", "plain")
    assert done.code == 0 and "no new row of the LM head was trained" in done.err, done
    assert "of the embedding was" not in done.err


def test_a_coarser_type_is_no_change(tmp_path: Path) -> None:
    """A trainer that saves bfloat16 rounds every row; training changed none of them."""
    start = grown(tmp_path)
    load_base(start, torch.bfloat16).save_pretrained(tmp_path / "trained")
    write_tokenizer(larger_vocabulary(), tmp_path / "trained")
    done = line(tmp_path, "export", "trained", "--trained-from", "grown", "--out", "plain", "--json")
    assert done.code == 0, done.err
    assert [one["new_changed"] + one["old_changed"] for one in json.loads(done.out)["matrices"]] == [0, 0]


def test_a_head_that_the_trainer_untied(tmp_path: Path) -> None:
    start = grown(tmp_path, tied=True)
    retrained(start, tmp_path / "trained", NEW[:3])
    weights = load_file(tmp_path / "trained" / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    head[NEW[0]] += 1
    save_file(
        weights | {"lm_head.weight": head}, tmp_path / "trained" / "model.safetensors", {"format": "pt"}
    )
    done = line(tmp_path, "export", "trained", "--trained-from", "grown", "--out", "plain")
    assert done.code == 0, done.err
    assert re.findall("^(embedding|LM head): training changed 3 ", done.out, re.M) == ["embedding", "LM head"]


def test_what_does_not_come_back(tmp_path: Path) -> None:
    start = grown(tmp_path)
    retrained(start, tmp_path / "trained", NEW)

    def told(*arguments: object) -> str:
        done = line(tmp_path, "export", *arguments, "--out", "out")
        assert done.code == 1 and done.err.count("\n") == 1 and not (tmp_path / "out").exists(), done
        return done.err

    assert "trained: tokenizes '" in told("trained", "--trained-from", "base")
    write_model(tmp_path / "wide", hidden_size=128, rows=ALL, tokenizer=False)
    write_tokenizer(larger_vocabulary(), tmp_path / "wide")
    assert "has rows of width 64, and" in told("trained", "--trained-from", "wide")
    write_tokenizer(base_vocabulary(), tmp_path / "trained")
    assert f"has {OLD} ids and the model's own vocabulary {ALL}" in told("trained", "--trained-from", "grown")
    write_model(tmp_path / "short", rows=OLD)
    write_tokenizer(larger_vocabulary(), tmp_path / "short")
    assert f"short: has {OLD} rows, and" in told("short", "--trained-from", "grown")
    retrained(start, tmp_path / "trained", NEW)
    weights = load_file(tmp_path / "trained" / "model.safetensors")
    weights["lm_head.weight"][3] = float("nan")
    save_file(weights, tmp_path / "trained" / "model.safetensors", {"format": "pt"})
    assert "has 1 rows of its LM head that are not finite" in told("trained", "--trained-from", "grown")
    assert "RUN: and --model grown name two models" in told("trained", "--model", "grown")
    assert "--trained-from: is for whole models" in told(
        "--model", "grown", "--adapter", "a", "--trained-from", "b"
    )


def adapter(start: Path, out: Path, **settings: Any) -> Path:
    """An adapter of PEFT on `start` with values of chance."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model = get_peft_model(
        load_base(start), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, **settings)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(out)
    return out


SETTINGS: dict[str, tuple[bool, dict[str, Any]]] = {
    "rows": (False, {"trainable_token_indices": {"embed_tokens": NEW, "lm_head": NEW}}),
    "rows of the embedding": (False, {"trainable_token_indices": NEW}),
    "tied rows": (True, {"trainable_token_indices": {"embed_tokens": NEW}}),
    "matrices": (False, {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "tied matrices": (True, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
}


@pytest.mark.parametrize("tied, settings", SETTINGS.values(), ids=SETTINGS)
def test_adapters_with_rows_come_back(tmp_path: Path, tied: bool, settings: dict[str, Any]) -> None:
    start = grown(tmp_path, tied)
    adapter(start, tmp_path / "trained", **settings)
    done = line(tmp_path, "export", "--model", "grown", "--adapter", "trained", "--out", "plain", "--json")
    assert done.code == 0, done.err
    changes = json.loads(done.out)["matrices"]
    assert changes[0]["new_changed"] == len(NEW), changes
    assert all(one["old_changed"] == (OLD if "modules_to_save" in settings else 0) for one in changes)
    told = line(tmp_path, "export", "--model", "grown", "--adapter", "trained", "--out", "told")
    assert ("no new row of the LM head was trained" in told.err) == (
        settings == SETTINGS["rows of the embedding"][1]
    )


@pytest.mark.parametrize("names", [["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_one_side_of_a_tied_matrix_is_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.warns(UserWarning, match="ensure_weight_tying"):
        adapter(grown(tmp_path, tied=True), tmp_path / "trained", modules_to_save=names)
    done = line(tmp_path, "export", "--model", "grown", "--adapter", "trained", "--out", "plain")
    assert done.code == 1 and "ensure_weight_tying=True" in done.err, done
    assert not (tmp_path / "plain").exists()


def test_damaged_rows_are_refused(tmp_path: Path) -> None:
    adapter(grown(tmp_path), tmp_path / "trained", trainable_token_indices={"embed_tokens": NEW})
    path = tmp_path / "trained" / "adapter_config.json"
    good = json.loads(path.read_text(encoding="utf-8"))

    def told(ids: Any) -> str:
        path.write_text(json.dumps(good | {"trainable_token_indices": ids}), encoding="utf-8")
        done = line(tmp_path, "export", "--model", "grown", "--adapter", "trained", "--out", "plain")
        assert done.code == 1 and not (tmp_path / "plain").exists(), done
        return done.err

    assert "without ids in trainable_token_indices" in told(None)
    for ids in ({"lm_head": NEW}, {"tokens": NEW}, 5, {"embed_tokens": ["1"] * len(NEW)}):
        assert "without ids in trainable_token_indices" in told(ids), ids
    assert f"stores rows of model.embed_tokens.weight as ({len(NEW)}, 64)" in told(NEW[:-1])
    assert f"trained rows beyond the {ALL:,} of its base" in told([*NEW[1:], ALL])


def code(language: str) -> list[str]:
    return re.findall(BLOCK.format(language), PAGE.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("tied", [False, True])
def test_the_code_of_the_page_trains_with_trl(
    tmp_path: Path, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands on the page, run as it stands: whole model, whole matrices, new rows; each comes back."""
    pytest.importorskip("trl", reason="trl, an extra, is not installed")
    grown(tmp_path, tied)
    seeds = (ROOT / "seeds_zh" / "seed_tasks.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    (tmp_path / "talks.jsonl").write_text("\n".join(seeds), encoding="utf-8")
    made = line(tmp_path, "sharegpt", "export", "talks.jsonl", "--export-to", "trl", "--out", "data-trl")
    assert made.code == 0, made.err
    (template,) = code("jinja")
    (tmp_path / "alpaca.jinja").write_text(template, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    whole, *adapters = code("python")
    exec(compile(whole, str(PAGE), "exec"), {})
    back = line(tmp_path, "export", "trained", "--trained-from", "grown", "--out", "plain", "--json")
    assert back.code == 0, back.err
    assert all(one["new_changed"] for one in json.loads(back.out)["matrices"])
    assert len(adapters) == 2
    for number, snippet in enumerate(adapters):
        exec(compile(snippet, str(PAGE), "exec"), {})
        asked = ("--model", "grown", "--adapter", "trained-adapter", "--out", f"plain-{number}")
        back = line(tmp_path, "export", *asked, "--json")
        assert back.code == 0, back.err
        figures = json.loads(back.out)
        assert all(one["new_changed"] for one in figures["matrices"]) and figures["difference"] < 1e-5
        if number == 1:
            assert not any(one["old_changed"] for one in figures["matrices"])
    said = line(tmp_path, "chat", "plain-1", "--prompt", "你好", "--max-tokens", 3)
    assert said.code == 0, said.err


def test_axolotl_reads_the_page() -> None:
    """axolotl's own schema takes the file; it ignores unknown options, so that each must be one of its fields."""
    reason = "axolotl is not installed (pip install --no-deps axolotl)"
    schema = pytest.importorskip("axolotl.utils.schemas.config", reason=reason).AxolotlInputConfig
    section = PAGE.read_text(encoding="utf-8").split("\n## axolotl\n")[1]
    found = re.search(BLOCK.format("yaml"), section, re.DOTALL)
    assert found is not None
    ties = "lora_modules_to_save: [embed_tokens]\npeft_ensure_weight_tying: true\n"
    rows = "peft_trainable_token_indices: {embed_tokens: [32000, 32001]}\n"
    for text in (found[1], found[1].replace("lora_modules_to_save: [embed_tokens, lm_head]\n", ties + rows)):
        options = parse_yaml(text, PAGE)
        read = schema(**options).model_dump(exclude_none=True)
        assert not options.keys() - read.keys()
        assert {name: read[name] for name in options if name not in ("datasets", "chat_template")} == {
            name: options[name] for name in options if name not in ("datasets", "chat_template")
        }
        [data], [dataset] = read["datasets"], options["datasets"]
        assert {name: data[name] for name in dataset} == dataset
