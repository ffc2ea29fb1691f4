"""A byte-level BPE vocabulary as its parts: tokens, ordered merges, the pattern before them, the tokens beside them.

Llama 3, Qwen, SmolLM2, DeepSeek and Mistral's Tekken are of this kind: text is cut into words by a pattern, a word is
spelled as bytes, and a ranked list of merges joins them. Tokens are written in GPT-2's stand-in characters.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Inner
from tokenizers.models import BPE

from zhllama.errors import InputError
from zhllama.io.json import as_object, parse_json
from zhllama.vocab.load import JsonTokenizer
from zhllama.vocab.ranks import BYTE_OF

Pair = tuple[str, str]
BATCH = 20_000  # texts cut in one call


@dataclass(frozen=True)
class ByteLevel:
    """The content of a byte-level tokenizer.json; everything else is derived from it."""

    content: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "ByteLevel":
        """Read a tokenizer.json, tekken.json, rank file or GGUF; InputError where it is not byte-level BPE."""
        model = cls(JsonTokenizer(path).inner.to_str())
        reason = model._why_not()
        if reason is not None:
            raise InputError(path, f"is no byte-level BPE tokenizer: {reason}", "Name one, or a .model")
        return model

    def _why_not(self) -> str | None:
        held = self._json["model"]
        if held.get("type") != "BPE":
            return f"its model is {held.get('type')}, which has no merges to add to"
        if not _mentions(self._json["pre_tokenizer"], "ByteLevel"):
            return "its pre-tokenizer does not spell bytes" + (
                " (a SentencePiece model's twin: name its tokenizer.model)" if held["byte_fallback"] else ""
            )
        if held.get("continuing_subword_prefix") or held.get("end_of_word_suffix"):
            return "its tokens carry a prefix or suffix that tells where in a word they stand"
        return None

    @cached_property
    def _json(self) -> dict[str, Any]:
        return as_object(parse_json(self.content, "tokenizer.json"), "tokenizer.json")

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each token that text is cut into, by its stand-in characters; special and reserved ones left out."""
        vocabulary: dict[str, int] = self._json["model"]["vocab"]
        return {text: id for text, id in vocabulary.items() if self.beside.get(id) != text}

    @cached_property
    def texts(self) -> dict[int, str]:
        """The stand-in characters of each id, and the text of those beside the vocabulary."""
        return {id: text for text, id in self.ids.items()} | self.beside

    @cached_property
    def beside(self) -> dict[int, str]:
        """Special, reserved and other tokens that stand beside the vocabulary: matched before it, no merge makes them."""
        return {token["id"]: token["content"] for token in self._json["added_tokens"]}

    @cached_property
    def special(self) -> frozenset[int]:
        """Those of `beside` that are control tokens."""
        return frozenset(t["id"] for t in self._json["added_tokens"] if t["special"])

    @cached_property
    def merges(self) -> list[Pair]:
        """The merges, first come first; a vocabulary made from ranks has several that make the same token."""
        return [(left, right) for left, right in self._json["model"]["merges"]]

    @property
    def size(self) -> int:
        """One more than the last id, reserved ones included."""
        return max(self.texts, default=-1) + 1

    @cached_property
    def fragments(self) -> frozenset[int]:
        """Tokens that are no whole characters: bytes and parts of characters."""
        return frozenset(id for text, id in self.ids.items() if readable(text) is None)

    @cached_property
    def inner(self) -> Inner:
        """`tokenizers` on this vocabulary, reading no special token from a text."""
        return _inner(self.content)

    @cached_property
    def plain(self) -> Inner:
        """The same where merges alone decide: without Llama 3's `ignore_merges`, which takes a whole word at once."""
        if not self._json["model"].get("ignore_merges"):
            return self.inner
        return _inner(_dumped({**self._json, "model": {**self._json["model"], "ignore_merges": False}}))

    @cached_property
    def bare(self) -> Inner:
        """The merges alone, on a word in stand-in characters: no pattern cuts it, no normalizer changes it."""
        return Inner(BPE(vocab=self._json["model"]["vocab"], merges=self.merges))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [e.ids for e in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_plainly(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text by merges alone, whatever `ignore_merges` says."""
        return [e.ids for e in self.plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        """The text of each list of ids."""
        return self.inner.decode_batch([list(one) for one in ids], skip_special_tokens=False)

    def parts(self, words: Iterable[str]) -> Iterator[list[str]]:
        """The tokens that merges leave of each word in stand-in characters."""
        iterator = iter(words)
        while batch := list(islice(iterator, BATCH)):
            yield from (e.tokens for e in self.bare.encode_batch(batch, add_special_tokens=False))

    def dead(self, ids: Iterable[int]) -> list[int]:
        """Those of `ids` that no merges can ever make: the token's own text is cut into something else."""
        asked = [id for id in ids if id in self.texts and id not in self.beside]
        cuts = self.parts(self.texts[id] for id in asked)
        return [id for id, cut in zip(asked, cuts, strict=True) if cut != [self.texts[id]]]

    def split(self, ids: Iterable[int]) -> list[int]:
        """Those of `ids` that are whole text and that the normalizer or the pattern never leaves in one word."""
        asked = [
            (id, text) for id in ids if id not in self.beside for text in [readable(self.texts[id])] if text
        ]
        words = (self.words(text) for _, text in asked)
        return [id for (id, _), word in zip(asked, words, strict=True) if word != [self.texts[id]]]

    def text_of(self, ids: Iterable[int]) -> str:
        """The text that tokens stand for together, which must be whole characters."""
        text = readable("".join(map(self.texts.__getitem__, ids)))
        assert text is not None
        return text

    def words(self, text: str) -> list[str]:
        """The words, in stand-in characters, that normalizer and pattern make of a text."""
        normal = self.inner.normalizer.normalize_str(text) if self.inner.normalizer else text
        pattern = self.inner.pre_tokenizer
        assert pattern is not None
        return [word for word, _ in pattern.pre_tokenize_str(normal)]

    def expansion(self, base: "ByteLevel") -> dict[int, tuple[int, ...]] | None:
        """Each id as ids of `base`: itself, or what its merge joins; None where this was not extended from `base`."""
        if self.merges[: len(base.merges)] != base.merges:
            return None
        whole: dict[int, tuple[int, ...]] = {id: (id,) for id in self.texts}
        for left, right in self.merges[len(base.merges) :]:
            whole[self.ids[left + right]] = whole[self.ids[left]] + whole[self.ids[right]]
        return whole

    def extended(self, merges: Sequence[Pair], special: Sequence[str] = ()) -> "ByteLevel":
        """The same with more merges below all others, their tokens after every id, and special tokens after those.

        Tokens beside the vocabulary are written into it as well: `tokenizers` would count their ids from its length.
        """
        raw: dict[str, Any] = as_object(parse_json(self.content, "tokenizer.json"), "tokenizer.json")
        vocabulary: dict[str, int] = raw["model"]["vocab"]
        for id, text in self.beside.items():
            vocabulary.setdefault(text, id)
        for number, (left, right) in enumerate(merges, self.size):
            vocabulary[left + right] = number
        raw["model"]["merges"] += [list(pair) for pair in merges]
        for number, text in enumerate(special, self.size + len(merges)):
            vocabulary[text] = number
            raw["added_tokens"].append(special_token(number, text))
        return ByteLevel(_dumped(raw))

    def without(self, ids: Iterable[int]) -> "ByteLevel":
        """The same without some tokens and the merges that make them; those that stay move up in their order."""
        gone = {self.texts[id] for id in ids}
        moved = {id: new for new, id in enumerate(self.kept(ids))}
        raw: dict[str, Any] = as_object(parse_json(self.content, "tokenizer.json"), "tokenizer.json")
        held = raw["model"]
        held["vocab"] = {t: moved[id] for t, id in held["vocab"].items() if id in moved}
        for id, text in self.beside.items():
            held["vocab"].setdefault(text, moved[id])
        held["merges"] = [pair for pair in held["merges"] if "".join(pair) not in gone]
        for token in raw["added_tokens"]:
            token["id"] = moved[token["id"]]
        _move_ids(raw["post_processor"], moved)
        return ByteLevel(_dumped(raw))

    def kept(self, gone: Iterable[int]) -> list[int]:
        """All ids but those of `gone`, in order."""
        return sorted(self.texts.keys() - set(gone))


def readable(token: str) -> str | None:
    """The text that stand-in characters stand for, or None where it is no whole characters."""
    try:
        return bytes(map(BYTE_OF.__getitem__, token)).decode()
    except (KeyError, UnicodeDecodeError):
        return None


def _inner(content: str) -> Inner:
    inner = Inner.from_str(content)
    inner.encode_special_tokens = True
    return inner


def _dumped(raw: Mapping[str, Any]) -> str:
    return json.dumps(raw, ensure_ascii=False)


def special_token(id: int, text: str) -> dict[str, Any]:
    """An entry of `added_tokens` in tokenizer.json that is matched as it stands."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": text, **flags, "special": True}


def _mentions(part: Any, kind: str) -> bool:
    """Whether a step of the pipeline is of some type, or holds one that is."""
    if not isinstance(part, dict):
        return False
    return part.get("type") == kind or any(_mentions(p, kind) for p in part.get("pretokenizers", ()))


def _move_ids(part: Any, moved: Mapping[int, int]) -> None:
    """Renumber what a post-processor puts around a text."""
    if not isinstance(part, dict):
        return
    for processor in part.get("processors", ()):
        _move_ids(processor, moved)
    for token in part.get("special_tokens", {}).values() if part.get("type") == "TemplateProcessing" else ():
        token["ids"] = [moved[id] for id in token["ids"]]
    for end in ("sep", "cls"):  # of BertProcessing and RobertaProcessing: [text, id]
        if isinstance(part.get(end), list):
            part[end][1] = moved[part[end][1]]
