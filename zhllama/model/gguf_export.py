"""Writes a plain folder as one GGUF file for llama.cpp, with one tensor in memory at a time."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zhllama.errors import InputError, MissingPackage
from zhllama.io.files import not_written
from zhllama.io.json import as_object, parse_json
from zhllama.model.embeddings import EmbeddingNames, find_matrices
from zhllama.model.gguf_architectures import (
    OMIT,
    Architecture,
    add_positions,
    architecture_of,
    head_width,
    rope_factors,
    rope_of,
)
from zhllama.model.gguf_types import FILE_TYPES, MixtureShape, Quantization, is_mixture, tensor_type
from zhllama.model.llamacpp_quantizer import Quantizer, open_quantizer
from zhllama.model.load import load_transformers_tokenizer, read_model_config
from zhllama.model.stored_model import StoredModel, read_stored_model
from zhllama.model.weight_files import Weights
from zhllama.vocab.any_tokenizer import JsonTokenizer, tokenizer_file
from zhllama.vocab.byte_level_json import CL100K, DIGIT, GPT2, QWEN
from zhllama.vocab.metaspace_vocabulary import MetaspaceVocabulary, is_metaspace
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary, in_its_folder
from zhllama.vocab.vocabulary import PieceKind

TYPES: dict[PieceKind, int] = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "unused": 5, "byte": 6}
# llama.cpp's names for the patterns by which byte-level vocabularies split text, one after another (llama-vocab.cpp).
SPLITS = {(GPT2,): "gpt-2", (DIGIT, GPT2): "smollm", (CL100K,): "llama-bpe", (QWEN,): "qwen2"}
# Behavior and `invert` of a Split whose matches are the words.
WHOLE_MATCHES = (("Isolated", False), ("Removed", True))


@dataclass(frozen=True)
class GgufVocabulary:
    """The vocabulary as in GGUF's metadata, with one token per row of the matrices."""

    kind: Literal["llama", "gpt2"]
    split: str
    tokens: list[bytes]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    prefix: bool


def write_gguf(
    folder: Path, out: Path, kind: Quantization, advance: Callable[[float], None] = lambda share: None
) -> None:
    """Write the model in `folder` to the file `out`.

    Matrices become float16, or blocks of the types that `tensor_type` says; vectors stay float32. `advance` is told the
    share of all values that each tensor has.
    Errors: MissingPackage, InputError for a model that llama.cpp would run differently, OutputError.
    """
    try:
        import gguf
    except ImportError:
        raise MissingPackage("`gguf`", "gguf", "gguf") from None
    quantizer = quantizer_for(kind)
    config = read_model_config(folder)
    architecture = architecture_of(folder, config)
    stored = read_stored_model(folder)
    weights, matrices = stored.weights, find_matrices(stored)
    if architecture.head == ("tied" if matrices.output is not None else "untied"):
        what = (
            "has an LM head of its own"
            if matrices.output is not None
            else "ties its LM head to its embedding"
        )
        raise InputError(folder, f"{what}, which llama.cpp does not read for this type", OMIT)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.name], config.num_hidden_layers)
    part = out.with_name(f".{out.name}.part")
    writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[architecture.name]])
    try:
        _add_config(writer, config, architecture, folder, kind)
        add_vocabulary(writer, folder, weights.tensors[matrices.input].shape[0])
        tensors = list(_tensors(stored, matrices, names, kind, config))
        _refuse_biases(tensors, architecture, folder)
        factors = rope_factors(config) if rope_of(config).get("rope_type") == "llama3" else None
        if factors is not None:
            writer.add_tensor_info(
                "rope_freqs.weight", factors.shape, np.dtype("float32"), factors.nbytes,
                raw_dtype=gguf.GGMLQuantizationType.F32,
            )  # fmt: skip
        for tensor in tensors:
            type = gguf.GGMLQuantizationType[tensor.type]
            length = gguf.quants.quant_shape_to_byte_shape(weights.tensors[tensor.stored].shape, type)
            writer.add_tensor_info(
                tensor.name, length, np.dtype("uint8"), math.prod(length), raw_dtype=type
            )  # fmt: skip
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors.view("uint8"))
        total = sum(math.prod(weights.tensors[tensor.stored].shape) for tensor in tensors)
        for tensor in tensors:
            values = _values(weights, tensor.stored, config, architecture)
            writer.write_tensor_data(
                quantized(values, tensor.stored, tensor.type, quantizer, folder).view("uint8")
            )
            advance(values.size / total)
        writer.close()
        part.replace(out)
    except OSError as error:
        raise not_written(out, error) from error
    finally:
        part.unlink(missing_ok=True)


