"""Compares the published method with continued BPE on equal text, trained on half of the domains, measured on the rest.

    python scripts/experiments/continued.py [DATA]

DATA is the folder of test data (by default ../shared/data): llama/llama.model and text/zh_*.txt.xz. Sorted by
name, every other file is for training; characters per token are the mean over the remaining files.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from zhllama.io.text import read_lines
from zhllama.vocab.audit import audit
from zhllama.vocab.continued import continued, count_runs
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer, why_no_fast_tokenizer
from zhllama.vocab.merge import chinese_llama, safe
from zhllama.vocab.sample import sample_lines
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.train import train_on_text, train_on_words
from zhllama.vocab.vocabulary import Merge
from zhllama.vocab.word_lists import jieba_words

SIZE, SAMPLE, PER_DOMAIN, FUZZ = 49_953, 40_000_000, 2_000_000, 20_000


def compare(data: Path) -> dict[str, dict[str, Any]]:
    """The figures of each method, by name."""
    base = SentencePieceVocabulary.read(data / "llama" / "llama.model")
    files = [f for f in sorted((data / "text").glob("zh_*.txt.xz")) if "small" not in f.name]
    lines = sample_lines(read_lines(files[::2]), SAMPLE, seed=0).lines
    validation = {f.name: sample_lines(read_lines([f]), PER_DOMAIN, seed=0).lines for f in files[1::2]}
    english = {"en": list(read_lines([data / "text" / "en_gutenberg.txt.xz"]))}
    runs = count_runs(lines)
    bpe = [p.text for p in train_on_text(lines, 20_000).model.pieces]
    unigram = [p.text for p in train_on_text(lines, 20_000, "unigram").model.pieces]
    jieba = [p.text for p in train_on_words(20_000).model.pieces]
    published = [p.text for p in SentencePieceVocabulary.read(data / "llama" / "chinese_sp.model").pieces]
    methods = {
        "published list (20 GB)": chinese_llama(base, published),
        "published list, safe": safe(base, published),
        "published method": chinese_llama(base, bpe),
        "published method, unigram": chinese_llama(base, unigram),
        "safe": safe(base, bpe),
        "continued": continued(base, runs, SIZE, jieba_words(), 0.1),
        "continued, no prior": continued(base, runs, SIZE),
        "continued, coverage .9995": continued(base, runs, SIZE, jieba_words(), 0.1, coverage=0.9995),
        "jieba's list alone, safe": safe(base, jieba),
    }
    return {name: figures(merge, base, validation | english) for name, merge in methods.items()}


def figures(merge: Merge, base: SentencePieceVocabulary, texts: dict[str, list[str]]) -> dict[str, Any]:
    """The figures from the audit of one method."""
    model = merge.vocabulary
    fast = fast_tokenizer(model, Specials()) if why_no_fast_tokenizer(model) is None else None
    if fast is not None:
        fast.encode_special_tokens = True
    result = audit(model, base, texts, fuzz=FUZZ, fast_tokenizer=fast)
    ratios = [t.characters / t.tokens for name, t in result.texts.items() if name != "en"]
    return {
        "pieces": result.size,
        "characters per token": round(sum(ratios) / len(ratios), 4),
        "dead": len(result.dead),
        "drift": result.drift.differ,
        "parity": result.parity.differ + result.fuzz.differ if fast is not None else None,
    }


if __name__ == "__main__":
    data = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ZHLLAMA_TEST_DATA", "../shared/data"))
    print(json.dumps(compare(data), ensure_ascii=False, indent=2))
