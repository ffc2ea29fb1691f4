"""Describes text sources by YAML files, shipped in corpora/ or written by the user; a local folder is a source too."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from zhllama.errors import InputError
from zhllama.io.records import Fields
from zhllama.io.yaml import read_yaml
from zhllama.resources import shipped


class CorpusSource(BaseModel):
    """One entry of corpora/, as its YAML file describes it; `field` is one field with text, or several to be joined."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    title_zh: str
    kind: Literal["hub", "url", "local"]
    hub: str | None = None
    url: str | None = None
    path: str | None = None
    config: str | None = None
    split: str | None = None
    field: str | list[str]
    language: str
    script: str
    domain: str
    size: str
    licence: str
    checked: str
    notes: str = ""

    @model_validator(mode="after")
    def _has_location(self) -> Self:
        if getattr(self, self.kind if self.kind != "local" else "path") is None:
            raise ValueError(f"kind {self.kind} needs {'path' if self.kind == 'local' else self.kind}")
        return self

    @property
    def place(self) -> str:
        """The Hub id, URL or path, depending on `kind`."""
        return self.hub or self.url or self.path or ""

    @property
    def fields(self) -> Fields:
        return (self.field,) if isinstance(self.field, str) else tuple(self.field)


def shipped_sources() -> list[CorpusSource]:
    """Every source in corpora/, by name."""
    return [read_source(path) for path in sorted(shipped("corpora").glob("*.yaml"))]


def find_source(name: str) -> CorpusSource:
    """A shipped source by name, the user's own by its YAML file, or a local file or folder by path. Errors: InputError."""
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return read_source(path)
    corpora = shipped("corpora")
    names = sorted(p.stem for p in corpora.glob("*.yaml"))
    if name in names:
        return read_source(corpora / f"{name}.yaml")
    if path.exists():
        return _local(path)
    raise InputError(
        name,
        "is neither a known source, nor a .yaml file, nor a folder",
        f"Known sources: {', '.join(names)}",
    )


def read_source(path: Path) -> CorpusSource:
    """A source from its YAML file; a `path` in it is relative to that file. Errors: InputError."""
    loaded = read_yaml(path, "a mapping of fields (see corpora/README.md)")
    try:
        source = CorpusSource.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(path, f"{where}: {first['msg']}", "See corpora/README.md for the fields") from None
    if source.path is not None:
        source = source.model_copy(update={"path": str(path.parent / source.path)})
    return source


def _local(path: Path) -> CorpusSource:
    return CorpusSource(
        name=path.resolve().name or "folder",
        title=str(path),
        title_zh=str(path),
        kind="local",
        path=str(path),
        field="text",
        language="unknown",
        script="unknown",
        domain="unknown",
        size="unknown",
        licence="unknown",
        checked="a folder on this machine",
    )
