"""A byte-level BPE vocabulary: read, extended, pruned, and written back as a tokenizer.json.

Llama 3, Qwen, SmolLM2, DeepSeek and Mistral's Tekken are of this kind: a pattern splits text into words, each word is
spelled as bytes, and ranked merges join the bytes. Tokens are written in GPT-2's stand-in characters.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer
from tokenizers.models import BPE

from zhllama.errors import InputError
from zhllama.vocab.any_tokenizer import JsonTokenizer
from zhllama.vocab.byte_level_json import BYTE_OF, spelled
from zhllama.vocab.folder_settings import read_folder_settings
from zhllama.vocab.json_vocabulary import JsonVocabulary, dumped, loaded, special_token
from zhllama.vocab.tokenizer_json import inside_a_text
from zhllama.vocab.vocabulary import SPACE, AddedPiece, Kind

BATCH = 20_000  # texts tokenized in one call


@dataclass(frozen=True)
class ByteLevelVocabulary(JsonVocabulary):
    """A `Vocabulary` from the content of a byte-level tokenizer.json and the settings of its folder."""

    kind: ClassVar[Kind] = "byte-level"

    @classmethod
    def read(cls, path: Path) -> "ByteLevelVocabulary":
        """Read a tokenizer.json with its folder, a tekken.json, rank file or GGUF.

        Errors: InputError where it is not byte-level BPE, and where transformers cannot read the folder.
        """
        vocabulary = cls(JsonTokenizer(path).content)
        reason = vocabulary._why_not_byte_level()
        if reason is not None:
            raise InputError(path, f"is no byte-level BPE tokenizer: {reason}", "Name one, or a .model")
        settings = read_folder_settings(path)
        return vocabulary if settings is None else vocabulary.in_folder(settings)

    def _why_not_byte_level(self) -> str | None:
        model = self._json["model"]
        if model.get("type") != "BPE":
            return f"its model is {model.get('type')}, which has no merges to add to"
        if not _contains_step(self._json["pre_tokenizer"], "ByteLevel"):
            return "its pre-tokenizer does not spell bytes" + (
                " (it was made from a SentencePiece model: name its tokenizer.model)"
                if model["byte_fallback"]
                else ""
            )
        if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            return "its tokens carry a prefix or suffix that marks their place in a word"
        return None

    @property
    def removable(self) -> set[int]:
        """All tokens but single bytes and added tokens."""
        return {id for text, id in self.ids.items() if len(text) > 1}

    @cached_property
    def fallback_ids(self) -> frozenset[int]:
        """Tokens that are not whole characters: bytes and fragments of characters."""
        return frozenset(id for text, id in self.ids.items() if readable(text) is None)

    @cached_property
    def tokenizer_by_merges(self) -> Tokenizer:
        """The same for parts of a text by merges alone: without `add_prefix_space` and Llama 3's `ignore_merges`.

        Without added tokens that are matched only as words of their own, too: inside Chinese they are no words.
        """
        model = {**self._json["model"], "ignore_merges": False}
        added = [token for token in self._json["added_tokens"] if not token["single_word"]]
        return loaded(inside_a_text(dumped({**self._json, "model": model, "added_tokens": added})))

    @cached_property
    def bare_tokenizer(self) -> Tokenizer:
        """The merges alone, applied to a word in stand-in characters, without pattern and normalizer."""
        return Tokenizer(BPE(vocab=self._json["model"]["vocab"], merges=self.merges))

    def encode_by_merges(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each part of a text by merges alone, whatever `ignore_merges` and `add_prefix_space` say."""
        return [
            e.ids for e in self.tokenizer_by_merges.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def normalized(self, lines: Iterable[str]) -> Iterator[str]:
        """Each line, as a part of a text, as its normalizer writes it."""
        normalizer = self.tokenizer_by_merges.normalizer
        yield from lines if normalizer is None else map(normalizer.normalize_str, lines)

    def display(self, id: int) -> str:
        """A token as people read it: its text, <E4BD> for a fragment of a character, a special token as it is."""
        token = self.texts.get(id, "?")
        text = readable(token)
        if text is not None:
            return text.replace(" ", SPACE)
        return (
            f"<{''.join(f'{BYTE_OF[c]:02X}' for c in token)}>" if all(c in BYTE_OF for c in token) else token
        )

    def has_character(self, character: str) -> bool:
        """Whether a character is a token by itself."""
        return spelled(character.encode()) in self.ids

    def fuzz_pieces(self) -> list[str]:
        """The text of all tokens that are whole characters."""
        texts = (readable(self.texts[id]) for id in sorted(self.ids.values()))
        return [text for text in texts if text]

    def parts(self, words: Iterable[str]) -> Iterator[list[str]]:
        """The tokens that merges leave of each word in stand-in characters."""
        iterator = iter(words)
        while batch := list(islice(iterator, BATCH)):
            yield from (e.tokens for e in self.bare_tokenizer.encode_batch(batch, add_special_tokens=False))

    def dead(self, ids: Iterable[int]) -> list[int]:
        """Those of `ids` that no merges can produce: the token's own text is tokenized into something else."""
        ordinary = [id for id in ids if id in self.texts and id not in self.added_tokens]
        parts = self.parts(self.texts[id] for id in ordinary)
        return [id for id, tokens in zip(ordinary, parts, strict=True) if tokens != [self.texts[id]]]

    def split(self, ids: Iterable[int]) -> list[int]:
        """Those of `ids` that are whole text which does not reach the merges as one word."""
        ordinary = (id for id in ids if id not in self.added_tokens)
        texts = {id: text for id in ordinary if (text := readable(self.texts[id]))}
        return [id for id, whole in zip(texts, self.are_words(texts.values()), strict=True) if not whole]

    @cached_property
    def _matched_ids(self) -> frozenset[int]:
        return frozenset(t["id"] for t in self._json["added_tokens"] if not t["single_word"])

    def are_words(self, texts: Iterable[str]) -> Iterator[bool]:
        """Whether each text, inside a longer one, reaches the merges as it is: not changed, not split, no added token in it."""
        iterator = iter(texts)
        while batch := list(islice(iterator, BATCH)):
            encoded = self.tokenizer_by_merges.encode_batch(batch, add_special_tokens=False)
            for text, encoding in zip(batch, encoded, strict=True):
                yield (
                    len(set(encoding.word_ids)) == 1
                    and self._matched_ids.isdisjoint(encoding.ids)
                    and "".join(encoding.tokens) == spelled(text.encode())
                )

    def text_of(self, ids: Iterable[int]) -> str:
        """The text of several tokens together, which must be whole characters."""
        text = readable("".join(map(self.texts.__getitem__, ids)))
        assert text is not None
        return text

    def words(self, text: str) -> list[str]:
        """The words, in stand-in characters, into which normalizer and pattern split a part of a text."""
        tokenizer = self.tokenizer_by_merges
        normalized = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        pattern = tokenizer.pre_tokenizer
        assert pattern is not None
        return [word for word, _ in pattern.pre_tokenize_str(normalized)]

    def expansion(self, base: "ByteLevelVocabulary") -> dict[int, tuple[int, ...]] | None:
        """Each id as ids of `base`: itself, or what its merge joins; None if this does not extend `base`."""
        if self.merges[: len(base.merges)] != base.merges:
            return None
        base_ids: dict[int, tuple[int, ...]] = {id: (id,) for id in self.texts}
        for left, right in self.merges[len(base.merges) :]:
            base_ids[self.ids[left + right]] = base_ids[self.ids[left]] + base_ids[self.ids[right]]
        return base_ids

    def extended(self, added: Iterable[AddedPiece]) -> "ByteLevelVocabulary":
        """The same with more tokens after every id: merges rank below all others, control pieces become special tokens.

        Added tokens are written into the vocabulary as well: `tokenizers` would count their ids from its length.
        """
        raw = self._parsed()
        vocabulary: dict[str, int] = raw["model"]["vocab"]
        for id, text in self.added_tokens.items():
            vocabulary.setdefault(text, id)
        for id, piece in enumerate(added, self.size):
            vocabulary[piece.text] = id
            if piece.kind == "control":
                raw["added_tokens"].append(special_token(id, piece.text))
            else:
                assert piece.parts is not None
                raw["model"]["merges"].append(list(piece.parts))
        return replace(self, content=dumped(raw))

    def table_row(self, piece: AddedPiece) -> dict[str, str]:
        """An added token, the two tokens that its merge joins, and the reason."""
        left, right = piece.parts or ("", "")
        return {
            "token": readable(piece.text) or piece.text,
            "left": left,
            "right": right,
            "why": piece.reason,
        }


def readable(token: str) -> str | None:
    """The text of stand-in characters, or None where they are not whole characters."""
    try:
        return bytes(map(BYTE_OF.__getitem__, token)).decode()
    except (KeyError, UnicodeDecodeError):
        return None


def _contains_step(step: Any, kind: str) -> bool:
    """Whether a step of the pipeline is of a kind, or contains one that is."""
    if not isinstance(step, dict):
        return False
    return step.get("type") == kind or any(_contains_step(s, kind) for s in step.get("pretokenizers", ()))
