"""The model of a run, inspected before its weights are read: its chain, its tokenizer, and which rows are new."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.errors import InputError, OptionError
from zhllama.io.json import read_object
from zhllama.manifest import read_manifest
from zhllama.model.chain import Chain, chain_files, resolve_chain
from zhllama.model.growth_plan import plan_growth
from zhllama.model.load import read_model_config
from zhllama.pretrained import config_of
from zhllama.run_folder import MANIFEST
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.model_shape import can_build
from zhllama.training.options import TrainingOptions
from zhllama.vocab.any_tokenizer import load_any_tokenizer


@dataclass(frozen=True)
class ModelInfo:
    """The model to train: its chain, config and tokenizer, its rows during training, and its rows before it grew.

    `n_old` is None if no option and no manifest states it. `grows`: the tokenizer extends the model's own, so that rows
    are still to be added.
    """

    chain: Chain
    config: Any
    tokenizer: DocumentTokenizer
    rows: int
    n_old: int | None
    grows: bool

    def old_rows(self) -> int:
        """Return the number of rows before the model grew; OptionError if it is unknown."""
        if self.n_old is None:
            message = f"nothing says which rows of {self.chain.base} are new"
            remedy = "Grow it with zhllama grow, give `old_rows` N, or `rows` all"
            raise OptionError("rows new", message, remedy)
        return self.n_old

    def inputs(self) -> list[Path]:
        """Return the files of the base and the manifests of its runs, for the manifest of this run."""
        return chain_files(self.chain)


def inspect_model(model: str, tokenizer_path: Path | None, options: TrainingOptions) -> ModelInfo:
    """Resolve the model's chain and check that the tokenizer, by default the model's own, fits; InputError if not."""
    from zhllama.training.exportable import check_exportable  # imports torch, which a plan does without

    chain = resolve_chain(model)
    config = read_model_config(chain.base)
    rows = int(config.get_text_config().vocab_size)
    check_old_rows(options, rows)
    check_length(config, options.block_size)
    check_exportable(chain, options)
    tokenizer = DocumentTokenizer.open(tokenizer_path or chain.tokenizer)
    if tokenizer_path is None or same_vocabulary(chain.tokenizer, tokenizer):
        if tokenizer.size > rows:
            message = f"has {rows:,} rows and its tokenizer {tokenizer.size:,} ids"
            raise InputError(chain.base, message, "Put the right tokenizer there")
        n_old = options.old_rows if options.old_rows is not None else old_rows_from_manifests(chain)
        return ModelInfo(chain, config, tokenizer, rows, n_old, grows=False)
    if chain.runs:
        message = f"is not the tokenizer that {chain.runs[-1]} was trained with"
        raise InputError(tokenizer.path, message, "Leave `tokenizer` out")
    growth = plan_growth(chain.base, tokenizer.folder)
    return ModelInfo(chain, config, tokenizer, growth.rows, growth.n_old, grows=True)


def check_old_rows(options: TrainingOptions, rows: int) -> None:
    """Raise OptionError for more old rows than the model has."""
    if options.old_rows is not None and not 0 <= options.old_rows <= rows:
        message = f"{options.old_rows:,} is not among the model's {rows:,} rows"
        raise OptionError("old_rows", message, "Give a smaller number")


def check_length(config: Any, length: int) -> None:
    """Raise OptionError for more tokens than the model has positions for; -1 is XLNet's for any number."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and 0 < longest < length:
        message = f"is {length:,} and the model was made for {longest:,} tokens"
        raise OptionError("block_size", message, "Give a smaller number")


def old_rows_from_manifests(chain: Chain) -> int | None:
    """Return the number of rows before the model grew, from the newest manifest that states it."""
    for folder in (*reversed(chain.runs), chain.base):
        if (folder / MANIFEST).is_file():
            n_old = read_manifest(folder).get("figures", {}).get("n_old")
            if isinstance(n_old, int):
                return n_old
    return None


def same_vocabulary(own: Path, other: DocumentTokenizer) -> bool:
    """Return whether two tokenizers are the same file, or have the same pieces at the same ids."""
    try:
        if DocumentTokenizer.open(own).hash == other.hash:
            return True
    except InputError:
        return False
    left, right = load_any_tokenizer(own), load_any_tokenizer(other.path)
    return left.size == right.size and all(left.surface(id) == right.surface(id) for id in range(left.size))


def read_shape(model: str | None, shape: str | None) -> Any:
    """Return the config to plan for: the model's own, a config.json, or a shipped shape by name."""
    if model is not None:
        return read_model_config(resolve_chain(model).base)
    path = Path(str(shape))
    shipped = Path(__file__).parent.parent / "recipes" / "shapes"
    if path.suffix != ".json":
        path = shipped / f"{shape}.json"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in shipped.glob("*.json")))
        raise InputError(str(shape), "is neither a config.json nor a shipped shape", f"Shipped are: {names}")
    try:
        settings = read_object(path, "Give a transformers config.json")
        return config_of(settings, path)
    except (ValueError, KeyError, TypeError) as error:
        message = f"is not a model's config ({error})"
        raise InputError(path, message, "Give a transformers config.json") from error


def rows_to_plan(
    model: str | None, tokenizer: Path | None, config: Any, ids: int | None, options: TrainingOptions
) -> tuple[int, int]:
    """Return, for a plan, the number of rows before the model grows, and of rows during training."""
    if model is not None and ids is None and can_build():
        info = inspect_model(model, tokenizer, options)
        return info.old_rows() if options.rows in ("new", "used") else 0, info.rows
    rows = int(config.get_text_config().vocab_size)
    size = rows
    if ids is not None:
        size = ids
    elif tokenizer is not None:
        size = DocumentTokenizer.open(tokenizer).size
    n_old = options.old_rows
    if n_old is None and model is not None:
        n_old = old_rows_from_manifests(resolve_chain(model))
    return rows if n_old is None else n_old, max(rows, size)
