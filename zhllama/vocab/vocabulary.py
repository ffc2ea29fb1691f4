"""What every extensible vocabulary can do; SentencePiece, byte-level BPE and Metaspace BPE each implement it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from zhllama.vocab.counted_text import PieceUse
    from zhllama.vocab.folder_settings import FolderSettings

Kind = Literal["sentencepiece", "byte-level", "metaspace"]
PieceKind = Literal[
    "normal", "unknown", "control", "user", "unused", "byte"
]  # SentencePiece's names, in its order
Pair = tuple[str, str]
Recipe = Literal["chinese-llama", "safe", "continued"]
Reason = Literal["list", "intermediate", "character", "merge", "pad"]
SPACE = "\u2581"  # SentencePiece writes a space as ▁
PAD = "[PAD]"


class AddedPiece(NamedTuple):
    """A new entry of a vocabulary and why it was added; a tuple, because 20,000 of them are made for a merge.

    `text` is spelled as the vocabulary spells its pieces. SentencePiece ranks a piece by its `score`; byte-level BPE
    makes a token by the merge of its two `parts`. A "control" piece is never made from text.
    """

    text: str
    reason: Reason
    score: float = 0.0
    parts: Pair | None = None
    kind: PieceKind = "normal"


class Vocabulary(Protocol):
    """A BPE vocabulary that can be extended, pruned, audited and written."""

    @property
    def kind(self) -> Kind:
        """Which implementation this is."""

    @property
    def settings(self) -> "FolderSettings | None":
        """What AutoTokenizer makes of the folder that the vocabulary was read from; None where it names nothing."""

    @property
    def size(self) -> int:
        """One more than the last id, reserved ids and gaps included."""

    @property
    def ids(self) -> Mapping[str, int]:
        """The id of each piece, by its text as the vocabulary spells it."""

    @property
    def entries(self) -> Mapping[int, Any]:
        """Everything that defines the piece of an id; equal entries behave equally."""

    @property
    def added_tokens(self) -> Mapping[int, str]:
        """Tokens that no merge produces: special tokens, and those matched before text is tokenized."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The special tokens in the order of their ids."""

    @property
    def fallback_ids(self) -> frozenset[int]:
        """Pieces that are less than a character: single bytes, or fragments of a character."""

    @property
    def merges(self) -> Sequence[Pair]:
        """The ranked merges, first come first."""

    @property
    def removable(self) -> set[int]:
        """Ids that pruning may remove without making any text impossible to write."""

    def normalized(self, lines: Iterable[str]) -> Iterator[str]:
        """Each line, as a part of a text, as its merges see it; a space is a space."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""

    def encode_by_merges(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text by merges alone, without shortcuts for whole words."""

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        """The text of each list of ids."""

    def display(self, id: int) -> str:
        """A piece as people read it: spaces as ▁, parts of a character as <E4BD>."""

    def has_character(self, character: str) -> bool:
        """Whether a character is a piece by itself."""

    def dead(self, ids: Iterable[int]) -> list[int]:
        """Those of `ids` that no sequence of merges can produce."""

    def split(self, ids: Iterable[int]) -> list[int]:
        """Those of `ids` whose text is split or changed before any merge is applied."""

    def expansion(self, base: Self) -> Mapping[int, tuple[int, ...]] | None:
        """Each id as ids of `base`, where every added piece only joins pieces of the base; None where that is not so."""

    def fuzz_pieces(self) -> Sequence[str]:
        """The text of all ordinary pieces, from which fuzzed strings are made; the added ones come last."""

    def extended(self, added: Iterable[AddedPiece]) -> Self:
        """The same vocabulary with more pieces after its last id."""

    def without(self, ids: Iterable[int]) -> Self:
        """The same vocabulary without some pieces; the others move up in their order."""

    def remaining(self, removed: Iterable[int]) -> list[int]:
        """All ids but `removed`, in order."""

    @property
    def tied(self) -> int:
        """How many pieces share their rank with another, so that no list of merges can rank them."""

    def why_no_fast_tokenizer(self) -> str | None:
        """Why no `tokenizer.json` can give this vocabulary's ids, or None where one can."""

    def table_row(self, piece: AddedPiece) -> dict[str, str]:
        """The cells of an added piece in added.tsv, by column."""

    def transformers_files(
        self, source: Path, base_ids: Sequence[int] | None = None, pad: str | None = None
    ) -> dict[str, bytes]:
        """The files, by name, from which `AutoTokenizer` gives these ids; `settings` are carried over.

        `source` is the file of the base vocabulary; `base_ids` are its ids that pruning left, in their new order.
        """


V = TypeVar("V", bound=Vocabulary)
V_co = TypeVar("V_co", bound=Vocabulary, covariant=True)


@dataclass(frozen=True)
class Merge(Generic[V_co]):
    """A base vocabulary, the pieces added to it, the words left out as (word, reason), and the base ids removed by pruning."""

    recipe: Recipe
    base: V_co
    added: tuple[AddedPiece, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    removed: tuple[int, ...] = ()
    # The use of the added pieces in the text that they were trained on, by their text with spaces for ▁.
    uses: Mapping[str, "PieceUse"] = field(default_factory=dict, compare=False)
    exclude: frozenset[str] = frozenset()  # texts, with spaces for ▁, that were not to become pieces
    pad_requested: bool = False  # whether `[PAD]` is to be the pad token, where the base has it in no role

    @cached_property
    def vocabulary(self) -> V_co:
        """The merged vocabulary."""
        base = self.base.without(self.removed) if self.removed else self.base
        return base.extended(self.added)

    @property
    def base_ids(self) -> list[int]:
        """The ids of the base that remain, in their new order."""
        return self.base.remaining(self.removed)

    @property
    def pad(self) -> str | None:
        """`[PAD]` where it was added; else the base's own pad token, or a piece `[PAD]` of a base without settings, or on request."""
        if any(piece.reason == "pad" for piece in self.added):
            return PAD
        settings = self.base.settings
        if settings is not None and (settings.pad is not None or not self.pad_requested):
            return settings.pad
        return PAD if PAD in {*self.base.ids, *self.base.added_tokens.values()} else None

    def counts(self) -> dict[str, int]:
        """How many pieces were added, by reason."""
        return dict(Counter(piece.reason for piece in self.added))
