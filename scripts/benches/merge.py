"""Merging the published list into LLaMA's vocabulary, from two files to one, against the published script's method."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as proto

from benches import Row, log, paired, test_data
from zhllama.vocab.merge import chinese_llama
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import listed_pieces


def run(rounds: int) -> list[Row]:
    """`llama+20000` on the published files."""
    llama, chinese = (test_data() / "llama" / name for name in ("llama.model", "chinese_sp.model"))
    if not (llama.is_file() and chinese.is_file()):
        return [Row("merge", "llama+20000", "published", skipped=f"no {llama.name} at {llama.parent}")]
    return [_compare("llama+20000", llama, chinese, rounds)]


def _compare(case: str, base: Path, chinese: Path, rounds: int) -> Row:
    def ours() -> bytes:
        return chinese_llama(SentencePieceVocabulary.read(base), listed_pieces(chinese)).vocabulary.content

    theirs: Callable[[], bytes] = partial(_published, base, chinese)
    equal = ours() == theirs()
    a, b, ratios = paired(ours, theirs, rounds)
    log(f"merge: {case} " + " ".join(f"{ratio:.2f}" for ratio in ratios), equal)
    return Row("merge", case, "published", 1000 * a, 1000 * b, "ms", ratios, equal)


def _published(base: Path, chinese: Path) -> bytes:
    """The method of the published merge script, without its prints: load both models with SentencePiece, and append the
    missing pieces with score 0 (the script uses LlamaTokenizer, which is slower)."""
    merged, added = proto.ModelProto(), proto.ModelProto()
    for message, path in ((merged, base), (added, chinese)):
        processor = SentencePieceProcessor()
        processor.Load(str(path))
        message.ParseFromString(processor.serialized_model_proto())
    seen = {piece.piece for piece in merged.pieces}
    for piece in added.pieces:
        if piece.piece not in seen:
            new = proto.ModelProto.SentencePiece()
            new.piece, new.score = piece.piece, 0
            merged.pieces.append(new)
    return bytes(merged.SerializeToString())
