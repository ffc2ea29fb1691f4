"""zhllama.encoding.encoder gives SentencePiece's ids, whichever engine does the work."""

import importlib.util
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhllama.encoding import encoder as encode
from zhllama.encoding import gigatoken
from zhllama.encoding.encoder import Encoder
from zhllama.encoding.tables import find_pairs
from zhllama.errors import InputError
from zhllama.vocab.any_tokenizer import load_any_tokenizer
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer
from zhllama.vocab.fuzz import fuzzed
from zhllama.vocab.merge import chinese_llama, safe
from zhllama.vocab.sentencepiece_vocabulary import Piece, SentencePieceVocabulary
from zhllama.vocab.word_lists import listed_pieces

LINES = [
    "人工智能是计算机科学、心理学、哲学等学科融合的交叉学科。",
    "中华人民共和国的人民，人民的共和国。 互相互相 相互",
    "the cat sat on the mat, and that was that; aaaa abab baba",
    "  1234 5678  中国人 中国 人中 国人  ",
] * 8

# What has broken tokenizers: nothing, spaces, ▁ itself, NUL, controls, names of pieces, planes above the first, joiners.
ODD = [
    "", " ", "  ", "▁", "▁ ▁", " ▁", "a▁", "\0", "a\0b\0", "\x01\x7f\x9f", "<s></s><unk><0x41>", "\ufeff中", "\ufffd",
    "𠀀𪛖𠀀", "👩‍👩‍👧🇨🇳", "e\u0301é", "\r\n\t\n", "\u3000 \u00a0\u2028", "人" * 31, "人" * 32, "人" * 33, "a" * 500, "ab" * 300,
    "互相互相互" * 40, " " * 200, "\U0010ffff",
]  # fmt: skip

needs_gigatoken = pytest.mark.skipif(
    importlib.util.find_spec("gigatoken") is None, reason="gigatoken is not installed"
)
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


def trained(**options: object) -> SentencePieceVocabulary:
    """A few hundred pieces, trained on LINES."""
    out = io.BytesIO()
    settings = {
        "vocab_size": 400, "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
        "character_coverage": 1.0, "hard_vocab_limit": False, "minloglevel": 2, "split_by_whitespace": False,
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=out, **{**settings, **options}
    )
    return SentencePieceVocabulary(out.getvalue())


def changed(model: SentencePieceVocabulary, change: Callable[[object], None]) -> SentencePieceVocabulary:
    """The model with its protocol buffer altered."""
    message = sentencepiece.sentencepiece_model_pb2.ModelProto.FromString(model.content)
    change(message)
    return SentencePieceVocabulary(message.SerializeToString())


def tied(message: object) -> None:
    for piece in message.pieces:
        piece.score = 0.0


def shuffled(message: object) -> None:
    chance = random.Random(3)
    for piece in message.pieces:
        piece.score = chance.choice([0.0, -1.0, 2.5, -1e9, chance.random()])


def thinned(message: object) -> None:
    """Without a third of the pieces: characters that stand only inside longer ones, and pieces without a path."""
    chance = random.Random(4)
    kept = [bytes(p.SerializeToString()) for p in message.pieces if p.type != 1 or chance.random() < 0.66]
    del message.pieces[:]
    for piece in kept:
        message.pieces.add().ParseFromString(piece)
    for piece in message.pieces:
        piece.score = round(piece.score / 40)


def without_space(message: object) -> None:
    next(piece for piece in message.pieces if piece.piece == "▁").piece = "☃"


