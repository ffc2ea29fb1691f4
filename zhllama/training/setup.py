"""A model made ready to learn: where its rows end and the new ones begin, its adapters, its learning rows."""

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from zhllama.errors import InputError, MissingPackage, OptionError
from zhllama.model.load import Chain, open_model, put_rows, read_model_config, resolve_chain
from zhllama.run import MANIFEST, read_manifest
from zhllama.training.options import Lora, Matrices, Options, Precision
from zhllama.training.plan import adapted_layers
from zhllama.training.rows import Layout, Rows, refuse_other_heads, train_rows
from zhllama.training.tokens import Tokens

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Base:
    """What is to be trained: the chain of a model, its config, its rows, and those it had before it grew."""

    chain: Chain
    config: Any
    rows: int
    n_old: int | None

    @classmethod
    def of(cls, chain: Chain, old_rows: int | None = None) -> "Base":
        """Reads configs and manifests, no weight."""
        config = read_model_config(chain.base)
        rows = int(config.get_text_config().vocab_size)
        if old_rows is not None and not 0 <= old_rows <= rows:
            raise OptionError(
                "--old-rows", f"{old_rows:,} is not among the model's {rows:,} rows", "Give fewer"
            )
        return cls(chain, config, rows, old_rows if old_rows is not None else _told_by_manifests(chain))

    def old_rows(self) -> int:
        """Rows before the model grew; OptionError where nothing says so."""
        if self.n_old is None:
            told = f"nothing says which rows of {self.chain.base} are new"
            raise OptionError(
                "--rows new", told, "Grow it with zhllama grow, give --old-rows N, or --rows all"
            )
        return self.n_old


def _told_by_manifests(chain: Chain) -> int | None:
    for folder in (*reversed(chain.runs), chain.base):
        if (folder / MANIFEST).is_file():
            told = read_manifest(folder).get("figures", {}).get("n_old")
            if isinstance(told, int):
                return told
    return None


def same_vocabulary(own: Path, given: Tokens) -> bool:
    """Whether a model's own tokenizer is the given one: the same file, or one with the same pieces at the same ids."""
    from zhllama.vocab.load import load_tokenizer

    try:
        mine = Tokens.open(own)
    except InputError:
        return False
    if mine.hash == given.hash:
        return True
    left, right = load_tokenizer(own), load_tokenizer(given.path)
    return left.size == right.size and all(left.surface(id) == right.surface(id) for id in range(left.size))


@dataclass(frozen=True)
class Ready:
    """A model in training: `model` is what the Trainer gets, a PEFT model in stage 2."""

    model: Any
    rows: Rows
    keeps_documents_apart: bool


def make_ready(
    base: Base, layout: Layout, matrices: Matrices, lora: Lora | None, precision: Precision, device: torch.device,
    *, checkpointing: bool = False, trust_remote_code: bool = False,
) -> Ready:  # fmt: skip
    """Opens the chain, folds in what was trained before, and lets the given rows and adapters learn.

    The body is in `precision`, the learning matrices in fp32. torch's seed decides the adapters' first values.
    """
    model = open_model(
        base.chain.runs[-1] if base.chain.runs else base.chain.base, dtype=DTYPES[precision]
    ).model
    refuse_other_heads(model)
    if layout.first < base.rows:
        _widen(model, base.chain.runs, matrices)
    model.to(device).requires_grad_(False)
    trained = add_adapters(model, lora) if lora is not None else model
    rows = train_rows(model, layout, matrices)
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    apart = "position_ids" in inspect.signature(model.forward).parameters
    return Ready(trained, rows, apart)


def _widen(model: Any, runs: Sequence[Path], matrices: Matrices) -> None:
    """Learning matrices to fp32, and into them once more the rows that earlier runs saved in fp32."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding.weight.dtype == torch.float32:
        return
    for layer in {
        id(x.weight): x for x in ((embedding, head) if matrices == "both" else (embedding,))
    }.values():
        layer.weight.data = layer.weight.data.float()
    for run in runs:
        put_rows(model, run)


def add_adapters(model: Any, lora: Lora) -> Any:
    """A PEFT model around `model` whose adapters alone learn; OptionError for modules that it does not have."""
    adapted_layers(model, lora.modules)
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingPackage("--stage 2", "peft", "train") from None
    config = LoraConfig(
        task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
        target_modules=list(lora.modules),
    )  # fmt: skip
    return get_peft_model(model, config)


def read_shape(model: str | None, shape: str | None) -> Any:
    """The config to plan for: the model's own, a config.json, or a shipped shape by its name."""
    if model is not None:
        return read_model_config(resolve_chain(model).base)
    path = Path(str(shape))
    shipped = Path(__file__).parent.parent / "recipes" / "shapes"
    if path.suffix != ".json":
        path = shipped / f"{shape}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in shipped.glob("*.json")))
        raise InputError(str(shape), "is neither a config.json nor a shipped shape", f"Shipped are: {known}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return AutoConfig.for_model(settings.pop("model_type"), **settings)
    except (ValueError, KeyError) as error:
        raise InputError(
            path, f"is not a model's config ({error})", "Give a transformers config.json"
        ) from error


def rows_before_and_after(
    model: str | None, tokenizer: Path | None, config: Any, ids: int | None, options: Options
) -> tuple[int, int]:
    """Rows that a model has before it grows, and those that it will be trained with, for a plan."""
    rows = int(config.get_text_config().vocab_size)
    size = ids if ids is not None else Tokens.open(tokenizer).size if tokenizer is not None else rows
    if model is not None and size <= rows and options.rows in ("new", "used"):
        return Base.of(resolve_chain(model), options.old_rows).old_rows(), rows
    return options.old_rows if options.old_rows is not None else rows, max(rows, size)
