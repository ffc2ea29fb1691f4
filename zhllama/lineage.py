"""What a run was made from: the tree of manifests behind it, down to the files that nobody here made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.run import MANIFEST, changed_inputs, read_manifest


@dataclass(frozen=True)
class Ancestor:
    """One run, the runs that it came from, and the other files it read, with those that have changed since or are gone.

    `again`: the same run stands elsewhere in the tree with all that is behind it.
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
    return _ancestor(folder.resolve(), set())


def _ancestor(folder: Path, seen: set[Path]) -> Ancestor:
    manifest = read_manifest(folder)
    again = folder in seen
    seen.add(folder)
    held = [Path(parent) for parent in manifest.get("parents", [])]
    parents = () if again else tuple(_ancestor(p, seen) for p in held if p != folder)
    read = [Path(recorded["path"]) for recorded in manifest.get("inputs", [])]
    files = tuple(p for p in read if p.name != MANIFEST and not any(p.is_relative_to(run) for run in held))
    return Ancestor(
        folder, manifest.get("command", "?"), manifest.get("figures", {}), manifest.get("seconds", 0.0),
        parents, files, tuple(changed_inputs(manifest)), again,
    )  # fmt: skip
