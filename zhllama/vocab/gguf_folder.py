"""The tokenizer of a GGUF file as a folder that transformers loads, with its special tokens and its chat template."""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from zhllama.io.cache import cache_folder, cache_not_written
from zhllama.io.files import to_json
from zhllama.io.gguf import read_metadata
from zhllama.vocab.fast_tokenizer import Specials, transformers_files
from zhllama.vocab.gguf import read_gguf
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.tokenizer_config import CONFIG, TEMPLATE

# The keys of special tokens, by their names in transformers.
SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
# Patterns before whose texts llama.cpp puts BOS where the file does not say otherwise (llama-vocab.cpp, `add_bos`).
WITH_BOS = ("llama-bpe", "tekken")


def tokenizer_files(path: Path) -> dict[str, bytes]:
    """The files, by name, with which AutoTokenizer gives the ids of llama.cpp. Errors: InputError of `read_gguf`."""
    vocabulary = read_gguf(path)
    metadata = read_metadata(path, "tokenizer.")
    keys = {name.removeprefix("ggml."): value for name, value in metadata.items()}
    tokens = keys["tokens"]
    special = {
        role: tokens[id]
        for role, key in SPECIAL.items()
        if isinstance(id := keys.get(key), int) and id < len(tokens)
    }
    if isinstance(vocabulary, SentencePieceVocabulary):
        bos = bool(keys.get("add_bos_token", True))
        files = transformers_files(vocabulary, Specials(bos, special.get("pad_token")))
    else:
        bos = bool(keys.get("add_bos_token", keys.get("pre") in WITH_BOS)) and "bos_token" in special
        files = {
            "tokenizer.json": (_framed(vocabulary, special, bos).to_str() + "\n").encode(),
            CONFIG: to_json(_config(special, bos)).encode(),
        }
    template = metadata.get("chat_template")
    return files | ({TEMPLATE: template.encode()} if isinstance(template, str) else {})


def tokenizer_folder(path: Path) -> Path:
    """A folder in the user's cache with these files, made where it is not there. Errors: InputError, OutputError."""
    files = tokenizer_files(path)
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    cache = cache_folder("gguf-tokenizers")
    folder = cache / f"{path.stem}-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".", dir=cache))
        try:
            for name, content in files.items():
                (part / name).write_bytes(content)
            move_folder(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise cache_not_written(cache, error) from error
    return folder


def move_folder(part: Path, folder: Path) -> None:
    """Give a finished folder its name; where another process was first, its folder stays."""
    part.chmod(0o755)
    try:
        Path(part).rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _framed(tokenizer: Tokenizer, special: dict[str, str], bos: bool) -> Tokenizer:
    if bos:
        token = special["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{token} $A",
            pair=f"{token} $A {token}:1 $B:1",
            special_tokens=[(token, tokenizer.token_to_id(token))],
        )
    return tokenizer


def _config(special: dict[str, str], bos: bool) -> dict[str, Any]:
    return {
        **special,
        "add_bos_token": bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
