"""Finds the Arrow files of a dataset that the library `datasets` saved: by save_to_disk, with splits or without, or in its cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zhllama.errors import InputError
from zhllama.io.json import read_object

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
AGAIN = "Save the dataset again"


def saved_dataset_files(folder: Path) -> list[Path] | None:
    """The Arrow files of the saved dataset in a folder, in their order; None for any other folder.

    Errors: InputError for a dataset of several splits, which must be named, and for a file that is missing.
    """
    if (folder / SPLITS).is_file():
        return _of_splits(folder, read_object(folder / SPLITS, AGAIN).get("splits"))
    if (folder / STATE).is_file() and (folder / INFO).is_file():
        return _of_state(folder, read_object(folder / STATE, AGAIN))
    if (folder / INFO).is_file() and any(folder.glob("*.arrow")):
        return _of_cache(folder, read_object(folder / INFO, AGAIN).get("splits"))
    return None


def describes_dataset(path: Path) -> bool:
    """Whether a file describes the saved dataset beside it, and so has no rows of its own."""
    if path.name not in (STATE, INFO, SPLITS):
        return False
    beside = (path.parent / STATE).is_file() and (path.parent / INFO).is_file()
    return path.name == SPLITS or beside or any(path.parent.glob("*.arrow"))


def _of_splits(folder: Path, splits: Any) -> list[Path]:
    if not isinstance(splits, list) or not splits or not all(isinstance(one, str) for one in splits):
        raise InputError(folder / SPLITS, "names no splits", AGAIN)
    if len(splits) > 1:
        raise InputError(
            folder, f"has the splits {', '.join(splits)}", f"Name one of them, e.g. {folder / splits[0]}"
        )
    files = saved_dataset_files(_inside(folder, splits[0]))
    if files is None:
        raise InputError(folder / splits[0], "is no saved dataset", AGAIN)
    return files


def _of_state(folder: Path, state: Mapping[str, Any]) -> list[Path]:
    if state.get("_indices_files") or state.get("_indices_data_files"):
        message = "is a selection of the rows in its files"
        raise InputError(folder, message, "Save it again after flatten_indices()")
    listed = state.get("_data_files")
    names = (
        [one.get("filename") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    )
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(folder / STATE, "names no data files", AGAIN)
    files = [_inside(folder, str(name)) for name in names]
    for file in files:
        if not file.is_file():
            raise InputError(file, "is missing from the saved dataset", AGAIN)
    return files


def _of_cache(folder: Path, splits: Any) -> list[Path]:
    """The files in a folder of the cache, whose names contain the split: NAME-train.arrow, NAME-train-00000-of-00002.arrow."""
    files = sorted(folder.glob("*.arrow"))
    if isinstance(splits, dict) and len(splits) > 1:
        message = f"has the splits {', '.join(map(str, splits))}"
        raise InputError(folder, message, f"Name the files of one, e.g. {files[0]}")
    return files


def _inside(folder: Path, name: str) -> Path:
    """A path directly in the folder. Errors: InputError for a name that leads out of it."""
    if name != Path(name).name or name in ("", ".", ".."):
        raise InputError(folder, f"names the file {name!a}, which is not in it", AGAIN)
    return folder / name
