"""Finds files of rows: files, folders, globs and runs, saved datasets, datasets of the hub, and LLaMA-Factory's descriptions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhllama.conversation.row_forms import RowForm, row_form
from zhllama.errors import InputError
from zhllama.hub import hub_dataset
from zhllama.hub_name import is_hub_name
from zhllama.io.json import read_json
from zhllama.io.saved_datasets import INFO
from zhllama.io.text import FORMATS, TEXT_OUTPUTS, find_files
from zhllama.run_folder import CONFIG

ROW_FORMATS = (*(kind for kind in FORMATS if kind != ".md"), ".csv")  # a .md in a folder of data describes it
PLACES = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
REMEDY = "Give it a file_name, or name the data file itself"


@dataclass(frozen=True)
class RowFiles:
    """Files of rows, the forms of those that a dataset_info.json describes, and these descriptions, which are inputs too."""

    files: tuple[Path, ...]
    forms: Mapping[Path, RowForm] = field(default_factory=dict)
    descriptions: tuple[Path, ...] = ()

    @property
    def inputs(self) -> list[Path]:
        """All files that are read."""
        return [*self.files, *self.descriptions]


def find_row_files(names: Sequence[str | Path], outputs: Sequence[str] = TEXT_OUTPUTS) -> RowFiles:
    """The files of rows that the names mean: as `find_files`, or DATASET_INFO#NAME, or OWNER/NAME#SPLIT of the hub.

    DATASET_INFO is LLaMA-Factory's dataset_info.json or its folder; NAME may be left out where it describes one dataset.
    Errors: InputError as in `find_files`, for a description that is not supported, and for a file of two forms.
    """
    return joined([_find(str(name), outputs) for name in names])


def joined(found: Sequence[RowFiles]) -> RowFiles:
    """All files once, in order. Errors: InputError for a file that is read in two forms."""
    forms: dict[Path, RowForm | None] = {}
    for one in found:
        for path in one.files:
            form = one.forms.get(path)
            if forms.setdefault(path, form) != form:
                raise InputError(path, "is read in two forms", "Name it once")
    descriptions = dict.fromkeys(path for one in found for path in one.descriptions)
    described = {path: form for path, form in forms.items() if form is not None}
    return RowFiles(tuple(forms), described, tuple(descriptions))


def _find(name: str, outputs: Sequence[str]) -> RowFiles:
    place, mark, part = name.rpartition("#")
    if not mark or Path(name).expanduser().exists():
        place, part = name, ""
    path = Path(place).expanduser()
    file = (
        path / INFO if (path.is_dir() and not (path / CONFIG).is_file()) or (part and path.is_dir()) else path
    )
    if file.name == INFO and file.is_file() and (entries := _entries(file)) is not None:
        return _described(file, entries, part)
    if is_hub_name(place) and not path.parent.is_dir() and path.suffix.lower() not in ROW_FORMATS:
        return RowFiles(tuple(hub_dataset(place, part)))
    return RowFiles(tuple(find_files([name], outputs, formats=ROW_FORMATS)))


def _entries(file: Path) -> dict[str, dict[str, Any]] | None:
    """The datasets that a dataset_info.json describes; None for that of a saved dataset."""
    value = read_json(file)
    if not isinstance(value, dict) or not value:
        return None
    described = [isinstance(one, dict) and any(one.get(place) for place in PLACES) for one in value.values()]
    return value if all(described) else None


def _described(file: Path, entries: Mapping[str, Mapping[str, Any]], name: str) -> RowFiles:
    if not name and len(entries) > 1:
        raise InputError(
            file, f"describes {', '.join(entries)}", f"Name one of them: {file}#{next(iter(entries))}"
        )
    name = name or next(iter(entries))
    if name not in entries:
        raise InputError(file, f"does not describe {name}", f"Choose from: {', '.join(entries)}")
    entry, where = entries[name], f"{file}#{name}"
    form = row_form(entry, where)
    files = _files_of(entry, file.parent, where)
    return RowFiles(tuple(files), dict.fromkeys(files, form), (file,))


def _files_of(entry: Mapping[str, Any], folder: Path, where: str) -> list[Path]:
    if isinstance(file_name := entry.get("file_name"), str):
        return find_files([folder / file_name], formats=ROW_FORMATS)
    if isinstance(hub := entry.get("hf_hub_url"), str):
        return hub_dataset(hub, "train", "huggingface")
    if isinstance(hub := entry.get("ms_hub_url"), str):
        return hub_dataset(hub, "train", "modelscope")
    place = next(place for place in PLACES if entry.get(place))
    raise InputError(where, f"{place}: is not supported", REMEDY)
