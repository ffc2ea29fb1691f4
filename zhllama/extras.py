"""The extras of zhllama: their packages, which of them are installed, and the command that installs an extra here."""

import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlparse

from zhllama.errors import MissingPackage
from zhllama.io.json import parse_json

HIDDEN = ("all", "dev")  # every extra at once, and what the tests need
HEAVY = "train"  # its torch is built for CUDA by default, some 6 GB
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Extra:
    """An extra and its packages, those of extras that it includes too, each with its installed version or None."""

    name: str
    packages: Mapping[str, str | None]

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name, installed in self.packages.items() if installed is None]


def extras() -> dict[str, Extra]:
    """All extras by name; empty where zhllama itself is not installed."""
    names = _packages()
    return {
        name: Extra(name, {package: _version(package) for package in packages})
        for name, packages in names.items()
    }


def extra_of(module: str) -> str:
    """The extra whose package a module belongs to; `all` if none is known."""
    package = module.partition(".")[0].replace("_", "-").lower()
    for name, packages in _packages().items():
        if package in packages:
            return name
    return next((name for name, modules in _BROUGHT.items() if package in modules), "all")


# Modules of packages that a package of an extra brings along, as far as zhllama can meet them first.
_BROUGHT = {"corpus": ("loguru", "ahocorasick"), "train": ("huggingface-hub",), "eval": ("lm-eval",)}


def require(what: str, *names: str) -> None:
    """Raise MissingPackage for `what` if packages of the extras `names` are not installed; the remedy installs them all."""
    known = extras()
    missing = {name: known[name].missing for name in names if name in known and known[name].missing}
    if missing:
        packages = dict.fromkeys(package for lacking in missing.values() for package in lacking)
        raise MissingPackage(what, ", ".join(packages), *missing)


def install_command(*names: str) -> str:
    """The command that installs some extras into the environment of this process.

    It differs between a checkout, a uv tool, pipx and a virtual environment. `uv tool` and `pipx` replace what they
    installed, so extras that are there are named again. Where no NVIDIA GPU is found, torch is taken without CUDA.
    """
    prefix = Path(sys.prefix)
    uv_tool, pipx = (prefix / "uv-receipt.toml").is_file(), (prefix / "pipx_metadata.json").is_file()
    if uv_tool or pipx:
        installed = [name for name, extra in extras().items() if not extra.missing]
        names = tuple(dict.fromkeys((*installed, *names)))
    target = _target(",".join(names))
    without_cuda = HEAVY in names and sys.platform == "linux" and shutil.which("nvidia-smi") is None
    if uv_tool:
        return f"uv tool install --force {target}" + " --torch-backend cpu" * without_cuda
    if pipx:
        return f"pipx install --force {target}" + f" --pip-args '{CPU_WHEELS}'" * without_cuda
    python = shlex.quote(sys.executable)
    if find_spec("pip") is None:
        return f"uv pip install --python {python} {target}" + " --torch-backend cpu" * without_cuda
    return f"{python} -m pip install {target}" + f" {CPU_WHEELS}" * without_cuda


def install_package(package: str) -> str:
    """The command that installs a package that belongs to no extra into the environment of this process."""
    python = shlex.quote(sys.executable)
    if find_spec("pip") is None:
        return f"uv pip install --python {python} {package}"
    return f"{python} -m pip install {package}"


def program() -> str:
    """How this installation is called in the user's shell: `zhllama` if that is it, else by its path."""
    name = "zhllama.exe" if sys.platform == "win32" else "zhllama"
    script = Path(sys.executable).with_name(name)
    found = shutil.which("zhllama")
    if found and Path(found).resolve() == script.resolve():
        return "zhllama"
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m zhllama"
    return shlex.quote(str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script))


def _target(names: str) -> str:
    """What to install: the checkout or address that zhllama was installed from, with extras."""
    try:
        raw = distribution("zhllama").read_text("direct_url.json")
    except PackageNotFoundError:
        raw = None
    source = parse_json(raw, "direct_url.json") if raw else {}
    url = source.get("url", "")
    if source.get("dir_info", {}).get("editable"):
        return f"-e {shlex.quote(f'{unquote(urlparse(url).path)}[{names}]')}"
    if url and isinstance(vcs := source.get("vcs_info"), dict):  # of a repository, as git+https://...
        url = f"{vcs.get('vcs', 'git')}+{url}"
    if url:
        return shlex.quote(f"zhllama[{names}] @ {url}")
    return f"'zhllama[{names}]'"


@cache
def _packages() -> dict[str, tuple[str, ...]]:
    """The names of the packages of each extra."""
    try:
        listed = requires("zhllama") or []
    except PackageNotFoundError:
        return {}
    packages: dict[str, list[str]] = {}
    for requirement in listed:
        name, _, condition = requirement.partition(";")
        extra = re.search(r"extra == ['\"](\w+)", condition)
        if extra and extra[1] not in HIDDEN and _applies(condition):
            packages.setdefault(extra[1], []).append(name.strip())
    return {extra: tuple(_expanded(names, packages)) for extra, names in packages.items()}


def _expanded(names: list[str], packages: Mapping[str, list[str]]) -> list[str]:
    """Names of packages without versions; `zhllama[serve]` stands for the packages of that extra."""
    expanded = []
    for name in names:
        included = re.match(r"zhllama\[([\w,]+)\]", name)
        for extra in included[1].split(",") if included else ():
            expanded += _expanded(packages.get(extra, []), packages)
        if not included:
            expanded.append(re.split(r"[^\w.-]", name)[0].lower())
    return list(dict.fromkeys(expanded))


def _applies(condition: str) -> bool:
    """Whether the condition on the platform in a requirement is met here."""
    found = re.search(r"sys_platform ([!=]=) ['\"](\w+)", condition)
    return found is None or (sys.platform == found[2]) == (found[1] == "==")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
