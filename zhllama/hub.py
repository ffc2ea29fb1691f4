"""Finds files of a hub model in the cache or downloads them; fails at once without a network."""

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from zhllama.errors import InputError

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
