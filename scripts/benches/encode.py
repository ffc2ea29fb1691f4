"""Encoding on one core in MB of UTF-8 per second, against SentencePiece, tokenizers, gigatoken and tokie.

Each row shows the worst of four vocabularies: LLaMA's, the published Chinese-LLaMA one, and those of both recipes. One with
tied scores has no tokenizer.json, so peers that need it skip it.
"""

import lzma
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from benches import Row, byte_level, log, paired, test_data
from zhllama.encoding.encoder import Encoder
from zhllama.vocab import continued as continuing
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer, why_no_fast_tokenizer
from zhllama.vocab.merge import chinese_llama, safe
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import jieba_words, listed_pieces

CASES = {"lines": 65, "5KB": 5_000, "100KB": 100_000}  # minimum bytes of a text
PEERS = ("sentencepiece", "tokenizers", "gigatoken", "tokie")
MEGABYTE = 1e6

Encode = Callable[[list[str]], object]
Flat = Callable[[object], list[int]]


def run(rounds: int) -> list[Row]:
    """All cases against all peers."""
    data = test_data()
    if not (data / "llama" / "llama.model").is_file():
        return [Row("encode", case, peer, skipped=f"no models at {data}") for case in CASES for peer in PEERS]
    worst_rows: dict[tuple[str, str], Row] = {}
    reasons: dict[str, str] = {}
    for name, model in vocabularies(data):
        encoder = Encoder.from_model(model.content).warm_up()
        if encoder.engine != "compiled":
            log(f"encode: {name} is not compiled: {encoder.reason}")
        for peer in PEERS:
            functions = peer_functions(peer, model)
            if isinstance(functions, str):
                reasons[peer] = functions
                log(f"encode: {name} has no {peer}: {functions}")
                continue
            for case, size in CASES.items():
                row = compare(encoder, peer, *functions, case, texts(data, size), rounds)
                log(f"encode: {name} {case} {peer} " + " ".join(f"{x:.2f}" for x in row.ratios), row.equal)
                worst = worst_rows.get((case, peer), row)
                equal = bool(worst.equal and row.equal)
                slower = min(worst, row, key=lambda r: r.ratios[0])
                worst_rows[case, peer] = Row(**{**vars(slower), "equal": equal})
    rows = [(case, peer) for case in CASES for peer in PEERS]
    found = [worst_rows.get(r) or Row("encode", *r, skipped=reasons.get(r[1], "no vocabulary")) for r in rows]
    return [*found, *byte_level.run(rounds)]


def compare(
    encoder: Encoder, peer: str, encode: Encode, flat: Flat, case: str, some: list[str], rounds: int
) -> Row:
    """One vocabulary, one case, one peer."""
    ours, theirs, ratios = paired(lambda: encoder.encode_batch(some), lambda: encode(some), rounds)
    size = sum(len(text.encode()) for text in some) / MEGABYTE
    equal = encoder.encode_batch(some)[0].tolist() == flat(encode(some))
    return Row("encode", case, peer, size / ours, size / theirs, "MB/s", ratios, equal)


def vocabularies(data: Path) -> Iterator[tuple[str, SentencePieceVocabulary]]:
    """LLaMA's vocabulary, and three that extend it."""
    base = SentencePieceVocabulary.read(data / "llama" / "llama.model")
    words = listed_pieces(data / "llama" / "chinese_sp.model")
    yield "llama", base
    yield "published", chinese_llama(base, words).vocabulary
    yield "safe", safe(base, words).vocabulary
    runs = continuing.with_prior(continuing.count_runs(small_text(data).splitlines()), jieba_words(), 1.0)
    yield "continued", continuing.continued(base, runs, 49_953).vocabulary


@cache
def small_text(data: Path) -> str:
    """Five megabytes of mixed Chinese."""
    return lzma.open(data / "text" / "zh_small.txt.xz", "rt", encoding="utf-8").read()


@cache
def texts(data: Path, size: int) -> list[str]:
    """The text in parts that end with a clause or line and have at least `size` bytes."""
    parts: list[str] = []
    part, room = "", size
    for clause in re.findall(r"[^\n。！？；，]*[\n。！？；，]|[^\n。！？；，]+$", small_text(data)):
        part += clause
        room -= len(clause.encode())
        if room <= 0:
            parts.append(part.strip("\n"))
            part, room = "", size
    return parts


def peer_functions(peer: str, model: SentencePieceVocabulary) -> tuple[Encode, Flat] | str:
    """A peer's function to encode texts, and one that flattens its result to a list of ids; or why it cannot encode."""
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
    fast = fast_tokenizer(model, Specials(bos=False))
    if peer == "tokenizers":
        fast.encode_special_tokens = True
        return (
            lambda some: fast.encode_batch_fast(some, add_special_tokens=False),
            lambda encodings: _joined([e.ids for e in encodings]),
        )
    try:
        import tokie
    except ImportError as error:
        return f"not installed ({error})"
    with tempfile.TemporaryDirectory() as folder:
        fast.save(str(Path(folder) / "tokenizer.json"))
        toke = tokie.Tokenizer.from_json(str(Path(folder) / "tokenizer.json"))
    return (
        lambda some: toke.encode_batch_flat(some, add_special_tokens=False),
        lambda answer: np.asarray(answer[0]).tolist(),
    )


def _joined(lists: object) -> list[int]:
    return [id for ids in lists for id in ids]  # type: ignore[attr-defined]
