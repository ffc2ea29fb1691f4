"""Encodes byte-level vocabularies by gigatoken where it gives the ids of `tokenizers`; a probe on each vocabulary decides."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zhllama.encoding.tables import Int32, Int64
from zhllama.extras import install_command
from zhllama.io.json import parse_row
from zhllama.vocab.any_tokenizer import JsonTokenizer
from zhllama.vocab.byte_level_json import BYTE_OF, GPT2
from zhllama.vocab.fuzz import fuzzed

FUZZ = 2_400  # strings of the probe
PIECES = 20_000  # of the vocabulary in them
TOKENS = 400  # added tokens in the probe
FIRST = 200_000  # characters of the text's own first documents in the probe
_FRAMES = ("{0}", "one{0}two", " {0} 中文", "\n{0}{0}")
_ODD = (
    "", " ", "  a", "a  b   c", "\t\n \r\n\r\n x", "\u3000中\u3000文", "e\u0301 é ﬁ ① ㍿", "👩‍👩‍👧🇨🇳", "\x00\x01\x7f", "1234567 12.5%", "I'll DON'T we've",
    "\ufeffx", "\ufffd", "𠀀𪛖", "a" * 300, "的" * 300, " " * 300, "\n" * 30, "한국어 ไทย العربية हिन्दी", "２０２４年，！？",
)  # fmt: skip


class Gigatoken:
    """gigatoken on the vocabulary of a byte-level tokenizer.json.

    gigatoken needs a token for each byte, and SmolLM2 lacks some. They get ids beyond the vocabulary here, and a text with
    such an id is encoded by `tokenizers`.
    """

    def __init__(self, tokenizer: JsonTokenizer) -> None:
        import gigatoken

        raw = parse_row(tokenizer.inner.to_str())
        # The names of special tokens in a text are plain text here, as `encode_special_tokens` says in `tokenizers`.
        raw["added_tokens"] = [token for token in raw["added_tokens"] if not token["special"]]
        vocabulary: dict[str, int] = raw["model"]["vocab"]
        self._size = 1 + max(*vocabulary.values(), *(token["id"] for token in raw["added_tokens"]), 0)
        lacking = [character for character in BYTE_OF if character not in vocabulary]
        vocabulary.update((character, self._size + n) for n, character in enumerate(lacking))
        self._plain = tokenizer
        self._digits: Any = None
        if _splits_digits(raw["pre_tokenizer"]):
            import regex

            # gigatoken has no such pattern. Each part between digits is a text of its own, for `tokenizers` too.
            self._digits = regex.compile(r"(\p{N})")
            raw["pre_tokenizer"] = {
                "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True
            }  # fmt: skip
        self._tokenizer: Any = gigatoken.Tokenizer.from_json(json.dumps(raw))

    def encode(self, texts: Sequence[str]) -> tuple[Int32, Int64]:
        """The concatenated ids of all texts, and the offset at which each text's ids start, [len(texts) + 1]."""
        if self._digits is None:
            return self._encode(texts)
        split = [[part for part in self._digits.split(text) if part] or [""] for text in texts]
        ids, offsets = self._encode([part for parts in split for part in parts])
        return ids, offsets[np.cumsum([0, *map(len, split)])]

    def _encode(self, texts: Sequence[str]) -> tuple[Int32, Int64]:
        layout = self._tokenizer.encode_batch(list(texts)).layout.to_packed()
        ids = np.asarray(layout.content.data).astype(np.int32)
        offsets = np.asarray(layout.offsets.data).astype(np.int64)
        lacking = np.flatnonzero(ids >= self._size)
        return (ids, offsets) if not len(lacking) else self._corrected(texts, ids, offsets, lacking)

    def _corrected(
        self, texts: Sequence[str], ids: Int32, offsets: Int64, lacking: Int64
    ) -> tuple[Int32, Int64]:
        """The ids with those of the texts at the positions `lacking` from `tokenizers`."""
        numbers = np.unique(np.searchsorted(offsets, lacking, side="right") - 1)
        parts = np.split(ids, offsets[1:-1])
        for number, text_ids in zip(numbers, self._plain.encode([texts[n] for n in numbers]), strict=True):
            parts[number] = np.array(text_ids, np.int32)
        return np.concatenate(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64)


def _splits_digits(step: Any) -> bool:
    """Whether a pre-tokenizer splits off each digit and then applies GPT-2's pattern, as SmolLM2's does."""
    steps = [
        {k: v for k, v in one.items() if k != "trim_offsets"} for one in (step or {}).get("pretokenizers", ())
    ]
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False}
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    return steps in (
        [{"type": "Digits", "individual_digits": True}, {**bytes_, "use_regex": True}],
        [
            {**split, "pattern": {"Regex": r"\p{N}"}},
            {**split, "pattern": {"Regex": GPT2}},
            {**bytes_, "use_regex": False},
        ],
    )


def why_not_gigatoken(tokenizer: JsonTokenizer) -> str | None:
    """Why gigatoken cannot be tried on a tokenizer, or None."""
    if not tokenizer.byte_level:
        return "the tokenizer.json is not byte-level BPE"
    if importlib.util.find_spec("gigatoken") is None:
        return f"gigatoken is not installed: {install_command('fast')}"
    return None


def probed(tokenizer: JsonTokenizer) -> Gigatoken | str:
    """gigatoken on this vocabulary, or why it is not used: it cannot open it, or differs from `tokenizers` on a probe."""
    try:
        candidate = Gigatoken(tokenizer)
    except (
        Exception
    ) as error:  # gigatoken raises ValueError, but a foreign file can break it in any other way
        return f"gigatoken cannot open the tokenizer: {' '.join(str(error).split())[:160]}"
    return difference(candidate, tokenizer, list(_probe(tokenizer))) or candidate


def difference(candidate: Gigatoken, tokenizer: JsonTokenizer, texts: Sequence[str]) -> str | None:
    """Why gigatoken is not used: the first text on which it differs from `tokenizers`; None if it gives the same ids."""
    expected = tokenizer.encode(texts)
    ids, offsets = candidate.encode(texts)
    for number, text in enumerate(texts):
        if ids[offsets[number] : offsets[number + 1]].tolist() != expected[number]:
            return f"gigatoken differs from `tokenizers` on {text[:60]!r}"
    return None


def _probe(tokenizer: JsonTokenizer) -> Iterator[str]:
    yield from _ODD
    names = [token.content for token in tokenizer.inner.get_added_tokens_decoder().values()]
    for name in names if len(names) <= TOKENS else [*names[: TOKENS // 2], *names[-TOKENS // 2 :]]:
        yield from (frame.format(name) for frame in _FRAMES)
    # The probe uses some ten thousand pieces, so not all of a large vocabulary have to be decoded.
    surfaces = (tokenizer.surface(id) for id in range(0, tokenizer.size, 1 + tokenizer.size // PIECES))
    pieces = [
        text
        for surface in surfaces
        if (text := surface.decode("utf-8", "ignore")).encode() == surface and text
    ]
    yield from fuzzed(pieces, FUZZ, seed=0)
