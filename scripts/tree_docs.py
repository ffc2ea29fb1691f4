"""Write the annotated tree of docs/architecture.md and its Chinese page: one line per file, from the first sentence of its docstring.

    python scripts/tree_docs.py

A test checks that both pages are up to date.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = tuple(ROOT / "docs" / name for name in ("architecture.md", "architecture.zh.md"))
BEGIN, END = "<!-- tree: python scripts/tree_docs.py -->\n", "<!-- end of tree -->\n"
OTHER_FOLDERS = {
    "zhllama/recipes/": "YAML files: options of published training runs, pipelines, model shapes",
    "corpora/": "text sources, one YAML file each, and the sample texts",
    "seeds_zh/": "175 Chinese seed tasks",
    "prompts_zh/": "prompt templates of gen-zh and judge",
    "scripts/": "demo.sh, test.sh, bench.py with its suites, launch files, experiments",
    "tests/": "one file per subject; faults/ contains tests that interrupt runs and damage files",
    "docs/": "these pages",
}


def summary(path: Path) -> str:
    """The first sentence of a module's docstring, without its period."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    return " ".join(text.split()).removesuffix(".")


def annotated_tree() -> str:
    """The tree of the package as text, a line for each module."""
    lines, folder = [], None
    for path in sorted(
        (ROOT / "zhllama").rglob("*.py"), key=lambda p: (p.parent.parts, p.name != "__init__.py", p.name)
    ):
        if path.parent != folder:
            folder = path.parent
            about = summary(folder / "__init__.py") if (folder / "__init__.py").is_file() else ""
            lines.append(f"{folder.relative_to(ROOT)}/  # {about}".rstrip(" #"))
        if path.name != "__init__.py":
            lines.append(f"  {path.name:<28} {summary(path)}")
    lines += [f"{name:<30} {about}" for name, about in OTHER_FOLDERS.items()]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def updated(page: Path) -> str:
    """The text of a page with the present tree between its markers."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return before + BEGIN + annotated_tree() + END + after


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(updated(page), encoding="utf-8")
