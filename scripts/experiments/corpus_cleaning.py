"""Measures `zhllama corpus clean` on real text: speed of each step, rejects of each step, recall of near duplicates.

python scripts/experiments/corpus_cleaning.py --text ../shared/data/text [--only steps|clean|near]
"""

import argparse
import json
import lzma
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.corpus_noise import edited, grams, jaccard
from zhllama.corpus.clean import CleaningOptions, cleaning_steps
from zhllama.corpus.duplicates import CharacterSignature
from zhllama.corpus.edits import ConvertScript
from zhllama.corpus.filters import InScript, WithoutWords


def documents(files: list[Path]) -> Iterator[str]:
    for path in files:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            yield from (document for document in file.read().split("\n\n") if document.strip())


def steps(files: list[Path]) -> None:
    """MB/s of each step in one process on a sample of about 30 MB; the best of three rounds."""
    corpus = list(documents(files))
    texts = random.Random(1).sample(corpus, len(corpus))
    size, sample = 0, []
    for text in texts:
        sample.append(text)
        size += len(text.encode())
        if size > 30_000_000:
            break
    signature = CharacterSignature(tempfile.mkdtemp())
    functions: list[tuple[str, Callable[[str], object]]] = [
        (name, step) for name, step, _ in cleaning_steps(CleaningOptions())
    ]
    functions += [("convert t2s", ConvertScript("t2s")), ("script", InScript("simplified")),
              ("words, list of 1,000", WithoutWords((("list", tuple({text[:4] for text in texts[:1000]})),))),
              ("near: signature", lambda text: signature.get_signature(signature.get_shingles(text)))]  # fmt: skip
    for name, step in functions:
        step(sample[0])
        best = min(_seconds(step, sample) for _ in range(3))
        print(f"{name:24} {size / 1e6 / best:8.1f} MB/s of one core", flush=True)


def _seconds(step: Callable[[str], object], texts: list[str]) -> float:
    started = time.process_time()
    for text in texts:
        step(text)
    return time.process_time() - started


def clean(files: list[Path]) -> None:
    """The whole command on all files: seconds, memory, and the rejects of each step."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [
            sys.executable,
            "-P",
            "-m",
            "zhllama",
            "corpus",
            "clean",
            *map(str, files),
            "--out",
            str(out),
        ]
        started = time.monotonic()
        subprocess.run(command, check=True)
        size = sum(len(text.encode()) for text in documents(files))
        seconds = time.monotonic() - started
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{size / 1e6:.0f} MB, {seconds:.0f} s, {size / 1e6 / manifest['seconds']:.2f} MB/s; largest process {peak:.0f} MB"
        )


def near(files: list[Path], pairs: int = 2000) -> None:
    """Add near duplicates with Jaccard similarity from 0.8, half of them at 0.8, and as many decoys from 0.3 to 0.5."""
    rng = random.Random(7)
    candidates = [text.strip() for text in documents(files) if 100 <= len(text) <= 3000]
    base = rng.sample(candidates, min(len(candidates), 20_000))
    rows = [("base", number, text) for number, text in enumerate(base)]
    for number in range(pairs):
        similarity = 0.8 if number % 2 else rng.uniform(0.8, 0.97)
        rows.append(("near", number, edited(base[number], similarity, rng)))
        rows.append(("decoy", number + pairs, edited(base[number + pairs], rng.uniform(0.3, 0.49), rng)))
    rng.shuffle(rows)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.jsonl", Path(folder) / "out"
        source.write_text(
            "".join(json.dumps({"id": f"{kind} {n}", "text": t}) + "\n" for kind, n, t in rows),
            encoding="utf-8",
        )
        subprocess.run([sys.executable, "-P", "-m", "zhllama", "corpus", "clean", str(source), "--out", str(out), "--no-exact",
                        "--language", "any", "--max-repeated", "1", "--markup", "keep", "--width", "keep", "--no-mask",
                        "--no-boilerplate", "--min-chars", "1", "--json"], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        rejected = [
            json.loads(line)
            for path in (out / "rejected/near").iterdir()
            for line in path.open(encoding="utf-8")
        ]
        accepted = [
            json.loads(line)["text"]
            for path in (out / "documents").iterdir()
            for line in path.open(encoding="utf-8")
        ]
    ids = {row["id"] for row in rejected}
    detected = sum((f"base {n}" in ids) != (f"near {n}" in ids) for n in range(pairs))
    at_bound = sum((f"base {n}" in ids) != (f"near {n}" in ids) for n in range(1, pairs, 2))
    wrong = _count_unlike([row["text"] for row in rejected], accepted)
    print(f"{pairs} near duplicates: {detected / pairs:.4f} detected, {at_bound / (pairs // 2):.4f} of those at 0.8; "
          f"{len(rejected)} rejected, of which {wrong} have no accepted text with similarity 0.5")  # fmt: skip


def _count_unlike(rejected: list[str], accepted: list[str]) -> int:
    """The number of rejects without a similar accepted text; each is compared with the ten that share most n-grams."""
    texts_with: dict[str, list[int]] = {}
    for number, text in enumerate(accepted):
        for gram in grams(text):
            texts_with.setdefault(gram, []).append(number)
    unlike = 0
    for text in rejected:
        shared = Counter(number for gram in grams(text) for number in texts_with.get(gram, []))
        unlike += (
            max((jaccard(text, accepted[number]) for number, _ in shared.most_common(10)), default=0.0) < 0.5
        )
    return unlike


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--only", choices=("steps", "clean", "near"))
    args = parser.parse_args()
    files = sorted(path for path in args.text.glob("*.txt.xz") if "small" not in path.name)
    for name, measure in (("steps", steps), ("clean", clean), ("near", near)):
        if args.only in (None, name):
            measure(files)
