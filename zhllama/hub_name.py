"""Reads names of models and datasets on a hub: `OWNER/NAME`, `modelscope:OWNER/NAME`, each with `@REVISION`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zhllama.errors import InputError

Hub = Literal["huggingface", "modelscope"]
PREFIXES: dict[str, Hub] = {"huggingface": "huggingface", "hf": "huggingface", "modelscope": "modelscope"}
DEFAULT = "ZHLLAMA_HUB"  # the environment variable that names the hub of a name without a prefix
NAME = re.compile(r"(?:(\w+):)?((?!\.+/)[\w.-]+/[\w.-]+)(?:@([\w.+-]+(?:/[\w.+-]+)*))?")
PAGES: dict[Hub, str] = {
    "huggingface": "https://huggingface.co/{}",
    "modelscope": "https://modelscope.cn/models/{}",
}


@dataclass(frozen=True)
class HubName:
    """A repository on a hub and the branch, tag or commit of it; without one, the hub's default branch."""

    hub: Hub
    id: str
    revision: str | None = None

    @property
    def page(self) -> str:
        """The address of a model's page."""
        return PAGES[self.hub].format(self.id)


def parse_hub_name(name: str, default: Hub | None = None) -> HubName | None:
    """The repository that a name means; None for an existing path and for any other text.

    default: the hub of a name without a prefix, by default that of ZHLLAMA_HUB. Errors: InputError for an unknown hub there.
    """
    found = NAME.fullmatch(name)
    if found is None or (found[1] and found[1] not in PREFIXES) or Path(name).exists():
        return None
    hub = PREFIXES[found[1]] if found[1] else default or default_hub()
    return HubName(hub, found[2], found[3])


def is_hub_name(name: str) -> bool:
    """Whether a name is not an existing path and has the form of a hub name."""
    return parse_hub_name(name) is not None


def hub_name(name: str, default: Hub | None = None) -> HubName:
    """As `parse_hub_name`. Errors: InputError for a text that is not a hub name."""
    found = parse_hub_name(name, default)
    if found is None:
        raise InputError(name, "is not a hub name", "Write OWNER/NAME or modelscope:OWNER/NAME")
    return found


def default_hub() -> Hub:
    """The hub that ZHLLAMA_HUB names, or Hugging Face. Errors: InputError for another value."""
    value = os.environ.get(DEFAULT, "").strip().lower()
    if value and value not in PREFIXES:
        raise InputError(DEFAULT, f"is {value!r}", "Set it to huggingface or modelscope")
    return PREFIXES[value] if value else "huggingface"
