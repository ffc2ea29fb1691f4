"""The model card: a head that hubs read, the steps and their figures in both languages, and no path of this machine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from zhllama.model.chain import Chain
from zhllama.model.export import Proof
from zhllama.model.model_card import card_facts, model_card

PROOF = Proof(1e-7, 1e-5, 1.0, 512)
BITS = {
    "zh_bits_per_character": {"before": 7.5, "after": 5.25},
    "en_bits_per_character": {"before": 1.2, "after": 1.1},
}


def write_run(
    folder: Path, command: str, parents: list[Path], options: dict[str, Any], **figures: Any
) -> Path:
    """A finished run with a manifest alone."""
    folder.mkdir(parents=True)
    manifest = {
        "command": command, "options": options, "figures": figures, "seconds": 1.0, "inputs": [],
        "parents": list(map(str, parents)),
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    base = tmp_path / "hub" / "models--HuggingFaceTB--SmolLM2-135M" / "snapshots" / "abc"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}", encoding="utf-8")
    head = "license: apache-2.0\nlanguage: [en]\n"
    (base / "README.md").write_text(f"---\n{head}---\n# SmolLM2\n", encoding="utf-8")
    text = write_run(
        tmp_path / "wiki",
        "corpus fetch",
        [],
        {"name": "wikipedia_zh"},
        documents=1234,
        source={"hub": "wikimedia/wikipedia"},
    )
    vocab = write_run(
        tmp_path / "vocab", "merge-vocab", [], {"recipe": "safe"}, pieces=50722, drift=[0, 164], dead=0
    )
    grown = write_run(tmp_path / "grown", "grow", [vocab], {"model": str(base)}, n_old=49152, n_new=1570)
    two = write_run(
        tmp_path / "two", "pretrain", [grown, text],
        {"model": str(grown), "stage": 2, "text": [f"zh={tmp_path}/wiki:9", f"en={tmp_path}/en.txt"]},
        steps=100, tokens=51200, loss=2.5, **BITS,
    )  # fmt: skip
    tuned = write_run(
        tmp_path / "tuned",
        "sft",
        [two],
        {"model": str(two), "data": [f"{tmp_path}/alpaca.json"]},
        steps=9,
        tokens=99,
    )
    return Chain(grown, (two, tuned), tuned)


def test_the_head_is_what_hubs_read(chain: Chain) -> None:
    card = model_card("my-model", card_facts(chain), PROOF, chat=True, gguf="model-q8_0.gguf")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head == {
        "language": ["zh", "en"], "license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "text-generation",
        "base_model": "HuggingFaceTB/SmolLM2-135M", "datasets": ["wikimedia/wikipedia"],
        "tags": ["chinese", "zhllama", "conversational", "gguf"],
    }  # fmt: skip


def test_both_languages_tell_every_step_and_figure_and_no_path(chain: Chain, tmp_path: Path) -> None:
    card = model_card("my-model", card_facts(chain), PROOF, chat=True, gguf="model-q8_0.gguf")
    english, chinese = card.split("## 中文")
    assert str(tmp_path) not in card and not re.search(r"(?<![\w/])/(?:home|root|tmp)/", card)
    for part in (english, chinese):
        for told in (
            "`merge-vocab --recipe safe`", "50,722", "`pretrain --stage 2` | zh, en |", "7.500 → 5.250", "1,234", "1,570",
            "`sft` | alpaca.json |", "AutoModelForCausalLM", "apply_chat_template", "vllm serve my-model",
            "llama-cli -m model-q8_0.gguf", "ollama create my-model -f Modelfile", "1.0e-07",
        ):  # fmt: skip
            assert told in part, told
    assert len(re.findall(r"^\|", english, re.M)) == len(re.findall(r"^\|", chinese, re.M)) == 2 + 5


def test_what_is_not_known_is_not_told(tmp_path: Path) -> None:
    base = tmp_path / "plain"
    base.mkdir()
    (base / "config.json").write_text('{"_name_or_path": "/home/me/llama"}', encoding="utf-8")
    (base / "README.md").write_text("---\nlicense: [broken\n---\n", encoding="utf-8")
    card = model_card("m", card_facts(Chain(base, (), base)), PROOF, chat=False)
    head = yaml.safe_load(card.split("---\n")[1])
    assert "license" not in head and "base_model" not in head and "datasets" not in head
    assert "do not name it" in card and "ollama" not in card and "apply_chat_template" not in card


@pytest.mark.parametrize("name", ["meta-llama/Llama-2-7b-hf", "Qwen/Qwen3-0.6B"])
def test_a_base_by_hub_name(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", "pretrain", [], {"model": name, "base_model": name})
    assert card_facts(Chain(tmp_path, (run,), run)).base == name
