"""docs/architecture.md is up to date, and a public class name means one thing."""

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_the_annotated_tree_is_current() -> None:
    from scripts.tree_docs import CHINESE, ENGLISH, updated

    for page in (ENGLISH, CHINESE):
        assert page.read_text(encoding="utf-8") == updated(page), "run python scripts/tree_docs.py"


def test_every_line_of_the_tree_is_in_chinese() -> None:
    from scripts.tree_docs import catalogue, untranslated, unused

    faults = [f"no translation: {about}" for about in untranslated()]
    faults += [f"no longer used: {about}" for about in unused()]
    faults += [
        f"twice: {about}" for about, times in Counter(about for about, _ in catalogue()).items() if times > 1
    ]
    assert not faults, "mend scripts/tree.zh.tsv, then run python scripts/tree_docs.py:\n" + "\n".join(faults)


def test_missing_and_unused_translations_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docstring that changed leaves one line of each kind, and the new text stays English on the Chinese page."""
    from scripts import tree_docs

    (first, chinese), *others = tree_docs.catalogue()
    changed = tmp_path / "tree.zh.tsv"
    monkeypatch.setattr(tree_docs, "TRANSLATIONS", changed)
    pairs = [("What it said before", chinese), *others]
    changed.write_text("".join(f"{english}\t{text}\n" for english, text in pairs), encoding="utf-8")
    assert (tree_docs.untranslated(), tree_docs.unused()) == ([first], ["What it said before"])
    tree = tree_docs.annotated_tree(dict(pairs))
    assert first in tree and chinese not in tree and others[0][1] in tree
    for damaged in ("English alone", "English\t", "\t中文", "English\t中文\tmore", ""):
        changed.write_text(f"{first}\t{chinese}\n{damaged}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"tree\.zh\.tsv, line 2"):
            tree_docs.catalogue()


def test_every_module_says_what_it_provides() -> None:
    from scripts.tree_docs import summary

    for path in (ROOT / "zhllama").rglob("*.py"):
        assert len(summary(path)) > 10 or path.name == "__main__.py", path


def test_files_that_the_page_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:zhllama|scripts|tests)/[\w/]+\.(?:py|sh))`", text))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_a_public_class_name_is_defined_once() -> None:
    places = defaultdict(list)
    for path in sorted((ROOT / "zhllama").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


RUN_FLAGS = {
    "--force",
    "--resume",
    "--out",
    "--set",
    "--help",
}  # of run folders and pipelines, the same in all commands
ERRORS = re.compile(r"\w*Error|MissingPackage|BrokenPromise|DamagedFile")


def test_errors_of_the_core_name_fields_not_flags() -> None:
    """A command has flags of its own for a field, so the core writes `block_size` and the command shows --max-length."""
    flags = []
    for path in sorted((ROOT / "zhllama").rglob("*.py")):
        if "commands" in path.parts or path.name == "cli.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and ERRORS.fullmatch(node.func.id)
            ):
                texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                found = re.findall(r"(?<!zhllama export )(?<![\w-])--[a-z][a-z-]*", " ".join(map(str, texts)))
                flags += [(path.name, node.lineno, flag) for flag in found if flag not in RUN_FLAGS]
    assert flags == []
