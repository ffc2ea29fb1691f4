"""docs/architecture.md is up to date, and a public class name means one thing."""

import ast
import re
from collections import defaultdict

from tests.conftest import ROOT


def test_the_annotated_tree_is_current() -> None:
    from scripts.tree_docs import PAGES, updated

    for page in PAGES:
        assert page.read_text(encoding="utf-8") == updated(page), "run python scripts/tree_docs.py"


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