def fuzz(model: SentencePieceVocabulary, count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    pieces = [p.text for p in model.pieces if p.kind == "normal"]
    found = [*ODD, *fuzzed(model.fuzz_pieces(), count * 4 // 5, seed)]
    for _ in range(count // 5):
        parts = chance.choices(pieces[-2000:], k=chance.randint(1, 8))
        found.append(chance.choice(["", "\0", "▁", "中"]).join(parts) * chance.randint(1, 9))
    return found


def flat(lists: Sequence[Sequence[int]]) -> list[int]:
    return [id for ids in lists for id in ids]


def differing(encoder: Encoder, model: SentencePieceVocabulary, texts: list[str]) -> list[str]:
    """The texts that the encoder does not cut as SentencePiece does."""
    ids, offsets = encoder.encode_batch(texts)
    assert ids.dtype == np.int32 and offsets.dtype == np.int64 and len(offsets) == len(texts) + 1
    assert offsets[0] == 0 and offsets[-1] == len(ids)
    right = model.processor.encode(texts)
    return [t for k, t in enumerate(texts) if ids[offsets[k] : offsets[k + 1]].tolist() != right[k]]


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch goes through the compiled loops, however small."""
    monkeypatch.setattr(encode, "SMALL", 0)


def compiled(model: SentencePieceVocabulary) -> Encoder:
    encoder = Encoder.from_model(model.content).warm_up()
    assert (encoder.engine, encoder.reason) == ("compiled", None)
    return encoder


# Shape of a vocabulary -> how it is made of a trained one.
SHAPES = {
    "as trained": {},
    "spaces kept": {"remove_extra_whitespaces": False},
    "no dummy prefix": {"add_dummy_prefix": False},
    "text as it is": {"add_dummy_prefix": False, "remove_extra_whitespaces": False},
}


@needs_numba
@pytest.mark.parametrize(
    "change", [None, tied, shuffled, thinned, without_space], ids=lambda c: c.__name__ if c else "unchanged"
)
@pytest.mark.parametrize("shape", SHAPES)
def test_trained_vocabularies_are_cut_as_by_sentencepiece(shape, change, loops):
    model = trained(**SHAPES[shape])
    model = changed(model, change) if change else model
    assert differing(compiled(model), model, fuzz(model, 400)) == []


@needs_numba
@pytest.mark.parametrize("recipe", ["llama", "published", "safe"])
def test_real_vocabularies_are_cut_as_by_sentencepiece(recipe, data, loops):
    base = SentencePieceVocabulary.read(data / "llama" / "llama.model")
    words = listed_pieces(data / "llama" / "chinese_sp.model")
    model = {"llama": lambda: base, "published": lambda: chinese_llama(base, words).vocabulary,
             "safe": lambda: safe(base, words).vocabulary}[recipe]()  # fmt: skip
    assert differing(compiled(model), model, fuzz(model, 7000, seed=len(recipe))) == []


@pytest.fixture(scope="module")
def tie_model() -> SentencePieceVocabulary:
    return changed(trained(remove_extra_whitespaces=False), tied)


@needs_numba
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.one_of(st.sampled_from(sorted(set("".join(LINES)))), st.characters(codec="utf-8")))
    )
)
def test_any_batch_is_cut_as_by_sentencepiece(tie_model, loops, texts):
    assert differing(compiled(tie_model), tie_model, texts) == []


@needs_numba
def test_among_equal_scores_the_leftmost_pair_wins(tie_model, loops):
    model = tie_model.extended(Piece(text, 0.0) for text in ("互相", "相互") if text not in tie_model.ids)
    cut = [model.processor.encode(text, out_type=str) for text in ("人互相互", "人相互相")]
    assert [pieces[-2:] for pieces in cut] == [["互相", "互"], ["相互", "相"]]
    assert differing(compiled(model), model, ["互相互", "相互相", "互相互相互相互" * 9]) == []


@needs_numba
def test_a_text_without_any_split_takes_no_square_time(tie_model, loops):
    texts = ["a" * 300_000, "人民共和国" * 60_000, " " * 300_000, "互相" * 150_000]
    assert differing(compiled(tie_model), tie_model, texts) == []


@needs_numba
def test_blocks_and_threads_change_nothing(tie_model, loops, monkeypatch):
    texts = fuzz(tie_model, 500)
    encoder = compiled(tie_model)
    whole, offsets = encoder.encode_batch(texts)
    monkeypatch.setattr(encode, "BLOCK", 100)
    for workers in (1, 3):
        ids, again = encoder.encode_batch(texts, workers=workers)
        assert np.array_equal(ids, whole) and np.array_equal(again, offsets)


@pytest.mark.parametrize("warm", [pytest.param(True, marks=needs_numba), False])
def test_empty_batches_and_texts(tie_model, loops, warm):
    encoder = Encoder.from_model(tie_model.content)
    encoder = encoder.warm_up() if warm else encoder
    for texts, offsets in (([], [0]), ([""], [0, 0]), (["", "", "人", ""], None)):
        ids, found = encoder.encode_batch(texts)
        assert ids.dtype == np.int32 and found.dtype == np.int64
        assert found.tolist() == (offsets or [0, 0, 0, len(ids), len(ids)])
    assert encoder.encode("").tolist() == []
    assert encoder.encode("人民").tolist() == tie_model.processor.encode("人民")


def test_without_numba_sentencepiece_does_it_to_the_same_ids(tie_model, loops, monkeypatch):
    present = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "numba" else present(name, *a)
    )
    monkeypatch.setattr(encode, "WORTH_LOADING", 0)
    encoder = Encoder.from_model(tie_model.content).warm_up()
    assert encoder.engine == "sentencepiece" and "[fast]" in str(encoder.reason)
    assert differing(encoder, tie_model, fuzz(tie_model, 300)) == []


@needs_numba
def test_the_loops_are_loaded_once_enough_text_has_come(tie_model, monkeypatch):
    monkeypatch.setattr(encode, "WORTH_LOADING", 5000)
    monkeypatch.delitem(__import__("sys").modules, "zhllama.encoding.kernel", raising=False)
    encoder = Encoder.from_model(tie_model.content)
    assert differing(encoder, tie_model, LINES * 2) == [] and encoder._tables is None
    assert differing(encoder, tie_model, LINES * 9) == [] and encoder._tables is not None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_type": "unigram"}, "not BPE"),
        ({"byte_fallback": False}, "byte fallback"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalizes"),
        ({"user_defined_symbols": ["<image>"]}, "user-defined"),
        ({"treat_whitespace_as_suffix": True}, "spaces"),
        ({"control_symbols": ["☃"]}, "control piece"),
    ],
)
def test_other_models_are_left_to_sentencepiece_and_say_why(options, reason, loops):
    model = trained(**options)
    encoder = Encoder.from_model(model.content).warm_up()
    assert encoder.engine == "sentencepiece" and reason in str(encoder.reason)
    assert differing(encoder, model, ["１２ ＡＢ <image> ☃", *fuzz(model, 200)]) == []


def byte_level(folder: Path, kind: str, change: Callable[[dict[str, Any]], None] = lambda raw: None) -> Path:
    """A small byte-level tokenizer.json of some kind."""
    from tests.test_byte_level_vocabulary import trained as byte_level_base

    raw = json.loads(byte_level_base(kind).to_str())
    change(raw)
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    return folder / "tokenizer.json"


def _without_a_byte(raw: dict[str, Any]) -> None:
    raw["model"]["vocab"].pop("ĉ")  # a tab
    raw["model"]["merges"] = [pair for pair in raw["model"]["merges"] if "ĉ" not in "".join(pair)]


def _plain(raw: dict[str, Any]) -> None:
    pass


@needs_gigatoken
@pytest.mark.parametrize(
    ("kind", "change"),
    [*((kind, _plain) for kind in ("llama3", "qwen", "smollm2")), ("smollm2", _without_a_byte)],
)
def test_gigatoken_gives_the_ids_of_tokenizers(kind: str, change: Callable[..., None], tmp_path: Path):
    tokenizer = load_any_tokenizer(byte_level(tmp_path / "t", kind, change))
    encoder = Encoder(tokenizer).warm_up()
    assert (encoder.engine, encoder.reason) == ("gigatoken", None)
    texts = [
        *ODD,
        *LINES,
        "<|begin|>one<|end|><reserved 1><|endoftext|>",
        "a\tb\t\tc",
        "in 2024,  12 ３x², 7",
        *fuzzed(LINES, 300, 3),
    ]
    ids, offsets = encoder.encode_batch(texts)
    expected = tokenizer.encode(texts)
    assert ids.tolist() == flat(expected) and np.diff(offsets).tolist() == list(map(len, expected))
    assert ids.dtype == np.int32 and encoder.encode_batch([])[1].tolist() == [0]
    with pytest.raises(InputError, match="text 2: contains an unpaired surrogate"):
        encoder.encode_batch(["a", "b\ud800"])


@needs_gigatoken
def test_gigatoken_is_left_where_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any):
    """By a probe of odd strings, special tokens and fuzz, and by the text's own first documents."""
    file = byte_level(tmp_path / "t", "qwen")
    right = gigatoken.Gigatoken.encode

    def wrong(self: Any, texts: Sequence[str]) -> Any:
        ids, offsets = right(self, texts)
        return ids + np.int32(any("rare" in text for text in texts)), offsets

    monkeypatch.setattr(gigatoken.Gigatoken, "encode", wrong)
    texts = ["a rare text", "中国"]
    encoder = Encoder.open(file).warm_up()
    assert encoder.engine == "gigatoken"
    assert encoder.encode_batch(texts)[0].tolist() == flat(load_any_tokenizer(file).encode(texts))
    assert encoder.engine == "tokenizers" and "differs from `tokenizers` on 'a rare text'" in str(
        encoder.reason
    )
    assert "Texts are encoded by `tokenizers`" in caplog.text
    monkeypatch.setattr(
        gigatoken.Gigatoken, "encode", lambda self, texts: right(self, [t.strip() for t in texts])
    )
    encoder = Encoder.open(file).warm_up()
    assert encoder.engine == "tokenizers" and "on ' '" in str(encoder.reason)
    unknown = byte_level(tmp_path / "b", "deepseek")  # a pattern that gigatoken does not have
    assert "gigatoken cannot open the tokenizer" in str(Encoder.open(unknown).warm_up().reason)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "[fast]" in str(Encoder.open(file).reason)


@needs_gigatoken
def test_gigatoken_is_opened_when_enough_text_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "WORTH_PROBING", 1000)
    encoder = Encoder.open(byte_level(tmp_path / "t", "qwen"))
    for engine in ("tokenizers", "tokenizers", "gigatoken"):
        encoder.encode_batch(["中国" * 200])
        assert encoder.engine == engine


def test_a_tokenizer_json_goes_through_tokenizers(tmp_path: Path):
    model = trained(remove_extra_whitespaces=False)
    fast_tokenizer(model, Specials()).save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder.open(tmp_path).warm_up()
    assert encoder.engine == "tokenizers" and encoder.reason
    texts = [text for text in fuzz(model, 300) if text]
    ids, offsets = encoder.encode_batch(texts)
    assert ids.tolist() == flat(model.processor.encode(texts))
    assert np.diff(offsets).tolist() == [len(cut) for cut in model.processor.encode(texts)]


def test_a_folder_is_opened_by_its_tokenizer_model(tie_model, tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(tie_model.content)
    assert Encoder.open(tmp_path).encode("人民").tolist() == tie_model.processor.encode("人民")


@pytest.mark.parametrize("warm", [pytest.param(True, marks=needs_numba), False])
@pytest.mark.parametrize("texts", [["ab\udc80"], ["人民", "ab\udc80" + "c" * 2000]])
def test_half_a_surrogate_pair_is_refused_by_its_place(tie_model, texts, warm):
    encoder = Encoder.from_model(tie_model.content)
    encoder = encoder.warm_up() if warm else encoder
    with pytest.raises(
        InputError, match=rf"text {len(texts)}: contains an unpaired surrogate \(U\+DC80\) at character 3"
    ):
        encoder.encode_batch(texts)


@pytest.mark.parametrize("wrong", ["人民", [None], [3], None])
def test_what_is_no_list_of_texts_is_a_type_error(tie_model, wrong):
    with pytest.raises(TypeError):
        Encoder.from_model(tie_model.content).encode_batch(wrong)


def test_what_is_no_model_is_told(tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(b"no model at all")
    with pytest.raises(InputError):
        Encoder.open(tmp_path)
    with pytest.raises(InputError):
        Encoder.open(tmp_path / "absent.model")


def test_pieces_that_no_merge_reaches_join_nothing():
    # "abc" has no path: neither ab nor bc is a piece. "de" is made of d and of e, which is no piece itself.
    pairs = find_pairs({"a": 0, "b": 1, "c": 2, "abc": 3, "d": 4, "de": 5}, nothing=6)
    assert pairs.merges.tolist() == [[4, 7, 5]]
    assert pairs.letters == ["d", "e"] and pairs.neighbors.tolist() == [[1, 2, 5]]
    assert pairs.strays == ["e"]
