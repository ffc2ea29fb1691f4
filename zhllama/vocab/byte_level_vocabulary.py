"""A byte-level BPE vocabulary: read, extended, pruned, and written back as a tokenizer.json.

Llama 3, Qwen, SmolLM2, DeepSeek and Mistral's Tekken are of this kind: a pattern splits text into words, each word is
spelled as bytes, and ranked merges join the bytes. Tokens are written in GPT-2's stand-in characters.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer
from tokenizers.models import BPE

from zhllama.errors import InputError
from zhllama.io.json import as_object, parse_json
from zhllama.vocab import byte_level_folder
from zhllama.vocab.any_tokenizer import JsonTokenizer
from zhllama.vocab.folder_settings import FolderSettings, read_folder_settings, renumbered
from zhllama.vocab.tokenizer_json import open_tokenizer_json
from zhllama.vocab.byte_level_json import BYTE_OF, spelled
from zhllama.vocab.vocabulary import SPACE, AddedPiece, Kind, Pair

BATCH = 20_000  # texts tokenized in one call


@dataclass(frozen=True)
class ByteLevelVocabulary:
    """A `Vocabulary` from the content of a byte-level tokenizer.json and the settings of its folder."""

    content: str = field(repr=False)
    settings: FolderSettings | None = field(default=None, compare=False, repr=False)

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

    @property
    def removable(self) -> set[int]:
        """All tokens but single bytes and added tokens."""
        return {id for text, id in self.ids.items() if len(text) > 1}

    @cached_property
    def merges(self) -> list[Pair]:
        """The merges by rank; a vocabulary made from ranks has several that produce the same token."""
        return [(left, right) for left, right in self._json["model"]["merges"]]

    @property
    def size(self) -> int:
        """One more than the last id, reserved ones included."""
        return max(self.texts, default=-1) + 1

    @cached_property
    def fallback_ids(self) -> frozenset[int]:
        """Tokens that are not whole characters: bytes and fragments of characters."""
        return frozenset(id for text, id in self.ids.items() if readable(text) is None)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """`tokenizers` on this vocabulary; special tokens in a text are read as text."""
        return _loaded(self.content)

    @cached_property
    def tokenizer_by_merges(self) -> Tokenizer:
        """The same by merges alone: without Llama 3's `ignore_merges`, which looks a whole word up first."""
        if not self._json["model"].get("ignore_merges"):
            return self.tokenizer
        return _loaded(_dumped({**self._json, "model": {**self._json["model"], "ignore_merges": False}}))

    @cached_property
    def bare_tokenizer(self) -> Tokenizer:
        """The merges alone, applied to a word in stand-in characters, without pattern and normalizer."""
        return Tokenizer(BPE(vocab=self._json["model"]["vocab"], merges=self.merges))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_by_merges(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text by merges alone, whatever `ignore_merges` says."""
        return [
            e.ids for e in self.tokenizer_by_merges.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        """The text of each list of ids."""
        return self.tokenizer.decode_batch([list(one) for one in ids], skip_special_tokens=False)

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
        """Those of `ids` that are whole text which the normalizer changes or the pattern splits."""
        ordinary = (id for id in ids if id not in self.added_tokens)
        whole = [(id, text) for id in ordinary if (text := readable(self.texts[id]))]
        return [id for id, text in whole if self.words(text) != [self.texts[id]]]

    def text_of(self, ids: Iterable[int]) -> str:
        """The text of several tokens together, which must be whole characters."""
        text = readable("".join(map(self.texts.__getitem__, ids)))
        assert text is not None
        return text

    def words(self, text: str) -> list[str]:
        """The words, in stand-in characters, into which normalizer and pattern split a text."""
        normalized = self.tokenizer.normalizer.normalize_str(text) if self.tokenizer.normalizer else text
        pattern = self.tokenizer.pre_tokenizer
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
        return ByteLevelVocabulary(_dumped(raw), self.settings)

    def in_folder(self, settings: FolderSettings) -> "ByteLevelVocabulary":
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
        return ByteLevelVocabulary(_dumped(raw), settings)

    def without(self, ids: Iterable[int]) -> "ByteLevelVocabulary":
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
        return ByteLevelVocabulary(_dumped(raw), self.settings)

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

    def table_row(self, piece: AddedPiece) -> dict[str, str]:
        """An added token, the two tokens that its merge joins, and the reason."""
        left, right = piece.parts or ("", "")
        return {
            "token": readable(piece.text) or piece.text,
            "left": left,
            "right": right,
            "why": piece.reason,
        }

    def transformers_files(
        self, source: Path, base_ids: Sequence[int] | None = None, pad: str | None = None
    ) -> dict[str, bytes]:
        """The files, by name, from which `AutoTokenizer` gives these ids; see `byte_level_folder`."""
        raw = self._parsed()
        if self.settings is not None:
            ids = _ids_by_text(raw)
            if self.settings.processor is not None:
                raw["post_processor"] = self.settings.written_processor(ids.__getitem__)
        return byte_level_folder.transformers_files(raw, source, self.settings, pad)


def readable(token: str) -> str | None:
    """The text of stand-in characters, or None where they are not whole characters."""
    try:
        return bytes(map(BYTE_OF.__getitem__, token)).decode()
    except (KeyError, UnicodeDecodeError):
        return None


def special_token(id: int, text: str) -> dict[str, Any]:
    """An entry of `added_tokens` in tokenizer.json that is matched exactly."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": text, **flags, "special": True}


def _loaded(content: str) -> Tokenizer:
    tokenizer = open_tokenizer_json(content)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _dumped(raw: Mapping[str, Any]) -> str:
    return json.dumps(raw, ensure_ascii=False)


def _contains_step(step: Any, kind: str) -> bool:
    """Whether a step of the pipeline is of a kind, or contains one that is."""
    if not isinstance(step, dict):
        return False
    return step.get("type") == kind or any(_contains_step(s, kind) for s in step.get("pretokenizers", ()))


def _ids_by_text(raw: Mapping[str, Any]) -> dict[str, int]:
    """The id of every token in a parsed tokenizer.json, added ones included."""
    return {**raw["model"]["vocab"], **{token["content"]: token["id"] for token in raw["added_tokens"]}}
