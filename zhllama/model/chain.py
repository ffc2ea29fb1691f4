"""Resolves the chain of a model: its base folder and the runs that trained it."""

from dataclasses import dataclass
from pathlib import Path

from zhllama.errors import InputError
from zhllama.hub import hub_folder
from zhllama.hub_name import is_hub_name
from zhllama.io.files import is_present
from zhllama.io.gguf import is_gguf
from zhllama.manifest import check_outputs, read_config, read_manifest, unchanged
from zhllama.pretrained import ADAPTER_CONFIG
from zhllama.run_folder import CONFIG, MANIFEST

# What a run folder contains of its model: trained rows, a LoRA adapter, the tokenizer, and whole models.
ROWS, ADAPTER, TOKENIZER, GROWN, TUNED = "rows.safetensors", "adapter", "tokenizer", "grown", "tuned"
MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.model", "*.jinja", "*.txt", "*.tiktoken")


@dataclass(frozen=True)
class Chain:
    """A plain base folder, the runs that trained it, oldest first, and the folder of the model's tokenizer.

    `gguf`: the file that the base was converted from, if any.
    """

    base: Path
    runs: tuple[Path, ...]
    tokenizer: Path
    gguf: Path | None = None

    @property
    def model(self) -> Path:
        """What a run that trains this model records: its last run, or the base, which a GGUF file stands for."""
        return self.runs[-1] if self.runs else self.gguf or self.base


def resolve_chain(path: str | Path) -> Chain:
    """Follow a run folder's `model` back to a plain transformers folder; a plain folder or hub name is its own chain.

    The chain begins at a run that wrote a whole model: a grown one in `grown/`, or a fully trained one in `tuned/`.
    Errors: InputError for an unfinished run, a missing base, and a base other than the one that the run trained.
    """
    folder = local_folder(path)
    runs: list[Path] = []
    while not (folder / "config.json").is_file():
        if folder in runs:
            raise InputError(folder, "names itself as its own base", "Start the run over")
        runs.insert(0, folder)
        whole = next((folder / n for n in (TUNED, GROWN) if (folder / n / "config.json").is_file()), None)
        if whole is not None:
            folder = whole
            break
        folder = base_of(folder)
    for run in runs:
        check_inputs(run, folder)
        check_outputs([run], ROWS, ADAPTER, TOKENIZER, GROWN, TUNED)
    check_outputs([folder], *MODEL_FILES)
    last = runs[-1] if runs else folder
    named = Path(path).expanduser()
    return Chain(
        folder,
        tuple(runs),
        last / TOKENIZER if (last / TOKENIZER).is_dir() else folder,
        named.resolve() if named.is_file() else None,
    )


def model_files(folder: Path) -> list[Path]:
    """The files of a plain folder that make up the model and its tokenizer, for a manifest's inputs."""
    return [p for p in sorted(folder.iterdir()) if p.suffix in (".safetensors", ".bin", ".json", ".model")]


def chain_files(chain: Chain) -> list[Path]:
    """The files of a chain for a manifest's inputs: the base's files, and the manifests of its runs."""
    return [*model_files(chain.base), *(run / MANIFEST for run in chain.runs)]


def base_of(run: Path, key: str = "model") -> Path:
    """The folder of the model that a run started from, which its config names by `key`: another run, or a plain folder.

    Errors: InputError for a folder that is no run of a model, and for a model that is gone.
    """
    if not (run / CONFIG).is_file() and not (run / MANIFEST).is_file():
        if is_present(run / ADAPTER_CONFIG):
            remedy = f"Give its base as the model, and --adapter {run.name}"
            raise InputError(run, "is an adapter, not a model", remedy)
        raise InputError(
            run, "contains neither a model (config.json) nor a zhllama run", "Name another folder"
        )
    read_manifest(run)
    config = read_config(run)
    model = config.get(key)
    if not isinstance(model, str):
        raise InputError(run, "is a run that trained no model", "Name a model or a pretrain run")
    found = next((path.resolve() for path in (Path(model), run.parent / model) if path.is_dir()), None)
    if config.get("adapter"):
        from zhllama.model.folded_models import folded_folder  # opens the folded model through a chain

        return folded_folder(found or model, config["adapter"])
    return found or local_folder(model)


def check_inputs(run: Path, base: Path) -> None:
    """Refuse a base whose files differ from those that the run's manifest recorded."""
    for recorded in read_manifest(run)["inputs"]:
        path = Path(recorded["path"])
        if path.parent != base.resolve() or not path.is_file():
            continue
        if not unchanged(recorded):
            raise InputError(
                run, f"was trained on another model: {path} has changed since", "Restore the old file"
            )


def local_folder(path: str | Path) -> Path:
    """The folder itself, the cached copy of a hub name, downloaded where the network allows, or that of a GGUF file.

    Errors: those of a GGUF file that cannot be converted; InputError for a path that is neither a folder nor a hub name, and for a hub that cannot be reached.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if is_gguf(folder):
        from zhllama.model.gguf_import import imported_folder  # opens the converted model through a chain

        return imported_folder(folder)
    if not is_hub_name(str(path)):
        remedy = "Name a folder with config.json, a run, a GGUF file, or a hub name"
        raise InputError(path, "is not a model folder", remedy)
    return hub_folder(str(path))
