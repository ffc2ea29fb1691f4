"""A BPE vocabulary in a tokenizer.json: the common part of the byte-level and the Metaspace vocabulary."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer

from zhllama.io.json import as_object, parse_json
from zhllama.vocab import json_folder
from zhllama.vocab.folder_settings import FolderSettings, renumbered
from zhllama.vocab.tokenizer_json import open_tokenizer_json
from zhllama.vocab.vocabulary import Pair


@dataclass(frozen=True)
class JsonVocabulary:
    """The content of a BPE tokenizer.json and the settings of its folder; everything else is derived from these."""

    content: str = field(repr=False)
    settings: FolderSettings | None = field(default=None, compare=False, repr=False)

    @cached_property
    def _json(self) -> dict[str, Any]:
        return self._parsed()

    def _parsed(self) -> dict[str, Any]:
        return as_object(parse_json(self.content, "tokenizer.json"), "tokenizer.json")

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each token that merges can produce, by its stand-in characters; added tokens are left out."""
        vocabulary: dict[str, int] = self._json["model"]["vocab"]
        return {text: id for text, id in vocabulary.items() if self.added_tokens.get(id) != text}

    @cached_property
    def texts(self) -> dict[int, str]:
        """The stand-in characters of each id, and the text of added tokens."""
        return {id: text for text, id in self.ids.items()} | self.added_tokens

    @cached_property
    def added_tokens(self) -> dict[int, str]:
        """Special, reserved and other tokens that are matched in text before it is tokenized; no merge produces them."""
        return {token["id"]: token["content"] for token in self._json["added_tokens"]}

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The added tokens that are control tokens."""
        return frozenset(t["id"] for t in self._json["added_tokens"] if t["special"])

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The control tokens in the order of their ids."""
        return tuple(self.added_tokens[id] for id in sorted(self.special_ids))

    @property
    def entries(self) -> Mapping[int, str]:
        """The text of each id."""
        return self.texts

    @cached_property
    def merges(self) -> list[Pair]:
        """The merges by rank; a vocabulary made from ranks has several that produce the same token."""
        return [(left, right) for left, right in self._json["model"]["merges"]]

    @property
    def size(self) -> int:
        """One more than the last id, reserved ones included."""
        return max(self.texts, default=-1) + 1

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """`tokenizers` on this vocabulary; special tokens in a text are read as text."""
        return loaded(self.content)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        """The text of each list of ids."""
        return self.tokenizer.decode_batch([list(one) for one in ids], skip_special_tokens=False)

    def in_folder(self, settings: FolderSettings) -> Self:
        """The same vocabulary with the tokens that its folder adds and the flags that it gives them.

        Ids that the folder's files state, and AutoTokenizer gives to no token, become reserved tokens.
        """
        raw = self._parsed()
        entries = {token["id"]: token for token in raw["added_tokens"]}
        entries |= {id: {"id": id, **token.entry()} for id, token in settings.tokens.items()}
        taken = {*self.texts.values(), *(token["content"] for token in entries.values())}
        last = settings.size - 1
        if last >= self.size and last not in entries:
            name = next(name for n in range(10) if (name := f"<unused_{last}{'_' * n}>") not in taken)
            entries[last] = special_token(last, name)
        raw["added_tokens"] = [entries[id] for id in sorted(entries)]
        for token in raw["added_tokens"]:
            raw["model"]["vocab"].setdefault(token["content"], token["id"])
        return replace(self, content=dumped(raw), settings=settings)

    def without(self, ids: Iterable[int]) -> Self:
        """The same without some tokens and the merges that produce them; the others move up in their order."""
        removed = set(ids)
        removed_texts = {self.texts[id] for id in removed}
        new_id = {id: new for new, id in enumerate(self.remaining(removed))}
        raw = self._parsed()
        model = raw["model"]
        model["vocab"] = {t: new_id[id] for t, id in model["vocab"].items() if id in new_id}
        for id, text in self.added_tokens.items():
            model["vocab"].setdefault(text, new_id[id])
        model["merges"] = [pair for pair in model["merges"] if "".join(pair) not in removed_texts]
        for token in raw["added_tokens"]:
            token["id"] = new_id[token["id"]]
        raw["post_processor"] = renumbered(raw["post_processor"], _ids_by_text(raw).__getitem__)
        return replace(self, content=dumped(raw))

    def remaining(self, removed: Iterable[int]) -> list[int]:
        """All ids but `removed`, in order."""
        return sorted(self.texts.keys() - set(removed))

    @property
    def tied(self) -> int:
        """None: every merge has a rank of its own."""
        return 0

    def why_no_fast_tokenizer(self) -> None:
        """None: the vocabulary is a tokenizer.json."""
        return None

    def transformers_files(
        self, source: Path, base_ids: Sequence[int] | None = None, pad: str | None = None
    ) -> dict[str, bytes]:
        """The files, by name, from which `AutoTokenizer` gives these ids; see `json_folder`."""
        raw = self._parsed()
        if self.settings is not None:
            ids = _ids_by_text(raw)
            if self.settings.processor is not None:
                raw["post_processor"] = self.settings.written_processor(ids.__getitem__)
        return json_folder.transformers_files(raw, source, self.settings, pad)


def special_token(id: int, text: str) -> dict[str, Any]:
    """An entry of `added_tokens` in tokenizer.json that is matched exactly."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": text, **flags, "special": True}


def loaded(content: str) -> Tokenizer:
    tokenizer = open_tokenizer_json(content)
    tokenizer.encode_special_tokens = True
    return tokenizer


def dumped(raw: Mapping[str, Any]) -> str:
    return json.dumps(raw, ensure_ascii=False)


def _ids_by_text(raw: Mapping[str, Any]) -> dict[str, int]:
    """The id of every token in a parsed tokenizer.json, added ones included."""
    return {**raw["model"]["vocab"], **{token["content"]: token["id"] for token in raw["added_tokens"]}}
