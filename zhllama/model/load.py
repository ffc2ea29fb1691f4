"""Opens a model and its tokenizer from a transformers folder, a hub name, or a run folder with its chain."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zhllama.errors import InputError, ZhllamaError
from zhllama.io.files import is_present
from zhllama.io.json import read_object
from zhllama.model.chain import ADAPTER, Chain, resolve_chain
from zhllama.model.trained_rows import apply_trained_rows
from zhllama.model.weight_files import check_weights
from zhllama.pretrained import (
    check_generation_ids,
    open_adapter,
    open_causal,
    open_config,
    open_tokenizer,
    refuse_other_kinds,
    uncounted_layer,
)

if TYPE_CHECKING:
    import torch

VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


class OpenedModel(NamedTuple):
    """A transformers model and its tokenizer."""

    model: Any
    tokenizer: Any


def open_model(
    path: str | Path | Chain,
    *,
    dtype: "torch.dtype | None" = None,
    merge: bool = True,
    loading: Mapping[str, Any] | None = None,
) -> OpenedModel:
    """Open a model for inference, with its tokenizer; on the CPU unless `loading` names a device.

    `path` may be a chain that was resolved before. `loading` contains further arguments of `from_pretrained`; without
    `dtype` the weights keep their stored type. A run is opened as its base, then the rows and the adapter of each run
    in order. With `merge` the adapters are merged into the weights, else they stay active in a PEFT model.
    Errors: InputError, also for rows and adapters that do not fit the base.
    """
    chain = path if isinstance(path, Chain) else resolve_chain(path)
    model = load_base(chain.base, dtype, loading)
    for run in chain.runs:
        apply_trained_rows(model, run)
    adapters = [run / ADAPTER for run in chain.runs if (run / ADAPTER).is_dir()]
    if adapters:
        model = _with_adapters(model, adapters)
        model = model.merge_and_unload() if merge else model
    model.eval()
    tokenizer = load_transformers_tokenizer(chain.tokenizer)
    settings = model.generation_config
    check_generation_ids(settings, chain.base)
    settings.eos_token_id = end_token_ids(settings.eos_token_id, tokenizer)
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
    return OpenedModel(model, tokenizer)


def load_base(
    folder: Path, dtype: "torch.dtype | None" = None, loading: Mapping[str, Any] | None = None
) -> Any:
    """The causal language model of a plain transformers folder; refuses weights that are cut off or incomplete."""
    config = read_model_config(folder)
    check_weights(folder)
    try:
        model, info = open_causal(
            folder, config, dtype=dtype or "auto", output_loading_info=True,
            ignore_mismatched_sizes=True, **(loading or {}),  # mismatches are refused below
        )  # fmt: skip
    except ZhllamaError:
        raise
    except Exception as error:
        raise InputError(
            folder, f"cannot be loaded ({type(error).__name__}: {_reason(error)})", "Download the model again"
        ) from error
    if mismatched := sorted(info.get("mismatched_keys") or []):
        name, stored, expected = mismatched[0]
        message = f"stores {name} as {tuple(stored)}, and by its config it is {tuple(expected)}"
        raise InputError(folder, message, "Correct config.json, or download the model again")
    refuse_uncounted(folder, model, info.get("unexpected_keys") or ())
    if missing := info.get("missing_keys"):
        raise InputError(
            folder, f"lacks the weights {', '.join(sorted(missing)[:3])}", "Download the model again"
        )
    return model


def refuse_uncounted(folder: Path, model: Any, stored: Iterable[str]) -> None:
    """Raise InputError for weights of layers that the config does not count."""
    if (name := uncounted_layer(model, stored)) is not None:
        message = f"stores {name}, a layer beyond those that its config counts"
        raise InputError(folder, message, "Correct config.json, or remove these weights")


def read_model_config(folder: Path) -> Any:
    """The transformers config of a plain folder; InputError also for a model that needs code of its own."""
    path = folder / "config.json"
    if not path.exists():
        raise InputError(folder, "has no config.json", "Name a transformers folder or a finished run")
    raw = read_object(path, "Download the model again")
    if not isinstance(raw.get("model_type", ""), str):
        raise InputError(path, "is not a model's config", "Download the model again")
    try:
        config = open_config(folder)
    except ZhllamaError:
        raise
    except Exception as error:
        raise InputError(
            path,
            f"is not a model's config ({type(error).__name__}: {_reason(error)})",
            "Download the model again",
        ) from error
    refuse_other_kinds(config, folder)
    return config


def load_transformers_tokenizer(folder: Path, source: Path | None = None) -> Any:
    """The tokenizer of a folder as transformers loads it; `vocab.any_tokenizer` opens one without transformers.

    Later errors name `source`, the folder that `folder` is a temporary copy of.
    """
    if not any(is_present(folder / name) for name in (*VOCABULARY_FILES, "tokenizer_config.json")):
        raise InputError(folder, "has no tokenizer", "Put tokenizer.json or tokenizer.model there")
    try:
        tokenizer = open_tokenizer(folder)
        tokenizer.name_or_path = str(source or folder)
        return tokenizer
    except ZhllamaError:
        raise
    except Exception as error:
        raise InputError(
            folder, f"has a tokenizer that cannot be loaded ({_reason(error)})", "Rebuild the tokenizer"
        ) from error


def end_token_ids(ids: int | list[int] | None, tokenizer: Any) -> int | list[int] | None:
    """The ids that end generation: the tokenizer's end token, which a chat template may have set, then `ids`."""
    end = tokenizer.eos_token_id
    others = ids if isinstance(ids, list) else [] if ids is None else [ids]
    merged = list(dict.fromkeys([*([] if end is None else [end]), *others]))
    return merged if len(merged) > 1 else merged[0] if merged else None


def _with_adapters(model: Any, adapters: list[Path]) -> Any:
    names = [f"run{number}" for number in range(len(adapters))]
    wrapped: Any = model
    for name, folder in zip(names, adapters, strict=True):
        try:
            wrapped = open_adapter(wrapped, folder, name)
        except ZhllamaError:
            raise
        except Exception as error:
            raise InputError(
                folder,
                f"is an adapter that does not fit its base ({_reason(error)})",
                "Give the base it was trained on",
            ) from error
    wrapped.base_model.set_adapter(names)
    return wrapped


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