def quantizer_for(kind: Quantization) -> Quantizer | None:
    """llama.cpp's quantizer for a file with K types, None for others. Errors: those of `open_quantizer`."""
    return open_quantizer(f"`gguf` {kind}", os.cpu_count() or 1) if is_mixture(kind) else None


def quantized(
    values: np.ndarray[Any, Any], name: str, type: str, quantizer: Quantizer | None, folder: Path
) -> np.ndarray[Any, Any]:
    """Values of the tensor `name` in a type. Errors: InputError for values that the type cannot represent."""
    import gguf

    if quantizer is not None and type not in ("F32", "F16"):
        if not np.isfinite(values).all():
            raise InputError(folder, f"contains values in {name} that are no numbers", OMIT)
        return quantizer.quantize(values.reshape(-1, values.shape[-1]), type)  # experts are stacked
    result: np.ndarray[Any, Any] = gguf.quants.quantize(values, gguf.GGMLQuantizationType[type])
    if type == "F16" and not np.isfinite(result).all():
        message = f"contains values in {name} that are too large for float16"
        raise InputError(folder, message, "Give `gguf` q8_0")
    return result


@dataclass(frozen=True)
class PlannedTensor:
    """A stored tensor, its parameter in transformers, its name in llama.cpp, and its GGUF type."""

    stored: str
    parameter: str
    name: str
    type: str


