"""The lineage of a run: the tree of the runs that it was built from, and the input files that no run wrote."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError
from zhllama.manifest import changed_inputs, read_manifest
from zhllama.run_folder import MANIFEST

if TYPE_CHECKING:
    from zhllama.model.chain import Chain


@dataclass(frozen=True)
class Ancestor:
    """One run, its parents, the other files that it read, and those of its inputs that are missing or changed.

    A parent that is also an ancestor of another parent is listed there only. `again` marks a run whose subtree appears
    earlier in the tree.
    """

    folder: Path
    command: str
    figures: Mapping[str, Any]
    seconds: float
    parents: tuple["Ancestor", ...]
    files: tuple[Path, ...]
    changed: tuple[Path, ...]
    again: bool = False

    def as_json(self) -> dict[str, Any]:
        """The tree as JSON values."""
        return {
            "folder": str(self.folder),
            "command": self.command,
            "figures": dict(self.figures),
            "seconds": self.seconds,
            "files": [str(p) for p in self.files],
            "changed": [str(p) for p in self.changed],
            "parents": [parent.as_json() for parent in self.parents],
        }


def lineage(folder: Path) -> Ancestor:
    """The lineage of a finished run. Errors: InputError for a missing or broken manifest anywhere in the tree."""
    manifests: dict[Path, dict[str, Any]] = {}
    _collect(folder.resolve(), manifests)
    return _ancestor(folder.resolve(), manifests, set())


MODEL_COMMANDS = (
    "grow",
    "pretrain",
    "sft",
    "reward",
    "dpo",
    "kto",
    "export",
)  # commands that make a model from a model


def model_steps(chain: "Chain") -> list[str]:
    """Everything that made a chain's model, oldest first: a run's name with its command, also runs that were folded before.

    Where the folder of an earlier run is gone, the runs of the chain alone.
    """
    try:
        runs = oldest_first(lineage(chain.runs[-1] if chain.runs else chain.base))
    except (InputError, KeyError):
        return [folder.name for folder in (chain.base, *chain.runs)]
    made = [ancestor for ancestor in runs if ancestor.command in MODEL_COMMANDS]
    return [f"{ancestor.folder.name} ({ancestor.command})" for ancestor in made]


def oldest_first(ancestor: Ancestor) -> list[Ancestor]:
    """A run after the runs that it was made from, each once."""
    if ancestor.again:
        return []
    return [*(earlier for parent in ancestor.parents for earlier in oldest_first(parent)), ancestor]


def _collect(folder: Path, manifests: dict[Path, dict[str, Any]]) -> None:
    if folder not in manifests:
        manifests[folder] = read_manifest(folder)
        for parent in _parents(manifests[folder]):
            _collect(parent, manifests)


def _parents(manifest: Mapping[str, Any]) -> list[Path]:
    return [Path(parent) for parent in manifest["parents"]]


def _ancestors(folder: Path, manifests: Mapping[Path, dict[str, Any]], ancestors: set[Path]) -> set[Path]:
    """All ancestors of a run, added to `ancestors`."""
    for parent in _parents(manifests[folder]):
        if parent not in ancestors:
            ancestors.add(parent)
            _ancestors(parent, manifests, ancestors)
    return ancestors


def _ancestor(folder: Path, manifests: Mapping[Path, dict[str, Any]], seen: set[Path]) -> Ancestor:
    manifest, parents = manifests[folder], _parents(manifests[folder])
    again = folder in seen
    seen.add(folder)
    indirect = {
        run for parent in parents if parent != folder for run in _ancestors(parent, manifests, {folder})
    } - {folder}
    direct = [] if again else [p for p in parents if p != folder and p not in indirect]
    read = [Path(recorded["path"]) for recorded in manifest["inputs"]]
    files = tuple(p for p in read if p.name != MANIFEST and not any(p.is_relative_to(run) for run in parents))
    return Ancestor(
        folder, manifest["command"], manifest["figures"], manifest["seconds"],
        tuple(_ancestor(p, manifests, seen) for p in direct), () if again else files,
        () if again else tuple(changed_inputs(manifest)), again,
    )  # fmt: skip
