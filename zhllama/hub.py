"""Finds files of a hub model or dataset in the cache or downloads them; fails at once without a network."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from zhllama import modelscope_client
from zhllama.errors import InputError, MissingPackage
from zhllama.hub_name import Hub, HubName, hub_name
from zhllama.io.json import read_object

PATIENCE = 3.0  # seconds to wait for a connection to the hub
SETTINGS = ("*.json", "*.model", "*.txt", "*.tiktoken", "*.jinja")  # fetched in addition to the weights
WEIGHTS = ("*.safetensors", "*.bin")  # the first of these that a repository has
OFFLINE = "HF_HUB_OFFLINE is set"
CARD = "README.md"  # names the license
BY_HAND = "Download it by hand and give the path"


def hub_file(name: str, *candidates: str) -> Path:
    """The first of `candidates` that exists in the hub repository `name`, as a path in the cache. Errors: InputError."""
    parsed = hub_name(name)
    if parsed.hub == "modelscope":
        modelscope_client.check_installed(name)
        cached = modelscope_client.cached_file(parsed, candidates)
        if cached is not None:
            return cached
        require_network(name)
        with _told(name):
            return modelscope_client.file(parsed, candidates)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    for file in candidates:
        found = try_to_load_from_cache(parsed.id, file, revision=parsed.revision)
        if isinstance(found, str):
            return Path(found)
    require_network(name)
    for file in candidates:
        with _told(name):
            try:
                return Path(hf_hub_download(parsed.id, file, revision=parsed.revision))
            except EntryNotFoundError:
                continue
    raise InputError(name, f"has none of {', '.join(candidates)}", "Give a path instead")


def hub_folder(name: str) -> Path:
    """The folder of a model of a hub in the cache, downloaded where the network allows. Errors: InputError."""
    parsed = hub_name(name)
    if parsed.hub == "modelscope":
        modelscope_client.check_installed(name)
        cached = modelscope_client.cached_folder(parsed)
        if cached is not None and _has_weights(cached):
            return cached
        require_network(name)
        with _told(name):
            return modelscope_client.folder(parsed, (*SETTINGS, CARD), WEIGHTS)
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for weights in WEIGHTS:  # without patterns, files that are not needed would count as missing
        with suppress(LocalEntryNotFoundError):
            patterns = [*SETTINGS, weights]
            found = snapshot_download(
                parsed.id, revision=parsed.revision, allow_patterns=patterns, local_files_only=True
            )
            if _has_weights(Path(found)):
                return Path(found)
    require_network(name)
    with _told(name):
        listed = HfApi().model_info(parsed.id, revision=parsed.revision).siblings or []
        weights = next((w for w in WEIGHTS if any(s.rfilename.endswith(w[1:]) for s in listed)), WEIGHTS[0])
        patterns = [*SETTINGS, CARD, weights]
        return Path(snapshot_download(parsed.id, revision=parsed.revision, allow_patterns=patterns))


def hub_dataset(name: str, split: str = "", default: Hub | None = None) -> list[Path]:
    """The Arrow files of a dataset of the hub, in the cache of the library `datasets`, which downloads it if need be.

    split: may be left out where the dataset has one. ModelScope's client downloads its datasets, and `datasets` reads
    the folder. Errors: InputError, also for a dataset of several configurations.
    """
    try:
        import datasets
    except ImportError:
        raise MissingPackage(name, "datasets", "corpus") from None
    parsed = hub_name(name, default)
    place, revision = parsed.id, parsed.revision
    offline = None
    if parsed.hub == "modelscope":
        place, revision = str(modelscope_dataset(name, parsed)), None
    else:
        reason = why_unreachable("huggingface")
        offline = _not_cached(name, reason) if reason else None
    if offline is not None:  # `datasets` would ask the hub again and again before it looks into its cache
        datasets.config.HF_HUB_OFFLINE = True
    try:
        loaded = datasets.load_dataset(place, revision=revision)
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


def modelscope_dataset(name: str, parsed: HubName) -> Path:
    """The folder of a whole dataset of ModelScope, which is completed where the network allows. Errors: InputError."""
    modelscope_client.check_installed(name)
    if (reason := why_unreachable("modelscope")) is None:
        with _told(name):
            return modelscope_client.dataset(parsed)
    cached = modelscope_client.cached_folder(parsed, "dataset")
    if cached is None:
        raise _not_cached(name, reason)
    return cached


def reach_modelscope_dataset(name: str, parsed: HubName) -> None:
    """Check within seconds that a dataset is on ModelScope, or in the cache without a network. Errors: InputError."""
    modelscope_client.check_installed(name)
    if (reason := why_unreachable("modelscope")) is None:
        with _told(name):
            modelscope_client.listed(parsed, "dataset")
    elif modelscope_client.cached_folder(parsed, "dataset") is None:
        raise _not_cached(name, reason)


def require_network(name: str, hub: Hub | None = None) -> None:
    """Raise InputError with a remedy where the hub of a name cannot be reached."""
    if (reason := why_unreachable(hub or hub_name(name).hub)) is not None:
        raise _not_cached(name, reason)


def why_unreachable(hub: Hub) -> str | None:
    """Why a hub cannot be asked, or None."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return OFFLINE
    public = "https://huggingface.co"
    named = modelscope_client.endpoint() if hub == "modelscope" else os.environ.get("HF_ENDPOINT") or public
    endpoint = urlsplit(named)
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    try:
        socket.create_connection((endpoint.hostname or "", port), timeout=PATIENCE).close()
    except OSError:
        return f"{endpoint.hostname} cannot be reached"
    return None


def _not_cached(name: str, reason: str) -> InputError:
    remedy = "Download it on a machine with a network, and give the path"
    if reason == OFFLINE:
        return InputError(name, "is not in the cache, and HF_HUB_OFFLINE is set", remedy)
    return InputError(name, f"is not a path here, and {reason}", remedy)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Errors of the clients of both hubs as an InputError that names the repository."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    expected: tuple[type[Exception], ...] = (HfHubHTTPError, OSError, *modelscope_client.errors())
    try:
        yield
    except RevisionNotFoundError:
        raise InputError(
            name, "has no such revision", "Name a branch, a tag or a commit after the @"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            name, "is neither a path here nor a repository on the hub", "Check the name"
        ) from None
    except modelscope_client.NotThere as error:
        raise InputError(name, error.args[0], "Check the name and the revision") from None
    except expected as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(name, f"cannot be downloaded ({reason})", BY_HAND) from error


def _has_weights(folder: Path) -> bool:
    """Whether a folder has weights, and every shard that their index names."""
    for pattern in WEIGHTS:
        if any(folder.glob(pattern)):
            indexes = [read_object(path) for path in folder.glob(f"{pattern}.index.json")]
            return all(
                (folder / f).is_file() for index in indexes for f in index.get("weight_map", {}).values()
            )
    return False
