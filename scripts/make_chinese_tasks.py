"""Makes the task set tasks_zh, 1,000 items that lm-eval reads, from the shipped texts or from yours.

    python scripts/make_chinese_tasks.py                                    # into tasks_zh, as it is shipped
    python scripts/make_chinese_tasks.py --text held-out.txt --not-in train.txt --out my-tasks

With `--text` cloze and characters are made of your sentences; translation and sentiment stay as they are. Sentences that
share 13 characters with a text of `--not-in` are left out, so that a model that was trained on it does not know them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.chinese_tasks.items import Item
from scripts.chinese_tasks.sentences import sentences
from scripts.chinese_tasks.templates import sentiment, translation
from scripts.chinese_tasks.words import characters, cloze
from zhllama.io.files import json_line, write_whole
from zhllama.io.yaml import read_yaml

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "scripts" / "chinese_tasks"
OF_EACH = 250
FIX = "Correct it by hand"


def tasks(texts: list[Path], known: list[Path]) -> dict[str, list[Item]]:
    """The items of each task."""
    reviewed = read_yaml(SOURCES / "unsuitable.yaml", "words that fit as well", FIX)
    found = sentences(texts, known)
    words = cloze(found, OF_EACH, reviewed["cloze"])
    used = {item.choices[item.answer] for item in words}
    # Sentences of the cloze items come last: they are used twice only where the others do not suffice.
    rest = sorted(found, key=lambda sentence: sentence.text in used)
    return {
        "zhllama_cloze": words,
        "zhllama_characters": characters(rest, OF_EACH, reviewed["characters"]),
        "zhllama_translation": translation(
            read_yaml(SOURCES / "translation.yaml", "pairs", FIX)["pairs"], OF_EACH
        ),
        "zhllama_sentiment": sentiment(read_yaml(SOURCES / "sentiment.yaml", "reviews", FIX)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, action="append", default=[])
    parser.add_argument("--not-in", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path, default=ROOT / "tasks_zh")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, items in tasks(given.text, given.not_in).items():
        write_whole(given.out / f"{name}.jsonl", "".join(json_line(item.row()) for item in items))
        print(f"{name}: {len(items)} items")


if __name__ == "__main__":
    main()
