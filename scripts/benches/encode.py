"""Text to ids on one core: MB of UTF-8 a second, beside SentencePiece, tokenizers, gigatoken and tokie.

Each row is the worst vocabulary of LLaMA's, the published Chinese-LLaMA one, and ours of both recipes; those with ties
at score 0 have no tokenizer.json, so the peers that read one skip them.
"""

import lzma
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from benches import Row, paired, tell, test_data
from zhllama.encoding.encoder import Encoder
from zhllama.vocab import continued as continuing
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer, why_no_fast_tokenizer
from zhllama.vocab.merge import chinese_llama, safe
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import jieba_words, listed_pieces

CASES = {"lines": 65, "5KB": 5_000, "100KB": 100_000}  # bytes a text, at least
PEERS = ("sentencepiece", "tokenizers", "gigatoken", "tokie")
MEGABYTE = 1e6

Encode = Callable[[list[str]], object]
Flat = Callable[[object], list[int]]


def run(rounds: int) -> list[Row]:
    """All cases against all peers."""
    data = test_data()
    if not (data / "llama" / "llama.model").is_file():
        return [Row("encode", case, peer, skipped=f"no models at {data}") for case in CASES for peer in PEERS]
    found: dict[tuple[str, str], Row] = {}
    reasons: dict[str, str] = {}
    for name, model in vocabularies(data):
        encoder = Encoder.from_model(model.content).warm_up()
        if encoder.engine != "compiled":
            tell(f"encode: {name} is not compiled: {encoder.reason}")
        for peer in PEERS:
            made = engine(peer, model)
            if isinstance(made, str):
                reasons[peer] = made
                tell(f"encode: {name} has no {peer}: {made}")
                continue
            for case, size in CASES.items():
                row = compare(encoder, peer, *made, case, texts(data, size), rounds)
                tell(f"encode: {name} {case} {peer} " + " ".join(f"{x:.2f}" for x in row.ratios), row.equal)
                worst = found.get((case, peer), row)
                equal = bool(worst.equal and row.equal)
                kept = min(worst, row, key=lambda r: r.ratios[0])
                found[case, peer] = Row(**{**vars(kept), "equal": equal})
    rows = [(case, peer) for case in CASES for peer in PEERS]
    return [found.get(r) or Row("encode", *r, skipped=reasons.get(r[1], "no vocabulary")) for r in rows]


def compare(
    encoder: Encoder, peer: str, encode: Encode, flat: Flat, case: str, some: list[str], rounds: int
) -> Row:
    """One vocabulary, one case, one peer."""
    ours, theirs, ratios = paired(lambda: encoder.encode_batch(some), lambda: encode(some), rounds)
    size = sum(len(text.encode()) for text in some) / MEGABYTE
    equal = encoder.encode_batch(some)[0].tolist() == flat(encode(some))
    return Row("encode", case, peer, size / ours, size / theirs, "MB/s", ratios, equal)


def vocabularies(data: Path) -> Iterator[tuple[str, SentencePieceVocabulary]]:
    """The four that this project is about."""
    base = SentencePieceVocabulary.read(data / "llama" / "llama.model")
    words = listed_pieces(data / "llama" / "chinese_sp.model")
    yield "llama", base
    yield "published", chinese_llama(base, words).vocabulary
    yield "safe", safe(base, words).vocabulary
    runs = continuing.with_prior(continuing.count_runs(small_text(data).splitlines()), jieba_words(), 1.0)
    yield "continued", continuing.continued(base, runs, 49_953).model


@cache
def small_text(data: Path) -> str:
    """Five megabytes of mixed Chinese."""
    return lzma.open(data / "text" / "zh_small.txt.xz", "rt", encoding="utf-8").read()


@cache
def texts(data: Path, size: int) -> list[str]:
    """The text in pieces that end with a clause or line and have `size` bytes or a little more."""
    done: list[str] = []
    held, room = "", size
    for clause in re.findall(r"[^\n。！？；，]*[\n。！？；，]|[^\n。！？；，]+$", small_text(data)):
        held += clause
        room -= len(clause.encode())
        if room <= 0:
            done.append(held.strip("\n"))
            held, room = "", size
    return done


def engine(peer: str, model: SentencePieceVocabulary) -> tuple[Encode, Flat] | str:
    """How a peer encodes, and how its answer becomes one list of ids; or why it cannot."""
    if peer == "sentencepiece":
        processor = model.processor
        return (lambda some: processor.encode(some, num_threads=1)), _joined
    if peer == "gigatoken":
        try:
            import gigatoken
        except ImportError as error:
            return f"not installed ({error})"
        giga = gigatoken.Tokenizer.from_sentencepiece(model.content)
        return (lambda some: giga.encode_batch(some, parallel=False)), lambda ids: _joined(ids.to_list())
    reason = why_no_fast_tokenizer(model)
    if reason:
        return reason
    twin = fast_tokenizer(model, Specials(bos=False))
    if peer == "tokenizers":
        twin.encode_special_tokens = True
        return (
            lambda some: twin.encode_batch_fast(some, add_special_tokens=False),
            lambda encodings: _joined([e.ids for e in encodings]),
        )
    try:
        import tokie
    except ImportError as error:
        return f"not installed ({error})"
    with tempfile.TemporaryDirectory() as folder:
        twin.save(str(Path(folder) / "tokenizer.json"))
        toke = tokie.Tokenizer.from_json(str(Path(folder) / "tokenizer.json"))
    return (
        lambda some: toke.encode_batch_flat(some, add_special_tokens=False),
        lambda answer: np.asarray(answer[0]).tolist(),
    )


def _joined(lists: object) -> list[int]:
    return [id for ids in lists for id in ids]  # type: ignore[attr-defined]
