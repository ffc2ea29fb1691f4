"""Draws training and validation passages from the test data with a seed, split by document."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random

from zhllama.io.files import to_json, write_whole
from zhllama.io.text import read_documents

PASSAGE = 1200  # characters of a passage; books are split at line ends, so that training text is mixed
OF_A_FILE = 400_000  # maximum characters from one Chinese file, so that no domain dominates
VALIDATION_PER_FILE = 2  # validation documents of each Chinese file that has MANY or more
MANY = 40
ENGLISH_VALIDATION = 38  # passages of the one validation novel
BASE_SHARE = 0.05  # share of the Chinese passages for training the small base, not used by any curve
ENGLISH = "en_gutenberg.txt.xz"
# Whole sources of which nothing is trained on, neither by vocabularies nor by models: the second validation set.
OTHER_SOURCES = ("zh_dialogue", "zh_docs_rust", "zh_prose_misc", "zh_weekly_tw93")
OTHER_PASSAGES = 10  # of each, from as many documents


@dataclass(frozen=True)
class Texts:
    """Passages, shuffled; `base_zh` and `zh` share none, and `validation_*` share no document with the others.

    `other_zh`: passages by source, of sources of which no other field has any.
    """

    base_zh: list[str]
    zh: list[str]
    en: list[str]
    validation_zh: list[str]
    validation_en: list[str]
    other_zh: dict[str, list[str]] = field(default_factory=dict)

    def reordered(self, seed: int) -> "Texts":
        """The same passages with those for training in another order; seed 0 is the order as drawn."""
        if not seed:
            return self
        random = Random(seed)
        return replace(self, zh=random.sample(self.zh, len(self.zh)), en=random.sample(self.en, len(self.en)))


def draw(data: Path, cache: Path, seed: int = 0) -> Texts:
    """All texts, drawn once and stored in the file `cache`."""
    if cache.is_file():
        return Texts(**json.loads(cache.read_text(encoding="utf-8")))
    random = Random(seed)
    chinese, validation_zh = list[str](), list[str]()
    other = dict[str, list[str]]()
    for file in sorted((data / "text").glob("zh_*.txt.xz")):
        if file.name.startswith("zh_small"):  # a sample of the others
            continue
        documents = list(read_documents([file]))
        random.shuffle(documents)
        source = file.name.partition(".")[0]
        if source in OTHER_SOURCES:
            long = [d for d in documents if len(d) >= 300]
            other[source] = [next(passages(d)) for d in long[:OTHER_PASSAGES]]
            continue
        if len(documents) >= MANY:
            selected = [d for d in documents if len(d) >= 300][:VALIDATION_PER_FILE]
            validation_zh += [next(passages(d)) for d in selected]
            documents = [d for d in documents if d not in selected]
        cut = [p for d in documents for p in passages(d)]
        random.shuffle(cut)
        chinese += up_to(cut, OF_A_FILE)
    novels = list(read_documents([data / "text" / ENGLISH]))
    validation_novel = list(passages(novels.pop()))
    english = [p for novel in novels for p in passages(novel)]
    for some in (chinese, english, validation_novel):
        random.shuffle(some)
    kept_aside = [*validation_zh, *(p for some in other.values() for p in some)]
    validation_lines = {line for p in kept_aside for line in p.splitlines() if len(line) >= 20}
    chinese = [
        p for p in chinese if validation_lines.isdisjoint(p.splitlines())
    ]  # a translation published twice
    first = round(len(chinese) * BASE_SHARE)
    texts = Texts(
        chinese[:first], chinese[first:], english, validation_zh, validation_novel[:ENGLISH_VALIDATION], other
    )
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_whole(cache, to_json(asdict(texts)))
    return texts


def passages(document: str) -> Iterator[str]:
    """A document in passages of whole lines of about PASSAGE characters; a longer line is split."""
    lines: list[str] = []
    size = 0
    for line in document.splitlines():
        for at in range(0, len(line), PASSAGE):
            part = line[at : at + PASSAGE]
            if lines and size + len(part) > PASSAGE:
                yield "\n".join(lines)
                lines, size = [], 0
            lines.append(part)
            size += len(part)
    if lines:
        yield "\n".join(lines)


def up_to(texts: Sequence[str], characters: int) -> Iterator[str]:
    """The first texts with this many characters in total."""
    for text in texts:
        if characters <= 0:
            return
        yield text
        characters -= len(text)


def mixture(zh: Sequence[str], en: Sequence[str], english: float) -> Iterator[str]:
    """Both in their order, repeated endlessly, such that `english` is the share of English bytes."""
    read = {"zh": 0, "en": 0}
    at = {"zh": 0, "en": 0}
    texts = {"zh": zh, "en": en}
    while True:
        which = "en" if read["en"] * (1 - english) < read["zh"] * english else "zh"
        text = texts[which][at[which] % len(texts[which])]
        at[which] += 1
        read[which] += len(text.encode())
        yield text
