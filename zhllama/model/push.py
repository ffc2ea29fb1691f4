"""Uploads an exported model to a hub: its files and its card, never the records of the run, which name local paths."""

from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Any

from zhllama import modelscope_client
from zhllama.errors import InputError, OptionError, OutputError
from zhllama.hub import why_unreachable
from zhllama.hub_name import HubName, hub_name
from zhllama.manifest import check_outputs, read_manifest
from zhllama.run_folder import CONFIG, MANIFEST

RECORDS = (CONFIG, MANIFEST)  # of the run: they contain paths of this machine
MESSAGE = "Upload a model exported by zhllama"
LOGIN = {"huggingface": ("Hugging Face", "hf auth login"), "modelscope": ("ModelScope", "modelscope login")}


def check_push(target: str, now: bool) -> HubName:
    """The repository to push to, checked before any work; with `now` its hub must answer and a login must be stored.

    Errors: OptionError for a text that is not a hub name, MissingPackage, InputError without a network or a login.
    """
    try:
        name = hub_name(target)
    except InputError as error:
        raise OptionError("push", f"{target} {error.what}", error.remedy) from None
    if name.revision is not None:
        raise OptionError("push", f"{target} names a revision", "Leave out the part from @ on")
    if name.hub == "modelscope":
        modelscope_client.check_installed(target)
    if not now:
        return name
    if (reason := why_unreachable(name.hub)) is not None:
        raise InputError(target, f"cannot be uploaded: {reason}", "Leave out push_now, and push later")
    if not _is_logged_in(name):
        hub, command = LOGIN[name.hub]
        raise InputError(target, f"needs a login to {hub}", f"Log in by: {command}")
    return name


def check_export(folder: Path) -> None:
    """Refuse to push a folder that is not a finished export, or whose files changed since. Errors: InputError."""
    if read_manifest(folder)["command"] != "export":
        raise InputError(folder, "is not the folder of an export", "Name a run to export")
    check_outputs([folder])


def files_to_push(folder: Path) -> Mapping[str, int]:
    """The files of an export that belong on a hub, with their sizes in bytes, by their path in the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = ((str(path.relative_to(folder)), path.stat().st_size) for path in files)
    return {name: size for name, size in named if name not in RECORDS and not _is_hidden(name)}


def push(name: HubName, folder: Path, files: Mapping[str, int]) -> None:
    """Upload files of a folder in one commit; a repository that does not exist is created as a private one.

    The token is that of the client's own login. Errors: OutputError, which says that the export itself is complete.
    """
    from huggingface_hub.errors import HfHubHTTPError

    expected: tuple[type[Exception], ...] = (HfHubHTTPError, OSError, *modelscope_client.errors())
    try:
        if name.hub == "modelscope":
            modelscope_client.upload(name, folder, list(files), MESSAGE)
        else:
            _push_to_hugging_face(name, folder, list(files))
    except expected as error:
        reason = " ".join(str(error).split())[:200]
        remedy = f"The export in {folder} is complete; push it again"
        raise OutputError(name.id, f"cannot be uploaded ({reason})", remedy) from error


def _push_to_hugging_face(name: HubName, folder: Path, files: list[str]) -> None:
    from huggingface_hub import HfApi

    api: Any = HfApi()
    api.create_repo(name.id, private=True, exist_ok=True)
    patterns = list(map(escape, files))
    api.upload_folder(repo_id=name.id, folder_path=folder, allow_patterns=patterns, commit_message=MESSAGE)


def _is_logged_in(name: HubName) -> bool:
    if name.hub == "modelscope":
        return modelscope_client.is_logged_in()
    from huggingface_hub import get_token

    return get_token() is not None


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)
