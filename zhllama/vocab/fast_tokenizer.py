"""The tokenizer.json that gives SentencePiece's ids, and the folder that transformers loads.

BPE in `tokenizers` is a ranked list of merges. Unique scores define such a list. Among pieces that share a score,
SentencePiece merges the leftmost pair first, which no ranking can express (互相互 -> 互相 互, yet 相互相 -> 相互 相).
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

from zhllama.io.files import to_json
from zhllama.vocab.vocabulary import SPACE, Pair

if TYPE_CHECKING:
    from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary


@dataclass(frozen=True)
class Specials:
    """Whether the tokenizer puts BOS before a text, and its pad token."""

    bos: bool = True
    pad: str | None = None


def why_no_fast_tokenizer(model: "SentencePieceVocabulary") -> str | None:
    """Why no tokenizer.json can give the ids of this model, or None where one can."""
    if model.algorithm != "bpe":
        return f"it is a {model.algorithm} model"
    tied = tied_pieces(model)
    if tied:
        return f"{tied:,} pieces share their score with another, and SentencePiece then merges from left to right"
    if model.normalizer.name != "identity" or model.normalizer.remove_extra_whitespaces:
        return "it changes the text before tokenizing it"
    if any(p.kind == "user" for p in model.pieces):
        return "it contains user-defined pieces"
    if not any(p.kind == "byte" for p in model.pieces):
        return "it has no byte fallback"
    lacking = sorted({c for p in model.pieces if p.kind == "normal" for c in p.text} - model.ids.keys())
    if lacking:
        return f"it lacks single pieces for {len(lacking)} characters of its longer ones ({''.join(lacking[:5])})"
    return None


def tied_pieces(model: "SentencePieceVocabulary") -> int:
    """How many pieces of two characters or more share their score.

    Runs of spaces do not count: they merge into the same run in any order (0 of 310,000 fuzzed strings differ).
    """
    scores = Counter(
        p.score for p in model.pieces if p.kind == "normal" and len(p.text) > 1 and p.text.strip(SPACE)
    )
    return sum(n for n in scores.values() if n > 1)


def merges(model: "SentencePieceVocabulary") -> list[Pair]:
    """Every split of every piece into two pieces, ranked by (-score, id, -length of the left half)."""
    ids = {p.text: id for id, p in enumerate(model.pieces) if p.kind == "normal"}
    ranked = []
    for text, id in ids.items():
        score = model.pieces[id].score
        for length in range(len(text) - 1, 0, -1):
            left, right = text[:length], text[length:]
            if left in ids and right in ids:
                ranked.append((-score, id, -length, left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def fast_tokenizer(model: "SentencePieceVocabulary", specials: Specials) -> Tokenizer:
    """A `tokenizers` tokenizer that gives SentencePiece's ids; `why_no_fast_tokenizer` must be None."""
    bpe = BPE(
        vocab={p.text: id for id, p in enumerate(model.pieces)},
        merges=model.merges,
        unk_token=_first_of_kind(model, "unknown"),
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(bpe)
    prefix = [normalizers.Prepend(SPACE)] if model.normalizer.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if model.normalizer.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    special = [p.text for p in model.pieces if p.kind in ("unknown", "control")]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    if specials.bos:
        bos, id = model.processor.id_to_piece(model.processor.bos_id()), model.processor.bos_id()
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, id)]
        )
    return tokenizer


def transformers_files(
    model: "SentencePieceVocabulary", specials: Specials | None = None
) -> dict[str, bytes]:
    """The files, by name, with which `AutoTokenizer.from_pretrained` gives SentencePiece's ids.

    Where a fast tokenizer is exact, that is tokenizer.json with a class that loads it unchanged: `LlamaTokenizer` would
    build its own pipeline from tokenizer.model and differ. Elsewhere it is SentencePieceBackend, which calls SentencePiece.
    """
    specials = specials or Specials()
    files = {"tokenizer.model": model.content}
    config: dict[str, Any] = {
        "bos_token": _text_at(model, model.processor.bos_id()),
        "eos_token": _text_at(model, model.processor.eos_id()),
        "unk_token": _first_of_kind(model, "unknown"),
        "pad_token": specials.pad,
        "add_bos_token": specials.bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    if why_no_fast_tokenizer(model) is None:
        tokenizer = fast_tokenizer(model, specials)
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        files["tokenizer.json"] = (tokenizer.to_str(pretty=False) + "\n").encode()
    else:
        config["tokenizer_class"] = "SentencePieceBackend"
        if specials.bos:
            # transformers 5.23 reads this on loading, but save_pretrained drops it.
            config["special_tokens_pattern"] = "bos"
    files["tokenizer_config.json"] = to_json({k: v for k, v in config.items() if v is not None}).encode()
    return files


def _first_of_kind(model: "SentencePieceVocabulary", kind: str) -> str | None:
    return next((p.text for p in model.pieces if p.kind == kind), None)


def _text_at(model: "SentencePieceVocabulary", id: int) -> str | None:
    return model.pieces[id].text if id >= 0 else None
