"""The tokenizer.json that gives SentencePiece's ids, and the folder that transformers loads.

BPE in `tokenizers` is a ranked list of merges. Unique scores define such a list. Among pieces that share a score,
SentencePiece merges the leftmost pair first, which no ranking can express (互相互 -> 互相 互, yet 相互相 -> 相互 相).
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, processors
from tokenizers.models import BPE

from zhllama.io.files import to_json
from zhllama.io.json import parse_row
from zhllama.vocab.folder_settings import AddedToken as FolderToken
from zhllama.vocab.text_steps import matched_as_words, matched_pieces, set_text_steps, why_no_steps
from zhllama.vocab.tokenizer_config import CONFIG
from zhllama.vocab.vocabulary import SPACE, Pair

if TYPE_CHECKING:
    from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary


SENTENCEPIECE = "SentencePieceBackend"  # the class of transformers 5 that calls SentencePiece itself


@dataclass(frozen=True)
class Specials:
    """Whether the tokenizer puts BOS before a text, where no folder says so, and its pad token."""

    bos: bool = True
    pad: str | None = None


def why_no_fast_tokenizer(model: "SentencePieceVocabulary") -> str | None:
    """Why no tokenizer.json can give the ids of this model, or None where one can."""
    if model.algorithm != "bpe":
        return f"it is a {model.algorithm} model"
    unused = {p.text for p in model.pieces if p.kind == "unused"}
    joinable = {*unused, *(p.text for p in model.pieces if p.kind == "normal")}
    if any(
        text[:cut] in joinable and text[cut:] in joinable for text in unused for cut in range(1, len(text))
    ):
        return "it contains unused pieces, which SentencePiece merges and takes apart again"
    tied = tied_pieces(model)
    if tied:
        return f"{tied:,} pieces share their score with another, and SentencePiece then merges from left to right"
    steps = why_no_steps(model)
    if steps is not None:
        return steps
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
        byte_fallback=bool(model.byte_ids),
        ignore_merges=matched_as_words(model),
    )
    tokenizer = Tokenizer(bpe)
    set_text_steps(tokenizer, model)
    for token in _added_tokens(model):
        flags = {key: value for key, value in token.entry().items() if key != "content"}
        add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
        add([AddedToken(token.content, **flags)])
    if model.settings is not None and model.settings.processor is not None:
        raw = {
            **parse_row(tokenizer.to_str()),
            "post_processor": model.settings.written_processor(model.ids.__getitem__),
        }
        return Tokenizer.from_str(json.dumps(raw))
    if specials.bos and model.processor.bos_id() >= 0:
        bos, id = model.processor.id_to_piece(model.processor.bos_id()), model.processor.bos_id()
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, id)]
        )
    return tokenizer


def _added_tokens(model: "SentencePieceVocabulary") -> list[FolderToken]:
    """The tokens that are matched before text is tokenized, by id: those of the folder, else the .model's own."""
    if model.settings is not None:
        tokens = [token for token in model.settings.tokens.values() if token.content in model.ids]
    else:
        tokens = [FolderToken(p.text) for p in model.pieces if p.kind in ("unknown", "control")]
    if not matched_as_words(model):
        # Matched after spaces became ▁, the longest first, as SentencePiece does.
        tokens += [FolderToken(text, special=False, normalized=True) for text in matched_pieces(model)]
    return sorted(tokens, key=lambda token: model.ids[token.content])


def transformers_files(
    model: "SentencePieceVocabulary", specials: Specials | None = None
) -> dict[str, bytes]:
    """The files, by name, with which `AutoTokenizer.from_pretrained` gives SentencePiece's ids.

    Where a fast tokenizer is exact, that is tokenizer.json with a class that loads it unchanged: `LlamaTokenizer` would
    build its own pipeline from tokenizer.model and differ. Elsewhere it is SentencePieceBackend, which calls SentencePiece.
    """
    specials = specials or Specials()
    files = {"tokenizer.model": model.content}
    exact = why_no_fast_tokenizer(model) is None
    if exact:
        files["tokenizer.json"] = (fast_tokenizer(model, specials).to_str(pretty=False) + "\n").encode()
    class_name = "PreTrainedTokenizerFast" if exact else SENTENCEPIECE
    if model.settings is not None:
        files |= model.settings.written(model.ids.__getitem__, class_name, specials.pad)
        if not exact:
            _name_the_ends(files, model)
        return files
    has_bos = specials.bos and model.processor.bos_id() >= 0
    config: dict[str, Any] = {
        "bos_token": _text_at(model, model.processor.bos_id()),
        "eos_token": _text_at(model, model.processor.eos_id()),
        "unk_token": _first_of_kind(model, "unknown"),
        "pad_token": specials.pad,
        "add_bos_token": has_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    config["tokenizer_class"] = class_name
    if not exact and has_bos:
        # transformers 5.23 reads this on loading, but save_pretrained drops it.
        config["special_tokens_pattern"] = "bos"
    files["tokenizer_config.json"] = to_json({k: v for k, v in config.items() if v is not None}).encode()
    return files


def _name_the_ends(files: dict[str, bytes], model: "SentencePieceVocabulary") -> None:
    """Say in the config which special tokens SentencePieceBackend puts around a text."""
    assert model.settings is not None
    config = parse_row(files[CONFIG])
    config["legacy"] = True  # without it this class puts no ▁ before a text
    ids = list(model.settings.tokenizer("a").input_ids)
    begin = bool(ids) and ids[0] == model.settings.tokenizer.bos_token_id
    end = bool(ids) and ids[-1] == model.settings.tokenizer.eos_token_id
    pattern: dict[tuple[bool, bool], str] = {
        (True, False): "bos",
        (True, True): "bos_eos",
        (False, True): "eos",
    }
    if begin or end:
        config["special_tokens_pattern"] = pattern[begin, end]
    files[CONFIG] = to_json(config).encode()


def _first_of_kind(model: "SentencePieceVocabulary", kind: str) -> str | None:
    return next((p.text for p in model.pieces if p.kind == kind), None)


def _text_at(model: "SentencePieceVocabulary", id: int) -> str | None:
    return model.pieces[id].text if id >= 0 else None
