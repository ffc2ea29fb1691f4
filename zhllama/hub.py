"""Finds files of a hub model or dataset in the cache or downloads them; fails at once without a network."""

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from zhllama.errors import InputError, MissingPackage

PATIENCE = 3.0  # seconds to wait for a connection to the hub


def is_hub_name(name: str) -> bool:
    """Whether a name is not an existing path and has the form `owner/model`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).exists()


def hub_file(name: str, *candidates: str) -> Path:
    """The first of `candidates` that exists in the hub repository `name`, as a path in the cache."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

    for file in candidates:
        cached = try_to_load_from_cache(name, file)
        if isinstance(cached, str):
            return Path(cached)
    require_network(name)
    for file in candidates:
        try:
            return Path(hf_hub_download(name, file))
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError:
            raise InputError(
                name, "is neither a path here nor a repository on the hub", "Check the name"
            ) from None
        except (HfHubHTTPError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                name, f"cannot be downloaded ({reason})", "Download it by hand and give the path"
            ) from error
    raise InputError(name, f"has none of {', '.join(candidates)}", "Give a path instead")


def require_network(name: str) -> None:
    """Raise InputError with a remedy where the hub cannot be reached."""
    remedy = "Download it on a machine with a network, and give the path"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise InputError(name, "is not in the cache, and HF_HUB_OFFLINE is set", remedy)
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((endpoint.hostname or "", endpoint.port or 443), timeout=PATIENCE).close()
    except OSError:
        raise InputError(
            name, f"is not a path here, and {endpoint.hostname} cannot be reached", remedy
        ) from None


def hub_dataset(name: str, split: str = "") -> list[Path]:
    """The Arrow files of a dataset of the hub, in the cache of the library `datasets`, which downloads it if need be.

    split: may be left out where the dataset has one. Errors: InputError, also for a dataset of several configurations.
    """
    try:
        import datasets
    except ImportError:
        raise MissingPackage(name, "datasets", "corpus") from None
    offline = _why_offline(name)
    if offline is not None:  # `datasets` would ask the hub again and again before it looks into its cache
        datasets.config.HF_HUB_OFFLINE = True
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # `datasets` passes on errors of httpx, Arrow and the loaders
        if offline is not None:
            raise offline from None
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "Download the dataset, and give the path of its files"
        raise InputError(name, f"cannot be read from the hub ({detail})", remedy) from error
    if not split and len(loaded) > 1:
        first = next(iter(loaded))
        raise InputError(name, f"has the splits {', '.join(loaded)}", f"Name one of them: {name}#{first}")
    if split and split not in loaded:
        raise InputError(name, f"has no split {split}", f"Choose from: {', '.join(loaded)}")
    files = loaded[split or next(iter(loaded))].cache_files
    return [Path(file["filename"]) for file in files]


def _why_offline(name: str) -> InputError | None:
    """Why the hub cannot be asked, or None."""
    try:
        require_network(name)
    except InputError as error:
        return error
    return None
