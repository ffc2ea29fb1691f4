"""Opens a model from anywhere: a transformers folder, a hub name, or a run folder with the whole chain behind it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zhllama.errors import InputError, ZhllamaError
from zhllama.hub import is_hub_name, require_network
from zhllama.io.json import read_object
from zhllama.io.safetensors import load_tensors
from zhllama.manifest import as_it_was, check_outputs, read_config, read_manifest
from zhllama.pretrained import open_adapter, open_causal, open_config, open_tokenizer
from zhllama.run_folder import CONFIG, MANIFEST

if TYPE_CHECKING:
    import torch

ROWS, ADAPTER, TOKENIZER, GROWN, TUNED = "rows.safetensors", "adapter", "tokenizer", "grown", "tuned"
MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.model", "*.jinja", "*.txt", "*.tiktoken")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
WANTED = ["*.json", "*.model", "*.txt", "*.tiktoken", "*.jinja"]


@dataclass(frozen=True)
class Chain:
    """What a model is made of: a plain folder, then the runs that trained it, oldest first, and its tokenizer."""

    base: Path
    runs: tuple[Path, ...]
    tokenizer: Path


class OpenedModel(NamedTuple):
    """A transformers model and its tokenizer."""

    model: Any
    tokenizer: Any


def resolve_chain(path: str | Path) -> Chain:
    """Follow a run folder's `model` back to a plain transformers folder; a plain folder or hub name is its own chain.

    A run that grew its model keeps the grown one in `grown/`, and one that trained all of it the trained one in `tuned/`:
    there its chain begins.
    Errors: InputError for an unfinished run, for a base that is gone, and for one that is not what was trained on.
    """
    folder = local_folder(path)
    runs: list[Path] = []
    while not (folder / "config.json").is_file():
        if folder in runs:
            raise InputError(folder, "names itself as its own base", "Make the run again")
        runs.insert(0, folder)
        whole = next((folder / n for n in (TUNED, GROWN) if (folder / n / "config.json").is_file()), None)
        if whole is not None:
            folder = whole
            break
        folder = _base_of(folder)
    for run in runs:
        _check_inputs(run, folder)
        check_outputs([run], ROWS, ADAPTER, TOKENIZER, GROWN, TUNED)
    check_outputs([folder], *MODEL_FILES)
    last = runs[-1] if runs else folder
    return Chain(folder, tuple(runs), last / TOKENIZER if (last / TOKENIZER).is_dir() else folder)


def model_files(folder: Path) -> list[Path]:
    """What of a plain folder makes the model and its tokenizer, for a manifest to name."""
    return [p for p in sorted(folder.iterdir()) if p.suffix in (".safetensors", ".bin", ".json", ".model")]


def made_of(chain: Chain) -> list[Path]:
    """What a manifest is to name of a chain: the base's files, and the manifests of the runs that trained it."""
    return [*model_files(chain.base), *(run / MANIFEST for run in chain.runs)]


def _base_of(run: Path) -> Path:
    if not (run / CONFIG).is_file() and not (run / MANIFEST).is_file():
        raise InputError(
            run, "holds neither a model (config.json) nor a run of zhllama", "Name another folder"
        )
    read_manifest(run)
    named = read_config(run).get("model")
    if not isinstance(named, str):
        raise InputError(run, "is a run that trained no model", "Name a model or a pretrain run")
    for candidate in (Path(named), run.parent / named):
        if candidate.is_dir():
            return candidate.resolve()
    return local_folder(named)


def _check_inputs(run: Path, base: Path) -> None:
    """Refuse a base whose files are no longer those that the run's manifest recorded."""
    for recorded in read_manifest(run)["inputs"]:
        path = Path(recorded["path"])
        if path.parent != base.resolve() or not path.is_file():
            continue
        if not as_it_was(recorded):
            raise InputError(
                run, f"was trained on another model: {path} has changed since", "Put the old one back"
            )


