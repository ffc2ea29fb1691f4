"""Completes and checks a GGUF file of llama.cpp's converter: our vocabulary, the plain folder's rows, and other tensor types."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from zhllama.errors import BrokenPromise, InputError
from zhllama.io.files import not_written
from zhllama.io.gguf import read_metadata
from zhllama.model.embeddings import find_matrices
from zhllama.model.gguf_architectures import ARCHITECTURES, OMIT, architecture_of
from zhllama.model.gguf_converter import Converter, converter_for, run_converter, try_converter
from zhllama.model.gguf_export import (
    add_vocabulary,
    quantized,
    quantizer_for,
    read_gguf_vocabulary,
    write_gguf,
)
from zhllama.model.gguf_types import (
    EMBEDDING,
    FILE_TYPES,
    HEAD,
    MixtureShape,
    Quantization,
    tensor_type,
)
from zhllama.model.llamacpp_quantizer import relative_difference
from zhllama.model.load import load_transformers_tokenizer, read_model_config
from zhllama.model.stored_model import read_stored_model

ANOTHER_VERSION = "Take another version of llama.cpp, or omit `gguf`"
ROWS = 4096  # rows that are compared at once
HALF_EPS, HALF_TINY = 2**-11, 2**-25  # the rounding to float16, and below its smallest normal value
Advance = Callable[[float], None]


def converter_of(folder: Path) -> Converter | None:
    """llama.cpp's converter for a model whose type zhllama does not write itself, None for the types that it does.

    Errors: InputError where that converter is needed and not there.
    """
    kind = str(read_model_config(folder).model_type)
    return None if kind in ARCHITECTURES else converter_for(folder, kind)


@contextmanager
def converted(converter: Converter, folder: Path, out: Path) -> Iterator[Path]:
    """A temporary file beside `out` in float16: the converter's tensors and settings, with the vocabulary of the folder.

    It has been read back and checked. Errors: InputError, OutputError, BrokenPromise for a file that is not the folder's.
    """
    with TemporaryDirectory(prefix=".gguf-", dir=out.parent) as name:
        raw, half = Path(name, "raw.gguf"), Path(name, "half.gguf")
        run_converter(converter, folder, raw)
        _copy(raw, half, folder, "f16", lambda share: None)
        raw.unlink()
        try:
            check_file(half, folder)
            yield half
        except (InputError, BrokenPromise) as error:
            if error.where != str(half):
                raise
            raise type(error)(out, error.what, error.remedy) from error  # the file that was asked for


def write_any_gguf(
    folder: Path, out: Path, kind: Quantization, advance: Advance = lambda share: None
) -> None:
    """As `write_gguf`, for types that llama.cpp's converter writes too. Errors: those of both."""
    converter = converter_of(folder)
    if converter is None:
        write_gguf(folder, out, kind, advance)
        return
    with converted(converter, folder, out) as half:
        finish_file(half, out, folder, kind, advance)


def check_writable(folder: Path, tokenizer: Path, kind: Quantization) -> None:
    """Refuse, before the work, what `write_any_gguf` would refuse by the config and tokenizer of a folder's model.

    The converter is tried on the folder. Errors: InputError, MissingPackage.
    """
    quantizer_for(kind)
    config, converter = read_model_config(folder), converter_of(folder)
    if converter is None:
        architecture_of(folder, config)
    else:
        try_converter(converter, folder)
    read_gguf_vocabulary(
        tokenizer, load_transformers_tokenizer(tokenizer), config.get_text_config().vocab_size
    )


def finish_file(half: Path, out: Path, folder: Path, kind: Quantization, advance: Advance) -> None:
    """Write `out` from one of `converted`, which is moved where that is its type already. Errors: as `write_gguf`."""
    if kind == "f16":
        half.replace(out)
    else:
        quantize_file(half, out, folder, kind, advance)


def quantize_file(half: Path, out: Path, folder: Path, kind: Quantization, advance: Advance) -> None:
    """Write the file `out` of the type `kind` from one of `converted`. Errors: as `write_gguf`."""
    part = out.with_name(f".{out.name}.part")
    try:
        _copy(half, part, folder, kind, advance)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _copy(source: Path, out: Path, folder: Path, kind: Quantization, advance: Advance) -> None:
    """Copy a file with the folder's vocabulary, its matrices in float16 converted to the types of `kind`."""
    import gguf

    reader, stored = _opened(source), read_stored_model(folder)
    rows = stored.weights.tensors[find_matrices(stored).input].shape[0]
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(out, architecture)
    ours = (
        "GGUF.", "tokenizer.", "general.architecture", "general.file_type", "general.quantization_version",
        f"{architecture}.vocab_size",
    )  # fmt: skip
    for name, field in reader.fields.items():
        if not name.startswith(ours):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    writer.add_vocab_size(rows)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(2)
    add_vocabulary(writer, folder, rows)
    shape = _mixture(reader, architecture)
    types = [_type(tensor, kind, shape) for tensor in reader.tensors]
    quantizer = quantizer_for(kind)
    total = sum(int(tensor.n_elements) for tensor in reader.tensors)
    try:
        for tensor, type in zip(reader.tensors, types, strict=True):
            size = gguf.quants.quant_shape_to_byte_shape(_shape(tensor), type)
            writer.add_tensor_info(tensor.name, size, np.dtype("uint8"), math.prod(size), raw_dtype=type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, type in zip(reader.tensors, types, strict=True):
            data = tensor.data
            if type != tensor.tensor_type:
                data = quantized(data.astype(np.float32), tensor.name, type.name, quantizer, folder)
            elif type.name == "F16" and not np.isfinite(data).all():
                message = f"contains values in {tensor.name} that are no numbers, or too large for float16"
                raise InputError(folder, message, OMIT)
            writer.write_tensor_data(np.ascontiguousarray(data).view("uint8"))
            advance(int(tensor.n_elements) / total)
        writer.close()
    except OSError as error:
        raise not_written(out, error) from error


def _opened(path: Path) -> Any:
    """gguf-py's reader of a file in which all tensors have 16 or 32 bits. Errors: BrokenPromise."""
    import gguf

    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:150]
        raise BrokenPromise(path, f"is no GGUF file that gguf reads ({reason})", ANOTHER_VERSION) from None
    other = next((t for t in reader.tensors if t.tensor_type.name not in ("F16", "F32")), None)
    if other is not None:
        what = f"was converted with {other.name} in {other.tensor_type.name} instead of float16"
        raise BrokenPromise(path, what, ANOTHER_VERSION)
    return reader


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))


