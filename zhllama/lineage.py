"""The lineage of a run: the tree of manifests behind it, down to files that no run made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.manifest import changed_inputs, read_manifest
from zhllama.run_folder import MANIFEST


@dataclass(frozen=True)
class Ancestor:
    """One run, the runs that it came from, and the other files it read, with those that have changed since or are gone.

    A run that stands behind another parent is no parent of its own; `again`: it stands elsewhere in the tree with all
    that is behind it.
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
        """The whole tree."""
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
    """The tree behind a finished run. Errors: InputError for a folder, here or behind, whose manifest is missing or broken."""
    manifests: dict[Path, dict[str, Any]] = {}
    _collect(folder.resolve(), manifests)
    return _ancestor(folder.resolve(), manifests, set())


def _collect(folder: Path, manifests: dict[Path, dict[str, Any]]) -> None:
    if folder not in manifests:
        manifests[folder] = read_manifest(folder)
        for parent in _parents(manifests[folder]):
            _collect(parent, manifests)


def _parents(manifest: Mapping[str, Any]) -> list[Path]:
    return [Path(parent) for parent in manifest["parents"]]


def _behind(folder: Path, manifests: Mapping[Path, dict[str, Any]], found: set[Path]) -> set[Path]:
    """All runs that a run came from, near and far."""
    for parent in _parents(manifests[folder]):
        if parent not in found:
            found.add(parent)
            _behind(parent, manifests, found)
    return found


def _ancestor(folder: Path, manifests: Mapping[Path, dict[str, Any]], seen: set[Path]) -> Ancestor:
    manifest, held = manifests[folder], _parents(manifests[folder])
    again = folder in seen
    seen.add(folder)
    farther = {run for parent in held if parent != folder for run in _behind(parent, manifests, {folder})} - {
        folder
    }
    nearest = [] if again else [p for p in held if p != folder and p not in farther]
    read = [Path(recorded["path"]) for recorded in manifest["inputs"]]
    files = tuple(p for p in read if p.name != MANIFEST and not any(p.is_relative_to(run) for run in held))
    return Ancestor(
        folder, manifest["command"], manifest["figures"], manifest["seconds"],
        tuple(_ancestor(p, manifests, seen) for p in nearest), () if again else files,
        () if again else tuple(changed_inputs(manifest)), again,
    )  # fmt: skip