def local_folder(path: str | Path) -> Path:
    """The folder itself, or of a hub name its copy in the cache, fetched where the network allows.

    Errors: InputError at once where it is neither, and where the hub cannot be reached.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not is_hub_name(str(path)):
        raise InputError(
            path, "is not a model folder", "Name a folder with config.json, a run, or a hub name"
        )
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(str(path), local_files_only=True))
        if any(found.glob("*.safetensors")) or any(found.glob("*.bin")):
            return found
    except LocalEntryNotFoundError:
        pass
    require_network(str(path))
    try:
        files = [s.rfilename for s in HfApi().model_info(str(path)).siblings or []]
        weights = "*.safetensors" if any(f.endswith(".safetensors") for f in files) else "*.bin"
        return Path(snapshot_download(str(path), allow_patterns=[*WANTED, weights]))
    except (HfHubHTTPError, OSError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(
            path, f"cannot be fetched ({told})", "Download it by hand and give the path"
        ) from error


def read_model_config(folder: Path) -> Any:
    """The transformers config of a plain folder; a model that would need its own code is refused."""
    path = folder / "config.json"
    if not path.exists():
        raise InputError(folder, "has no config.json", "Name a transformers folder or a finished run")
    raw = read_object(path, "Fetch the model again")
    if not isinstance(raw.get("model_type", ""), str):
        raise InputError(path, "is not a model's config", "Fetch the model again")
    try:
        return open_config(folder)
    except ZhllamaError:
        raise
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(path, f"is not a model's config ({told})", "Fetch the model again") from error


def open_model(
    path: str | Path,
    *,
    dtype: "torch.dtype | None" = None,
    merge: bool = True,
    loading: Mapping[str, Any] | None = None,
) -> OpenedModel:
    """A model ready for use, on the CPU unless `loading`, more for from_pretrained, says otherwise, with its tokenizer.

    None for `dtype` keeps the one it is stored in.

    Of a run: base, then each run's rows and adapter in their order. With `merge` the adapters are folded into the
    weights, without they stand beside them as a PEFT model, all active.
    Errors: InputError, also for rows and adapters that do not fit the base.
    """
    chain = resolve_chain(path)
    model = load_base(chain.base, dtype, loading)
    for run in chain.runs:
        apply_trained_rows(model, run)
    adapters = [run / ADAPTER for run in chain.runs if (run / ADAPTER).is_dir()]
    if adapters:
        model = _with_adapters(model, adapters)
        model = model.merge_and_unload() if merge else model
    model.eval()
    tokenizer = load_tokenizer(chain.tokenizer)
    settings = model.generation_config
    settings.eos_token_id = end_ids(settings.eos_token_id, tokenizer)
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
    return OpenedModel(model, tokenizer)


def end_ids(known: int | list[int] | None, tokenizer: Any) -> int | list[int] | None:
    """What ends a model's text: the end that its tokenizer names, which a chat template may have brought, then those known."""
    held = known if isinstance(known, list) else [] if known is None else [known]
    ids = list(dict.fromkeys([*([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]), *held]))
    return ids if len(ids) > 1 else ids[0] if ids else None


def load_base(
    folder: Path, dtype: "torch.dtype | None" = None, loading: Mapping[str, Any] | None = None
) -> Any:
    """The causal language model of a plain transformers folder; refuses weights that are cut off or incomplete."""
    config = read_model_config(folder)
    try:
        model, told = open_causal(
            folder, config, dtype=dtype or "auto", output_loading_info=True, **(loading or {})
        )
    except ZhllamaError:
        raise
    except Exception as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(
            folder, f"cannot be loaded ({type(error).__name__}: {first})", "Fetch the model again"
        ) from error
    if told.get("missing_keys"):
        raise InputError(
            folder,
            f"lacks the weights {', '.join(sorted(told['missing_keys'])[:3])}",
            "Fetch the model again",
        )
    return model


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder as transformers loads it."""
    if not any((folder / name).is_file() for name in (*TOKENIZER_FILES, "tokenizer_config.json")):
        raise InputError(folder, "has no tokenizer", "Put tokenizer.json or tokenizer.model there")
    try:
        return open_tokenizer(folder)
    except ZhllamaError:
        raise
    except Exception as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(
            folder, f"has a tokenizer that cannot be loaded ({first})", "Make it again"
        ) from error


def read_trained_rows(run: Path) -> Iterator[tuple[str, "torch.Tensor", "torch.Tensor"]]:
    """What a run trained of the matrices, as (`input` or `output`, ids of the rows, the rows)."""
    path = run / ROWS
    if not path.is_file():
        return
    tensors = load_tensors(path, "Make the run again")
    for which in ("input", "output"):
        if f"{which}_rows" in tensors:
            if f"{which}_ids" not in tensors:
                raise InputError(path, f"holds {which} rows without their ids", "Make the run again")
            yield which, tensors[f"{which}_ids"], tensors[f"{which}_rows"]


def apply_trained_rows(model: Any, run: Path) -> None:
    """Write a run's trained rows into a model's matrices; InputError where they do not fit."""
    import torch

    for which, ids, rows in read_trained_rows(run):
        layer = model.get_input_embeddings() if which == "input" else model.get_output_embeddings()
        weight = layer.weight
        check_rows(run, tuple(weight.shape), ids, rows)
        with torch.no_grad():
            weight[ids.to(weight.device)] = rows.to(weight)


def check_rows(run: Path, shape: tuple[int, ...], ids: "torch.Tensor", rows: "torch.Tensor") -> None:
    """Refuse rows that are wider than the matrix or whose ids lie beyond it."""
    if rows.shape[1] != shape[1]:
        raise InputError(
            run,
            f"holds rows of {rows.shape[1]} numbers and its base has {shape[1]}",
            "Give the base it was trained on",
        )
    if ids.numel() and int(ids.max()) >= shape[0]:
        raise InputError(
            run,
            f"trained the row of id {int(ids.max())}, and its base has {shape[0]} rows",
            "Give the base it was trained on",
        )


def _with_adapters(model: Any, adapters: list[Path]) -> Any:
    names = [f"run{number}" for number in range(len(adapters))]
    wrapped: Any = model
    for name, folder in zip(names, adapters, strict=True):
        try:
            wrapped = open_adapter(wrapped, folder, name)
        except ZhllamaError:
            raise
        except Exception as error:
            first = " ".join(str(error).split())[:200]
            raise InputError(
                folder,
                f"is an adapter that does not fit its base ({first})",
                "Give the base it was trained on",
            ) from error
    wrapped.base_model.set_adapter(names)
    return wrapped
