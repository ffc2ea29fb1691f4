"""Write the annotated tree of docs/architecture.md and its Chinese page: one line per file, from the first sentence of its docstring.

    python scripts/tree_docs.py

scripts/tree.zh.tsv has the Chinese of each line: the English, a tab, the Chinese. A line without one stays English, and the script
names it. A test checks that both pages are up to date and every line is translated.
"""

import ast
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = (ROOT / "docs" / name for name in ("architecture.md", "architecture.zh.md"))
TRANSLATIONS = ROOT / "scripts" / "tree.zh.tsv"
BEGIN, END = "<!-- tree: python scripts/tree_docs.py -->\n", "<!-- end of tree -->\n"
OTHER_FOLDERS = {
    "zhllama/recipes/": "YAML files: options of published training runs, pipelines, model shapes",
    "corpora/": "text sources, one YAML file each, and the sample texts",
    "seeds_zh/": "175 Chinese seed tasks",
    "tasks_zh/": "1,000 Chinese items in lm-eval's format",
    "prompts_zh/": "prompt templates of gen-zh and judge",
    "scripts/": "demo.sh, test.sh, bench.py with its suites, gpu_proof.sh, launch files, experiments",
    "tests/": "one file per subject; faults/ contains tests that interrupt runs and damage files",
    "docs/": "these pages",
}


def summary(path: Path) -> str:
    """The first sentence of a module's docstring, without its period."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    return " ".join(text.split()).removesuffix(".")


def described() -> list[tuple[str, str]]:
    """The lines of the tree in their order: the name of a file or folder, and what is said of it in English."""
    lines, folder = [], None
    for path in sorted(
        (ROOT / "zhllama").rglob("*.py"), key=lambda p: (p.parent.parts, p.name != "__init__.py", p.name)
    ):
        if path.parent != folder:
            folder = path.parent
            about = summary(folder / "__init__.py") if (folder / "__init__.py").is_file() else ""
            lines.append((f"{folder.relative_to(ROOT)}/  # ", about))
        if path.name != "__init__.py":
            lines.append((f"  {path.name:<28} ", summary(path)))
    return lines + [(f"{name:<30} ", about) for name, about in OTHER_FOLDERS.items()]


def catalogue() -> list[tuple[str, str]]:
    """The English and the Chinese of each line of the catalogue.

    Errors: ValueError where a line is not two texts with a tab between them.
    """
    pairs = []
    for number, line in enumerate(TRANSLATIONS.read_text(encoding="utf-8").splitlines(), 1):
        english, _, chinese = line.partition("\t")
        if not english or not chinese or "\t" in chinese:
            raise ValueError(f"{TRANSLATIONS}, line {number}: not the English, a tab and the Chinese")
        pairs.append((english, chinese))
    return pairs


def untranslated() -> list[str]:
    """What is said of files in English alone."""
    translated = {english for english, _ in catalogue()}
    return [about for _, about in described() if about and about not in translated]


def unused() -> list[str]:
    """The English of translations that no line of the tree has, or no longer."""
    present = {about for _, about in described()}
    return [english for english, _ in catalogue() if english not in present]


def annotated_tree(translations: Mapping[str, str]) -> str:
    """The tree of the package as text, a line for each module."""
    lines = [(name + translations.get(about, about)).rstrip(" #") for name, about in described()]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def updated(page: Path) -> str:
    """The text of a page with the present tree between its markers."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return before + BEGIN + annotated_tree(dict(catalogue()) if page == CHINESE else {}) + END + after


if __name__ == "__main__":
    for page in (ENGLISH, CHINESE):
        page.write_text(updated(page), encoding="utf-8")
    for english in untranslated():
        print(f"no translation: {english}")
    for english in unused():
        print(f"no longer used: {english}")
