"""GGUF files: llama.cpp cuts text into the same ids as transformers, and writes the same greedy tokens."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.llamacpp import Llama
from tests.model_toys import (
    CHINESE,
    ENGLISH,
    base_vocabulary,
    line,
    write_chain,
    write_model,
    write_run,
    write_tokenizer,
)
from zhllama.model.gguf_export import write_gguf
from zhllama.model.grow import grow
from zhllama.model.load import open_model
from zhllama.resources import shipped
from zhllama.vocab.merge import chinese_llama
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

N_OLD = 600
IDS = base_vocabulary().processor.encode(ENGLISH)


def _greedy(folder: Path, ids: list[int], n: int) -> list[int]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for _ in range(n):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        logits[model.config.eos_token_id] = -torch.inf  # llama.cpp is asked with ignore_eos
        ids = [*ids, int(logits.argmax())]
    return ids[-n:]


SENTENCES = (
    CHINESE,
    ENGLISH,
    "  two  spaces,\n\na tab\tand 12,345 。",
    "人工智能，海上生明月",
    "emoji 🙂 and 𠮷",
)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_llamacpp_cuts_and_writes_as_transformers(tmp_path: Path, tied: bool, kind: str) -> None:
    run = write_chain(tmp_path, tied, torch.float16, kind)
    done = line(tmp_path, "export", run, "--gguf", "f16", "--out", "out")
    assert done.code == 0, done.err
    llama = Llama(tmp_path / "out" / "model-f16.gguf")
    tokenizer = open_model(tmp_path / "out").tokenizer
    for sentence in SENTENCES:
        ids = tokenizer(sentence).input_ids
        assert llama.ids(sentence) == ids
        assert llama.greedy(ids, 8) == _greedy(tmp_path / "out", ids, 8)


def test_llamacpp_adds_the_biases_of_qwen2(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", "qwen2", dtype=torch.float16)
    held = load_file(base / "model.safetensors")
    for name in [n for n in held if n.endswith(".bias")]:
        held[name] = (torch.randn(held[name].shape) * 0.3).half()
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    write_gguf(base, tmp_path / "model.gguf", "f16")
    llama = Llama(tmp_path / "model.gguf")
    for begin in range(3, 600, 60):
        ids = list(range(begin, begin + 20))
        assert llama.greedy(ids, 1) == _greedy(base, ids, 1)


def _byte_level(folder: Path, individual_digits: bool = True) -> Path:
    """A byte-level vocabulary of SmolLM's make."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Digits(individual_digits), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=N_OLD,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [p.read_text(encoding="utf-8") for p in sorted(shipped("corpora", "sample").glob("*_essay.txt"))]
    inner.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    inner.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_llamacpp_reads_byte_level_vocabularies(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", tied=True, dtype=torch.float16, rows=640, tokenizer=False)
    _byte_level(base)
    done = line(tmp_path, "export", "base", "--gguf", "f16", "--out", "out")
    assert done.code == 0, done.err
    llama = Llama(tmp_path / "out" / "model-f16.gguf")
    tokenizer = open_model(base).tokenizer
    for sentence in SENTENCES:
        ids = tokenizer(sentence).input_ids
        assert llama.ids(sentence) == ids
        assert llama.greedy(ids, 8) == _greedy(base, ids, 8)
    _byte_level(base, individual_digits=False)
    refused = line(tmp_path, "export", "base", "--gguf", "f16", "--out", "other")
    assert refused.code == 1 and "has a pre-tokenizer that llama.cpp does not know" in refused.err


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_blocks_of_few_bits_load(tmp_path: Path, kind: str) -> None:
    write_model(tmp_path / "base")
    done = line(tmp_path, "export", "base", "--gguf", kind, "--out", "out")
    assert done.code == 0, done.err
    llama = Llama(tmp_path / "out" / f"model-{kind}.gguf")
    assert llama.ids(ENGLISH) == [1, *IDS]
    assert len(llama.greedy(IDS, 4)) == 4


def test_what_cannot_be_a_gguf(tmp_path: Path) -> None:
    write_model(tmp_path / "bloom", "bloom", tied=True)
    write_model(
        tmp_path / "stretched", rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    )
    for name, told in (("bloom", "has the type bloom"), ("stretched", "scales its positions by linear")):
        done = line(tmp_path, "export", name, "--gguf", "f16", "--out", "out")
        assert done.code == 1 and told in done.err and not (tmp_path / "out").exists()


def test_the_published_vocabulary_with_its_ties_in_llamacpp(
    tmp_path: Path, llama: SentencePieceVocabulary, published_list: list[str]
) -> None:
    """32,000 -> 49,953 rows, two runs, export: what must not move does not move by a byte."""
    base = write_model(tmp_path / "base", rows=32000, tokenizer=False, hidden_size=32, dtype=torch.float16)
    write_tokenizer(llama, base)
    published = chinese_llama(llama, published_list).vocabulary
    write_tokenizer(published, tmp_path / "published")
    grown = grow(base, tmp_path / "published", tmp_path / "grown")
    new = range(grown.n_old, grown.rows)
    one = write_run(tmp_path / "one", tmp_path / "grown", new, width=32)
    write_run(tmp_path / "two", one, new, lora=True, width=32, target_modules=[f"{p}_proj" for p in "qkvo"])
    for arguments in (("one", "--out", "after-one"), ("two", "--gguf", "f16", "--out", "after-two")):
        done = line(tmp_path, "export", *arguments)
        assert done.code == 0, done.err
    before, first, second = (
        load_file(tmp_path / f / "model.safetensors") for f in ("base", "after-one", "after-two")
    )
    for name, tensor in before.items():
        assert torch.equal(first[name][: len(tensor)], tensor), name
    assert first["lm_head.weight"].shape == (49953, 32)
    changed = {
        name for name, tensor in before.items() if not torch.equal(second[name][: len(tensor)], tensor)
    }
    assert changed == {f"model.layers.{i}.self_attn.{p}_proj.weight" for i in (0, 1) for p in "qkvo"}
    cpp = Llama(tmp_path / "after-two" / "model-f16.gguf")
    tokenizer = open_model(tmp_path / "after-two").tokenizer
    for sentence in (*SENTENCES, "互相互 and 相互相, people"):  # ties of the published vocabulary
        ids = tokenizer(sentence).input_ids
        assert cpp.ids(sentence) == ids == [1, *published.processor.encode(sentence)]
        assert cpp.greedy(ids, 8) == _greedy(tmp_path / "after-two", ids, 8)
