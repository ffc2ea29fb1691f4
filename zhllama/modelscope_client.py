"""Downloads from ModelScope and uploads to it through `modelscope_hub`, the client that the package `modelscope` uses, too."""

import logging
import os
from collections.abc import Sequence
from glob import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from zhllama.errors import MissingPackage
from zhllama.hub_name import HubName

ENDPOINT = "https://modelscope.cn"
DEFAULT_REVISION = "master"


class NotThere(Exception):
    """A repository, revision or file that ModelScope does not have; its argument says which, as a predicate."""


def check_installed(what: str) -> None:
    """Raise MissingPackage for `what` where the client is not installed."""
    if find_spec("modelscope_hub") is None:
        raise MissingPackage(what, "modelscope-hub", "modelscope")


def endpoint() -> str:
    """The address of ModelScope: MODELSCOPE_ENDPOINT, or the public one."""
    return os.environ.get("MODELSCOPE_ENDPOINT") or ENDPOINT


def errors() -> tuple[type[Exception], ...]:
    """The errors of the client, where it is installed."""
    if find_spec("modelscope_hub") is None:
        return ()
    from modelscope_hub.errors import HubError

    return (HubError,)


def cached_file(name: HubName, candidates: Sequence[str]) -> Path | None:
    """The first of `candidates` in the cache of the client, or None."""
    folder = cached_folder(name)
    return next((folder / file for file in candidates if (folder / file).is_file()), None) if folder else None


def cached_folder(name: HubName, kind: Literal["model", "dataset"] = "model") -> Path | None:
    """The folder of a repository in the cache of the client, which may be incomplete, or None.

    Without a revision the client would take any that is there; caches of before modelscope 1.38 do not say which it is.
    """
    from modelscope_hub.errors import CacheError

    revision = name.revision or DEFAULT_REVISION
    try:
        found = Path(_api().download_repo(name.id, kind, revision=revision, local_files_only=True))
    except CacheError:
        return None
    return None if name.revision and not str(found).endswith(f"/snapshots/{revision}") else found


def file(name: HubName, candidates: Sequence[str]) -> Path:
    """Download the first of `candidates` that a model has. Errors: NotThere, those of `errors`."""
    hashes = listed(name, "model")
    for candidate in candidates:
        if candidate in hashes:
            found = _api().download_file(
                name.id, "model", candidate, revision=name.revision, expected_sha256=hashes[candidate]
            )
            return Path(found)
    raise NotThere(f"has none of {', '.join(candidates)}")


def folder(name: HubName, settings: Sequence[str], weights: Sequence[str]) -> Path:
    """Download the settings of a model, and its weights in the first format that it has. Errors: as `file`."""
    there = listed(name, "model")
    wanted = next((w for w in weights if any(f.endswith(w.lstrip("*")) for f in there)), weights[0])
    patterns = [*settings, wanted]
    return Path(_api().download_repo(name.id, "model", revision=name.revision, allow_patterns=patterns))


def dataset(name: HubName) -> Path:
    """Download a whole dataset. Errors: as `file`."""
    listed(name, "dataset")
    return Path(_api().download_repo(name.id, "dataset", revision=name.revision))


def is_logged_in() -> bool:
    """Whether the client has a token, from `modelscope login` or MODELSCOPE_API_TOKEN."""
    from modelscope_hub.config import get_default_config

    return bool(get_default_config().token)


def upload(name: HubName, folder: Path, files: Sequence[str], message: str) -> None:
    """Upload files of a folder to a model, which is created as a private one if need be. Errors: those of `errors`."""
    api = _api()
    if not api.repo_exists(name.id, "model"):
        api.create_repo(name.id, "model", visibility="private")
    patterns = list(map(escape, files))
    api.upload_folder(name.id, "model", folder, allow_patterns=patterns, commit_message=message)


def listed(name: HubName, kind: Literal["model", "dataset"]) -> dict[str, str | None]:
    """The files of a repository with their sha256, where it is known. Errors: NotThere, those of `errors`."""
    from modelscope_hub.errors import NotExistError

    try:
        found = _api().list_repo_files(name.id, kind, revision=name.revision, recursive=True)
    except NotExistError:
        at = f" at the revision {name.revision}" if name.revision else ""
        raise NotThere(f"is not on ModelScope{at}") from None
    return {str(one.path): one.sha256 for one in found}


def _api() -> Any:
    from modelscope_hub import HubApi

    logging.getLogger("modelscope_hub").setLevel(logging.WARNING)  # it tells each listing on stderr
    return HubApi()
