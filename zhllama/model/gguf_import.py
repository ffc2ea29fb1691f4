"""Converts a GGUF file once into a transformers folder in the user's cache, so that it is used as any other model."""

import math
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError, OutputError, ZhllamaError
from zhllama.extras import require
from zhllama.io.cache import CACHE_ROOM
from zhllama.io.gguf import GgufTensor, read_header
from zhllama.io.memory import available_memory
from zhllama.model.gguf_config import FACTORS, ORIGINAL, complete_config
from zhllama.model.model_cache import made_once
from zhllama.model.tokenizer_class import check_tokenizer_class
from zhllama.notices import note
from zhllama.pretrained import build_causal, open_gguf, open_gguf_config
from zhllama.resources import shipped
from zhllama.vocab.gguf_folder import tokenizer_files

if TYPE_CHECKING:
    import torch

WHOLE_TYPES = {0: "F32", 1: "F16", 30: "BF16"}  # types of ggml.h that are not quantized
AGAIN = "Download the file again"
SHARD = "4GB"
# llama.cpp rounds activations to 8 bits where weights are quantized, and the folder's weights are rounded to bf16.
ROUNDING = {"F32": 2**-10, "F16": 2**-10, "BF16": 2**-8}
QUANTIZED = 2**-7
TEXTS = (("zh_news.txt", 500), ("en_essay.txt", 600))  # characters of each, read by both in the comparison


def imported_folder(path: Path) -> Path:
    """The transformers folder of a GGUF file, in the cache under the file's hash, converted where it is not there.

    Errors: InputError for a broken file and for one that transformers reads differently or not at all, BrokenPromise where
    llama.cpp writes other tokens, OutputError without room.
    """
    require(str(path), "train", "gguf")
    return made_once("gguf-models", path.stem, [path], lambda part: _convert(path.resolve(), part))


def _convert(path: Path, part: Path) -> None:
    """Write the model and its tokenizer to the folder `part`, and compare them with llama.cpp where it is installed."""
    import torch

    metadata, tensors, begin = read_header(path)
    if (parts := metadata.get("split.count") or 1) != 1:
        message = f"is one of {parts} files of a model"
        raise InputError(path, message, "Join them first with llama-gguf-split of llama.cpp")
    _check_length(path, tensors, begin)
    kinds = {WHOLE_TYPES.get(t.type, "quantized") for t in tensors if len(t.shape) > 1}
    kind = next((name for name in WHOLE_TYPES.values() if kinds == {name}), None)
    dtype = {"F32": torch.float32, "F16": torch.float16}.get(kind or "", torch.bfloat16)
    values = sum(math.prod(t.shape) for t in tensors if not t.name.startswith("rope_f"))
    needed, free = values * dtype.itemsize, shutil.disk_usage(part.parent).free
    if needed > free:
        message = f"has {free / 1e9:,.1f} GB free, and {path.name} needs {needed / 1e9:,.1f} GB as a transformers model"
        raise OutputError(part.parent, message, CACHE_ROOM)
    note(f"converting {path.name} into {part.parent}, {needed / 1e9:,.1f} GB, once")
    part.mkdir()
    files = tokenizer_files(path)
    model = _open(path, metadata, tensors, begin, dtype, part)
    _check_values(path, model, values)
    _save(model, part)
    for name, content in files.items():
        (part / name).write_bytes(content)
    kind_of_model = model.config.model_type
    del model
    check_tokenizer_class(part, kind_of_model)
    _compare(path, part, values, ROUNDING.get(kind or "", QUANTIZED))


def _check_length(path: Path, tensors: Sequence[GgufTensor], begin: int) -> None:
    """Raise InputError for a file that ends before its last tensor does, or that has a type of an unknown length."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    size = path.stat().st_size
    for tensor in tensors:
        try:
            block, length = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
        except (ValueError, KeyError):
            message = f"stores {ascii(tensor.name)[:60]} in the type {tensor.type}, which the package gguf does not know"
            raise InputError(path, message, ORIGINAL) from None
        end = begin + tensor.offset + math.prod(tensor.shape) // block * length
        if end > size:
            raise InputError(path, f"is cut off: it ends {end - size:,} bytes too early", AGAIN)


def _open(
    path: Path, metadata: dict[str, Any], tensors: Sequence[GgufTensor], begin: int, dtype: "torch.dtype", part: Path
) -> Any:  # fmt: skip
    """The model as transformers reads it, with weights of the type `dtype`."""
    link = part / "model.gguf"  # in a folder of its own: transformers reads what stands beside the file, too
    link.symlink_to(path)
    try:
        config = open_gguf_config(link)
        complete_config(path, config, metadata, tensors, begin)
        model, info = open_gguf(link, config, dtype)
    except ZhllamaError:
        raise
    except Exception as error:  # whatever fails in transformers' reader
        reason = " ".join(str(error).split())[:200]
        raise InputError(path, f"cannot be read by transformers ({type(error).__name__}: {reason})", ORIGINAL) from error  # fmt: skip
    finally:
        link.unlink()
    if different := sorted(map(str, info.get("mismatched_keys") or [])):
        raise InputError(path, f"stores {different[0][:160]} in another shape than its config says", ORIGINAL)
    if missing := sorted(info.get("missing_keys") or []):
        raise InputError(path, f"lacks the weights {', '.join(missing[:3])}", ORIGINAL)
    return model


def _check_values(path: Path, model: Any, values: int) -> None:
    """Raise InputError unless the model consists of as many numbers as the file: transformers skips unknown tensors."""
    read = sum(t.numel() for t in {t.data_ptr(): t for t in model.state_dict().values()}.values())
    if read != values:
        message = f"contains {values:,} numbers without {FACTORS}, and transformers reads {read:,} of them"
        raise InputError(path, message, ORIGINAL)


def _save(model: Any, part: Path) -> None:
    """Save the weights through a model that was not opened from GGUF: transformers refuses to save one that was."""
    import torch

    settings = model.config
    for name in ("quantization_config", "_name_or_path", "name_or_path"):
        if hasattr(settings, name) and name in vars(settings):
            delattr(settings, name)
    settings.dtype = model.dtype
    with torch.device("meta"):
        plain = build_causal(settings)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(part, max_shard_size=SHARD)


def _compare(path: Path, folder: Path, values: int, rounding: float) -> None:
    """Compare the folder with llama.cpp on the file, where that is installed and both fit into memory."""
    from zhllama.model.gguf_proof import compare_gguf

    if find_spec("xllamacpp") is None:
        note(f"{path.name} was not compared with llama.cpp: the package xllamacpp is not installed")
        return
    if 4 * values + path.stat().st_size > available_memory():
        note(f"{path.name} was not compared with llama.cpp: both do not fit into memory")
        return
    texts = [shipped("corpora", "sample", name).read_text(encoding="utf-8")[:n] for name, n in TEXTS]
    compare_gguf(folder, path, texts, rounding)