def _tensors(
    base: StoredModel, matrices: EmbeddingNames, names: Any, kind: Quantization, config: Any
) -> Iterator[PlannedTensor]:
    """Each stored tensor, of a tied matrix one copy."""
    weights = base.weights
    parameters = {stored: name for name, stored in base.names.items()}
    groups = config.num_attention_heads // config.num_key_value_heads
    mixture = MixtureShape(config.num_hidden_layers, groups, tied=matrices.output in (None, matrices.input))
    for stored, tensor in weights.tensors.items():
        if stored == matrices.copy or stored.endswith("rotary_emb.inv_freq"):
            continue
        # A tied matrix is the embedding in llama.cpp, even if it is stored under the name of the head.
        parameter = (
            "model.embed_tokens.weight" if stored == matrices.input else parameters.get(stored, stored)
        )
        name = names.get_name(parameter, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise InputError(weights.folder, f"contains {stored}, which llama.cpp does not know", OMIT)
        yield PlannedTensor(stored, parameter, name, tensor_type(kind, name, tensor.shape, mixture))


def file_weights(folder: Path, path: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Each tensor of a file that was written from `folder`, in float32, by the name of its parameter in transformers."""
    import gguf

    config, stored = read_model_config(folder), read_stored_model(folder)
    architecture = architecture_of(folder, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.name], config.num_hidden_layers)
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for tensor in _tensors(stored, find_matrices(stored), names, "f16", config):
        held = written[tensor.name]
        values = gguf.quants.dequantize(held.data, held.tensor_type)
        yield tensor.parameter, _as_stored(values, tensor.stored, config, architecture)


def _values(weights: Weights, stored: str, config: Any, architecture: Architecture) -> np.ndarray[Any, Any]:
    """One tensor in float32 as llama.cpp has it: halves of queries and keys interleaved, norms with their offset."""
    values: np.ndarray[Any, Any] = weights.tensor(stored).float().numpy()
    if architecture.norm_offset and _is_norm(stored):
        return values + np.float32(architecture.norm_offset)
    heads = _rotated_heads(stored, config, architecture)
    if heads is not None:
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        values = halves.swapaxes(1, 2).reshape(values.shape)
    return values


def _as_stored(
    values: np.ndarray[Any, Any], stored: str, config: Any, architecture: Architecture
) -> np.ndarray[Any, Any]:
    """Undo what `_values` does."""
    if architecture.norm_offset and _is_norm(stored):
        return values - np.float32(architecture.norm_offset)
    heads = _rotated_heads(stored, config, architecture)
    if heads is None:
        return values
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _is_norm(stored: str) -> bool:
    return stored.endswith("norm.weight")


def _rotated_heads(stored: str, config: Any, architecture: Architecture) -> int | None:
    """The heads of a query or key whose halves llama.cpp interleaves; None for other tensors."""
    if not architecture.interleaved or not (".q_proj." in stored or ".k_proj." in stored):
        return None
    return int(config.num_attention_heads if ".q_proj." in stored else config.num_key_value_heads)


def _refuse_biases(tensors: Sequence[PlannedTensor], architecture: Architecture, folder: Path) -> None:
    """Raise InputError for a bias that llama.cpp does not read for this type, by which it would not load the file."""
    for tensor in tensors:
        layer, part = tensor.stored.split(".")[-2:]
        if part == "bias" and layer not in architecture.biases:
            raise InputError(folder, f"contains {tensor.stored}, which llama.cpp does not read", OMIT)


def _add_config(
    writer: Any, config: Any, architecture: Architecture, folder: Path, kind: Quantization
) -> None:
    heads, width = config.num_attention_heads, head_width(config)
    writer.add_name(folder.name)
    # llama.cpp runs most types with full attention: the same as transformers up to the length of a sliding window.
    window = None if architecture.windows else getattr(config, "sliding_window", None)
    writer.add_context_length(min(window or math.inf, config.max_position_embeddings))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    add_positions(writer, config)
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(2)
    for name, setting in architecture.settings.items():
        if getattr(config, setting) is not None:
            getattr(writer, f"add_{name}")(getattr(config, setting))


def add_vocabulary(writer: Any, folder: Path, rows: int) -> None:
    """Write the folder's vocabulary, special tokens and chat template. Errors: those of `read_gguf_vocabulary`."""
    tokenizer = load_transformers_tokenizer(folder)
    vocabulary = read_gguf_vocabulary(folder, tokenizer, rows)
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    writer.add_add_space_prefix(vocabulary.prefix)
    for name in ("bos", "eos", "unk", "pad"):
        id = getattr(tokenizer, f"{name}_token_id", None)
        if (
            id is not None and id < rows
        ):  # transformers gives some tokenizers a pad token that the model has no row for
            getattr(writer, f"add_{name}_token_id")(id)
    writer.add_add_bos_token(tokenizer("a").input_ids[0] == tokenizer.bos_token_id is not None)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def read_gguf_vocabulary(folder: Path, tokenizer: Any, rows: int) -> GgufVocabulary:
    """The folder's vocabulary, padded with unused tokens to the number of rows.

    Errors: InputError where llama.cpp cannot tokenize as the folder's tokenizer does.
    """
    added = {
        id: (token.content.encode(), 3 if token.special else 4)
        for id, token in tokenizer.added_tokens_decoder.items()
    }
    path = folder / "tokenizer.model"
    model = None
    if path.is_file():
        model = in_its_folder(SentencePieceVocabulary.read(path), path)
    elif is_metaspace(content := JsonTokenizer(tokenizer_file(folder)).content):
        model = MetaspaceVocabulary.read(tokenizer_file(folder)).model
    if model is not None:
        if model.algorithm != "bpe":
            raise InputError(folder, f"has a {model.algorithm} vocabulary", OMIT)
        pieces = {id: (piece.text.encode(), TYPES[piece.kind]) for id, piece in enumerate(model.pieces)}
        full = _padded({**added, **pieces}, rows)
        scores = [model.pieces[id].score if id < len(model.pieces) else -1e4 for id in range(rows)]
        return GgufVocabulary(
            "llama",
            "default",
            [t for t, _ in full],
            [k for _, k in full],
            scores,
            None,
            model.normalizer.add_dummy_prefix,
        )
    raw = as_object(parse_json(content, folder), folder)
    split = _split(raw.get("pre_tokenizer") or {})
    if split is None:
        raise InputError(folder, "has a pre-tokenizer that llama.cpp does not know", OMIT)
    pieces = {id: (token.encode(), TYPES["normal"]) for token, id in raw["model"]["vocab"].items()}
    full = _padded({**pieces, **added}, rows)
    merges = [m if isinstance(m, str) else " ".join(m) for m in raw["model"]["merges"]]
    return GgufVocabulary("gpt2", split, [t for t, _ in full], [k for _, k in full], None, merges, False)


def _padded(pieces: dict[int, tuple[bytes, int]], rows: int) -> list[tuple[bytes, int]]:
    return [pieces.get(id, (f"[UNUSED_{id}]".encode(), TYPES["unused"])) for id in range(rows)]


def _split(pre: dict[str, Any]) -> str | None:
    """llama.cpp's name for the pre-tokenizer of a byte-level vocabulary; None for one that it does not know."""
    patterns: list[str] = []
    *steps, last = pre.get("pretokenizers") or [pre]
    for step in steps:
        if step.get("type") == "Digits" and step["individual_digits"]:
            patterns.append(DIGIT)
        elif step.get("type") == "Split" and (step["behavior"], step["invert"]) in WHOLE_MATCHES:
            patterns.append(step["pattern"].get("Regex", ""))
        else:
            return None
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return None
    if last.get("use_regex", True):
        patterns.append(GPT2)
    return SPLITS.get(tuple(patterns))