def _type(tensor: Any, kind: Quantization, shape: MixtureShape) -> Any:
    """What a tensor is stored as; the converter keeps in float32 what llama.cpp reads in it alone."""
    import gguf

    if tensor.tensor_type.name != "F16":
        return tensor.tensor_type
    return gguf.GGMLQuantizationType[tensor_type(kind, tensor.name, _shape(tensor), shape)]


def _mixture(reader: Any, architecture: str) -> MixtureShape:
    def setting(name: str) -> int:
        field = reader.fields.get(f"{architecture}.{name}")
        value = 1 if field is None else field.contents()
        return max(value) if isinstance(value, list) else int(value)

    heads = setting("attention.head_count"), setting("attention.head_count_kv")
    tied = all(tensor.name != HEAD for tensor in reader.tensors)
    return MixtureShape(setting("block_count"), heads[0] // max(heads[1], 1), tied, setting("expert_count"))


def check_file(path: Path, folder: Path) -> None:
    """Read a file back: its vocabulary, the rows of its embedding and head, and its layers must be the folder's.

    Errors: BrokenPromise.
    """
    reader, stored = _opened(path), read_stored_model(folder)
    matrices, tensors = find_matrices(stored), {tensor.name: tensor for tensor in reader.tensors}
    head = matrices.output
    if head is None and HEAD in tensors:  # a copy of a tied matrix
        head = matrices.input
    for name, source in ((EMBEDDING, matrices.input), (HEAD, head)):
        if source is not None:
            _check_rows(path, tensors.get(name), name, stored.weights.tensor(source))
    _check_vocabulary(path, folder, stored.weights.tensors[matrices.input].shape[0])
    numbers = {int(found[1]) for name in tensors if (found := re.match(r"blk\.(\d+)\.", name))}
    layers = stored.model.config.get_text_config().num_hidden_layers
    if lacking := set(range(layers)) - numbers:
        raise BrokenPromise(path, f"was converted without the layer {min(lacking)}", ANOTHER_VERSION)


def _check_rows(path: Path, written: Any, name: str, expected: Any) -> None:
    if written is None:
        raise BrokenPromise(path, f"was converted without {name}", ANOTHER_VERSION)
    if _shape(written) != tuple(expected.shape):
        sizes = " x ".join(map(str, _shape(written)))
        message = f"was converted with {sizes} values in {name}, and the model has {expected.shape[0]} rows"
        raise BrokenPromise(path, message, ANOTHER_VERSION)
    for first in range(0, len(expected), ROWS):
        held = written.data[first : first + ROWS].astype(np.float32)
        values = expected[first : first + ROWS].float().numpy()
        equal = np.abs(held - values) <= HALF_EPS * np.abs(values) + HALF_TINY  # NaN must fail too
        if not equal.all():
            row = first + int(np.argmin(equal.all(1)))
            raise BrokenPromise(
                path, f"was converted with other values in row {row} of {name}", ANOTHER_VERSION
            )


def _check_vocabulary(path: Path, folder: Path, rows: int) -> None:
    tokenizer = load_transformers_tokenizer(folder)
    expected = read_gguf_vocabulary(folder, tokenizer, rows)
    keys = read_metadata(path, "tokenizer.ggml.")
    wanted: dict[str, Any] = {
        "model": expected.kind,
        "pre": expected.split,
        "tokens": [token.decode() for token in expected.tokens],
        "token_type": expected.types,
        "merges": expected.merges,
        "scores": None if expected.scores is None else np.array(expected.scores, np.float32).tolist(),
    }
    for key, role in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        id = getattr(tokenizer, f"{role}_token_id", None)
        wanted[f"{key}_token_id"] = None if id is None or id >= rows else id
    for key, value in wanted.items():
        if keys.get(key) != value:
            raise BrokenPromise(
                path, f"has another tokenizer.ggml.{key} than the model's tokenizer", ANOTHER_VERSION
            )


def quantized_rounding(half: Path, path: Path, limit: float) -> float:
    """The largest RMS of a tensor's rounding over the RMS of its values, of a file that `quantize_file` wrote.

    Errors: BrokenPromise for one above `limit`, and for tensors that are missing.
    """
    import gguf

    held = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    largest = 0.0
    for source in gguf.GGUFReader(half).tensors:
        if source.name not in held:
            raise BrokenPromise(path, f"lacks {source.name}", ANOTHER_VERSION)
        tensor = held[source.name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        rounding = relative_difference(values, source.data.astype(np.float32))
        if not rounding <= limit:  # NaN must fail too
            reason = (
                f"stores {source.name} with a rounding of {rounding:.2g} of its size, {limit:.2g} allowed"
            )
            raise BrokenPromise(path, reason, ANOTHER_VERSION)
        largest = max(largest, rounding)
    return largest
