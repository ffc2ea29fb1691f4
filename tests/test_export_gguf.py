"""GGUF files: llama.cpp cuts text into the same ids as transformers, and writes the same greedy tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, pre_tokenizers

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
from zhllama.errors import BrokenPromise
from zhllama.io.gguf import read_metadata
from zhllama.model import gguf_export, gguf_proof
from zhllama.model.gguf_export import write_gguf
from zhllama.model.gguf_proof import prove_gguf
from zhllama.model.grow import grow
from zhllama.model.load import open_model
from zhllama.resources import shipped
from zhllama.vocab.byte_level_json import CL100K, DIGIT, GPT2, QWEN
from zhllama.vocab.merge import chinese_llama
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

N_OLD = 600
PLAIN = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
IDS = base_vocabulary().processor.encode(ENGLISH)


def words(pattern: str) -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


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
    from tokenizers import Tokenizer, decoders, models, trainers

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


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)], "smollm"),
        ([words(DIGIT), words(GPT2), PLAIN], "smollm"),  # as a GGUF file's own is imported
        ([words(DIGIT), pre_tokenizers.ByteLevel(False)], "smollm"),
        ([words(GPT2), PLAIN], "gpt-2"),
        ([pre_tokenizers.ByteLevel(False)], "gpt-2"),
        ([words(QWEN), PLAIN], "qwen2"),
        ([words(CL100K), PLAIN], "llama-bpe"),
        ([pre_tokenizers.Split(Regex(CL100K), "removed", invert=True), PLAIN], "llama-bpe"),
        ([pre_tokenizers.Split(Regex(CL100K), "removed"), PLAIN], None),
        ([pre_tokenizers.Split(Regex(CL100K), "merged_with_next", invert=True), PLAIN], None),
        ([pre_tokenizers.Split(Regex(DIGIT), "isolated", invert=True), words(GPT2), PLAIN], None),
        ([words(GPT2), words(DIGIT), PLAIN], None),
        ([pre_tokenizers.Digits(False), pre_tokenizers.ByteLevel(False)], None),
        ([pre_tokenizers.ByteLevel(add_prefix_space=True)], None),
        ([words(" "), PLAIN], None),
        ([PLAIN], None),
        ([], None),
    ],
)
def test_a_pre_tokenizer_is_known_by_its_patterns(steps: list[Any], name: str | None) -> None:
    written = json.loads(pre_tokenizers.Sequence(steps).__getstate__())
    assert gguf_export._split(written) == name
    if len(steps) == 1:
        assert gguf_export._split(json.loads(steps[0].__getstate__())) == name


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
        tmp_path / "stretched", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    )
    for name, told in (("bloom", "has the type bloom"), ("stretched", "scales its positions by dynamic")):
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


LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip


@pytest.mark.parametrize("changed", [{}, {"head_dim": 32}, {"factor": 32.0}, {"rope_theta": 5e5}])
def test_llamacpp_scales_positions_as_llama3(tmp_path: Path, changed: dict[str, float]) -> None:
    rope = LLAMA3 | {name: value for name, value in changed.items() if name in LLAMA3}
    others = {name: value for name, value in changed.items() if name not in LLAMA3}
    base = write_model(tmp_path / "base", dtype=torch.float16, rope_parameters=rope, **others)
    write_gguf(base, tmp_path / "model.gguf", "f16")
    llama = Llama(tmp_path / "model.gguf")
    prompts = torch.randint(3, N_OLD, (8, 150), generator=torch.Generator().manual_seed(1)).tolist()
    scaled = [llama.greedy(ids, 1) for ids in prompts]
    assert scaled == [_greedy(base, ids, 1) for ids in prompts]
    # the scaling matters: without it the tokens are others
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert scaled != [_greedy(base, ids, 1) for ids in prompts]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_an_untied_head_beside_a_config_that_says_tied(tmp_path: Path, kind: str) -> None:
    """transformers compares the stored matrices and unties them; the GGUF contains both."""
    base = write_model(tmp_path / "base", kind, dtype=torch.float16)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}), encoding="utf-8")
    write_gguf(base, tmp_path / "model.gguf", "f16")
    llama = Llama(tmp_path / "model.gguf")
    for begin in range(3, 600, 60):
        ids = list(range(begin, begin + 20))
        assert llama.greedy(ids, 4) == _greedy(base, ids, 4)


def test_a_run_on_an_untied_head_is_exported_with_both_matrices(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", dtype=torch.float16)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}), encoding="utf-8")
    run = write_run(tmp_path / "run", base, range(500, N_OLD), lora=True)
    done = line(tmp_path, "export", run, "--gguf", "f16", "--out", "out", "--json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["gguf_agree"] >= 0.9 and figures["gguf_gap"] <= figures["gguf_limit"] < 0.02


@pytest.mark.parametrize("spoiled", ["head", "query", "rotation"])
def test_a_gguf_that_writes_other_tokens_is_refused(tmp_path: Path, spoiled: str) -> None:
    """As if the head had been left out, the query had another order, or the rotation another base."""
    pytest.importorskip("xllamacpp")
    base = write_model(tmp_path / "base", dtype=torch.float16)
    other = shutil.copytree(base, tmp_path / "other")
    tensors = load_file(base / "model.safetensors")
    if spoiled == "head":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    elif spoiled == "query":
        query = "model.layers.0.self_attn.q_proj.weight"
        tensors[query] = tensors[query].flip(0).contiguous()
    else:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
        (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    write_gguf(other, tmp_path / "model.gguf", "f16")
    with pytest.raises(BrokenPromise, match=r"writes other tokens in llama.cpp than in transformers"):
        prove_gguf(base, tmp_path / "model.gguf", [ENGLISH, CHINESE], "f16")


def test_near_ties_that_rounding_reverses_are_no_difference(tmp_path: Path) -> None:
    """Each two neighboring tokens differ by less than float16 has digits for."""
    pytest.importorskip("xllamacpp")
    base = write_model(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    head = tensors["lm_head.weight"]
    head[1::2] = head[::2] * (1 + 1e-5)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    write_gguf(base, tmp_path / "model.gguf", "f16")
    proof = prove_gguf(base, tmp_path / "model.gguf", [ENGLISH, CHINESE], "f16")
    assert proof is not None and proof.gguf_agree < 0.5 and 0 < proof.gguf_gap < proof.gguf_limit


@pytest.mark.parametrize("end", [2, [2, 77, 78, 79]])
def test_end_tokens_are_compared_as_little_as_llamacpp_writes_them(
    tmp_path: Path, end: int | list[int]
) -> None:
    """transformers would rank an end token first everywhere."""
    pytest.importorskip("xllamacpp")
    base = write_model(tmp_path / "base", dtype=torch.float16, eos_token_id=end)
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones_like(tensors["model.norm.weight"])
    for id in end if isinstance(end, list) else [end]:
        tensors["lm_head.weight"][id] *= 20
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    write_gguf(base, tmp_path / "model.gguf", "f16")
    proof = prove_gguf(base, tmp_path / "model.gguf", [ENGLISH, CHINESE], "f16")
    assert proof is not None and proof.gguf_agree == 1


def test_without_llamacpp_the_export_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "base")
    monkeypatch.setattr(gguf_proof, "find_spec", lambda name: None)
    done = line(tmp_path, "export", "base", "--gguf", "f16", "--out", "out")
    assert done.code == 0 and "the GGUF file was not tried in llama.cpp" in done.err


@pytest.mark.parametrize("copies", ["head alone", "both"])
def test_a_tied_matrix_under_the_name_of_the_head(tmp_path: Path, copies: str) -> None:
    base = write_model(tmp_path / "base", tied=True, dtype=torch.float16)
    held = load_file(base / "model.safetensors")
    held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()
    if copies == "head alone":
        del held["model.embed_tokens.weight"]
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    write_gguf(base, tmp_path / "model.gguf", "f16")
    assert Llama(tmp_path / "model.gguf").greedy(IDS, 8) == _greedy(base, IDS, 8)


@pytest.mark.parametrize(("window", "context"), [(128, 128), (4096, 512), (None, 512)])
def test_a_sliding_window_limits_the_context(tmp_path: Path, window: int | None, context: int) -> None:
    """llama.cpp runs Mistral with full attention, which differs from transformers beyond the window."""
    base = write_model(tmp_path / "base", "mistral", dtype=torch.float16, sliding_window=window)
    write_gguf(base, tmp_path / "model.gguf", "f16")
    assert read_metadata(tmp_path / "model.gguf", "llama.")["context_length"] == context
