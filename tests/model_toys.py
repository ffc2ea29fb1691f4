"""Small vocabularies and models for the tests of zhllama.model: made once a session, from the texts of corpora/sample."""

import io
import json
import signal
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import yaml

from zhllama.resources import shipped
from zhllama.vocab.fast_tokenizer import transformers_files
from zhllama.vocab.merge import safe
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

torch.set_num_threads(1)  # two-layer models: more threads only wait for each other


@dataclass(frozen=True)
class Told:
    """What a command line told."""

    code: int
    out: str
    err: str


def line(folder: Path, *arguments: object) -> Told:
    """Run a command line in this process, as if in `folder`: torch is then imported once for all tests."""
    from zhllama.cli import main

    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with chdir(folder), redirect_stdout(out), redirect_stderr(err):
            main([str(a) for a in arguments])
    except SystemExit as stopped:
        return Told(int(stopped.code or 0), out.getvalue(), err.getvalue())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


WORDS = ("中国", "中文", "我们", "他们", "时候", "自己", "社会", "发展", "经济", "科学", "研究", "问题", "上海", "海上",
         "人工", "人工智能", "历史", "的时候", "没有", "可以", "大学", "大学生", "生活", "生产", "产品", "因为", "所以", "今天")  # fmt: skip
ENGLISH = "The history of the river is long, and people have lived beside it for 3,000 years."
CHINESE = "我们今天没有时间研究人工智能的历史，因为大学生都去上海了。"


@cache
def base_vocabulary() -> SentencePieceVocabulary:
    """A SentencePiece BPE of LLaMA's make (byte fallback, identity) over English, Chinese characters by bytes."""
    text = [
        line
        for name in ("en_essay.txt", "en_story.txt", "code_python.txt")
        for line in shipped("corpora", "sample", name).read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=made,
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.999,
        minloglevel=2,
    )
    return SentencePieceVocabulary(made.getvalue())


@cache
def larger_vocabulary() -> SentencePieceVocabulary:
    """The base with Chinese words after its last piece."""
    characters = sorted({c for word in WORDS for c in word})
    return safe(base_vocabulary(), [*characters, *WORDS]).vocabulary


def write_tokenizer(model: SentencePieceVocabulary, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in transformers_files(model).items():
        (folder / name).write_bytes(content)
    return folder


def config(rows: int, kind: str = "llama", tied: bool = False, **changed: Any) -> Any:
    from transformers import AutoConfig

    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    if kind == "bloom":
        sizes = {"hidden_size": 64, "n_layer": 2, "n_head": 4}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    return AutoConfig.for_model(
        kind, vocab_size=rows, tie_word_embeddings=tied, **{**sizes, **ids, **changed}
    )


def write_model(
    folder: Path,
    kind: str = "llama",
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    rows: int | None = None,
    shard: str = "1GB",
    tokenizer: bool = True,
    **changed: Any,
) -> Path:
    """A random model with lively weights and the base vocabulary."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config(rows or len(base_vocabulary().pieces), kind, tied, **changed)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.1)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    if tokenizer:
        write_tokenizer(base_vocabulary(), folder)
    return folder


def logits(folder: Path, ids: list[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0]


def write_run(
    folder: Path,
    model: Path,
    new: range | None = None,
    tied: bool = False,
    lora: bool = False,
    seed: int = 1,
    width: int = 64,
    **lora_options: Any,
) -> Path:
    """A finished pretrain run as `zhllama pretrain` leaves it, with rows and adapter of chance."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    from zhllama.model.chain import resolve_chain
    from zhllama.model.load import load_base

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    if new is not None:
        ids = torch.tensor(list(new))
        held = {"input_ids": ids, "input_rows": torch.randn(len(ids), width) * 0.1}
        if not tied:
            held |= {"output_ids": ids.clone(), "output_rows": torch.randn(len(ids), width) * 0.1}
        save_file(held, folder / "rows.safetensors")
    base = resolve_chain(model)
    if lora:
        settings = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], **lora_options}
        wrapped = get_peft_model(load_base(base.base), LoraConfig(init_lora_weights=False, **settings))
        wrapped.save_pretrained(folder / "adapter")
    options = {"model": str(model), "base_model": str(base.base)}
    (folder / "config.yaml").write_text(yaml.safe_dump({"command": "pretrain", **options}), encoding="utf-8")
    manifest = {
        "command": "pretrain", "options": options, "inputs": [], "figures": {"loss": 1.5}, "seconds": 1.0,
        "parents": list(map(str, base.runs)),
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def write_chain(
    tmp_path: Path, tied: bool = False, dtype: torch.dtype = torch.float32, kind: str = "llama"
) -> Path:
    """Base, grown, then three runs: rows; rows and LoRA; LoRA on other modules, by another scale."""
    from zhllama.model.grow import grow

    base = write_model(tmp_path / "base", kind, tied, dtype)
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    grown = grow(base, larger, tmp_path / "grown-model")
    new = range(grown.n_old, grown.rows)
    one = write_run(tmp_path / "one", tmp_path / "grown-model", new, tied)
    two = write_run(tmp_path / "two", one, new, tied, lora=True, seed=2)
    return write_run(tmp_path / "three", two, lora=True, seed=3, target_modules=["q_proj", "down_proj"], r=2,
                     use_rslora=True)  # fmt: skip
