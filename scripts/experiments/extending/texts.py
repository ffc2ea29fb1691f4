"""What is read in training and what is kept aside: passages of the test data, split by document, drawn by a seed."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from zhllama.io.files import to_json, write_whole
from zhllama.io.text import read_documents

PASSAGE = 1200  # characters of one passage: long books are cut at line ends, so that every stretch of training is a mixture
OF_A_FILE = 400_000  # characters of Chinese that one file gives, so that no domain drowns the others
ASIDE_OF_A_FILE = 2  # documents kept aside of each Chinese file that has forty or more
MANY = 40
ENGLISH_ASIDE = 38  # passages of the one novel that is kept aside
BASE_SHARE = 0.05  # of the Chinese passages: those that the small base is trained on, and no curve
ENGLISH = "en_gutenberg.txt.xz"


@dataclass(frozen=True)
class Texts:
    """Passages, shuffled; `base_zh` and `zh` share none, nothing of `aside_*` stands in the others."""

    base_zh: list[str]
    zh: list[str]
    en: list[str]
    aside_zh: list[str]
    aside_en: list[str]


def draw(data: Path, cache: Path, seed: int = 0) -> Texts:
    """All texts, drawn once and kept in the file `cache`."""
    if cache.is_file():
        return Texts(**json.loads(cache.read_text(encoding="utf-8")))
    random = Random(seed)
    chinese, aside_zh = list[str](), list[str]()
    for file in sorted((data / "text").glob("zh_*.txt.xz")):
        if file.name.startswith("zh_small"):  # a sample of the others
            continue
        documents = list(read_documents([file]))
        random.shuffle(documents)
        if len(documents) >= MANY:
            held = [d for d in documents if len(d) >= 300][:ASIDE_OF_A_FILE]
            aside_zh += [next(passages(d)) for d in held]
            documents = [d for d in documents if d not in held]
        cut = [p for d in documents for p in passages(d)]
        random.shuffle(cut)
        chinese += up_to(cut, OF_A_FILE)
    novels = list(read_documents([data / "text" / ENGLISH]))
    held_novel = list(passages(novels.pop()))
    english = [p for novel in novels for p in passages(novel)]
    for some in (chinese, english, held_novel):
        random.shuffle(some)
    known = {line for p in aside_zh for line in p.splitlines() if len(line) >= 20}
    chinese = [p for p in chinese if known.isdisjoint(p.splitlines())]  # a translation published twice
    first = round(len(chinese) * BASE_SHARE)
    texts = Texts(chinese[:first], chinese[first:], english, aside_zh, held_novel[:ENGLISH_ASIDE])
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_whole(cache, to_json(asdict(texts)))
    return texts


def passages(document: str) -> Iterator[str]:
    """A document in runs of whole lines of about PASSAGE characters; a longer line is cut."""
    held: list[str] = []
    size = 0
    for line in document.splitlines():
        for at in range(0, len(line), PASSAGE):
            part = line[at : at + PASSAGE]
            if held and size + len(part) > PASSAGE:
                yield "\n".join(held)
                held, size = [], 0
            held.append(part)
            size += len(part)
    if held:
        yield "\n".join(held)


def up_to(texts: Sequence[str], characters: int) -> Iterator[str]:
    """The first texts that have so many characters together."""
    for text in texts:
        if characters <= 0:
            return
        yield text
        characters -= len(text)


def mixture(zh: Sequence[str], en: Sequence[str], english: float) -> Iterator[str]:
    """Both in their order, round after round without end, such that `english` is the share of bytes that are English."""
    read = {"zh": 0, "en": 0}
    at = {"zh": 0, "en": 0}
    texts = {"zh": zh, "en": en}
    while True:
        which = "en" if read["en"] * (1 - english) < read["zh"] * english else "zh"
        text = texts[which][at[which] % len(texts[which])]
        at[which] += 1
        read[which] += len(text.encode())
        yield text
