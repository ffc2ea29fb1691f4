"""Rank files of tiktoken (`.tiktoken`, and Llama 3's tokenizer.model): a token in base64 and its rank on each line."""

import binascii
import re
from base64 import b64decode
from pathlib import Path

from tokenizers import Tokenizer

from zhllama.errors import InputError
from zhllama.io.files import read_whole
from zhllama.vocab.byte_level_json import CL100K, GPT2, O200K, QWEN, from_ranks

# The file holds no pattern, but the number of its ranks tells whose it is: (pattern, ids in all).
_KNOWN = {
    50_256: (GPT2, 50_257),  # r50k_base, GPT-2
    50_280: (GPT2, 50_281),  # p50k_base
    100_256: (CL100K, 100_277),  # cl100k_base, GPT-4
    128_000: (CL100K, 128_256),  # Llama 3
    151_643: (QWEN, 151_851),  # Qwen, as dashscope ships it with its 208 special tokens
    199_998: (O200K, 200_019),  # o200k_base, GPT-4o
}

_line = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


def is_rank_file(head: bytes) -> bool:
    """Whether a file that begins so is a rank file."""
    return _line.match(head) is not None


def read_tiktoken(path: Path) -> Tokenizer:
    """A rank file with the pattern that its number of ranks tells; InputError where it tells none, or is broken."""
    ranks = read_ranks(path)
    if len(ranks) not in _KNOWN:
        raise InputError(
            path,
            f"holds {len(ranks):,} ranks, and no known tokenizer has as many, so its pattern is unknown",
            "Give its tokenizer.json",
        )
    pattern, size = _KNOWN[len(ranks)]
    specials = ((id, f"<|special {id}|>") for id in range(len(ranks), size))
    return from_ranks(ranks, [pattern], specials)


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of a rank file in the order of their ranks, which must be 0, 1, 2 ... without a gap."""
    ranks = []
    for number, line in enumerate(read_whole(path).splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks.append((int(rank), b64decode(token, validate=True)))
        except (ValueError, binascii.Error):
            raise InputError(
                f"{path}:{number}", "is no base64 token and its rank", "Fetch the file again"
            ) from None
    ranks.sort()
    if [rank for rank, _ in ranks] != list(range(len(ranks))):
        raise InputError(path, "has a gap in its ranks, or one twice", "Fetch the file again")
    return [token for _, token in ranks]
