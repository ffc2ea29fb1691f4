"""What is known of a run before a weight is read: the model's chain, whether the tokenizer fits, which rows are new."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.errors import InputError, OptionError
from zhllama.io.json import read_object
from zhllama.io.text import read_documents
from zhllama.manifest import read_manifest
from zhllama.model.chain import Chain, chain_files, resolve_chain
from zhllama.model.grow import Grown, grow
from zhllama.model.grow import plan_growth as plan_growth
from zhllama.model.load import read_model_config
from zhllama.pretrained import config_of
from zhllama.run import Run
from zhllama.run_folder import MANIFEST
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.mixture import Mixture, Stream, WeightedSource, cached_blocks
from zhllama.training.options import TrainingOptions
from zhllama.training.packed_blocks import PackedBlocks
from zhllama.training.validation import ValidationSet, sample_texts
from zhllama.vocab.any_tokenizer import load_any_tokenizer


@dataclass(frozen=True)
class PretrainingJob:
    """What is trained on what: a model, its text by label, the text kept aside, and where packed blocks lie."""

    model: str
    tokenizer: Path | None
    sources: tuple[WeightedSource, ...]
    heldout: tuple[WeightedSource, ...]
    cache: Path
    streamed: bool = False
    field: str = "text"
    alone: bool = False

    def blocks(self, tokens: DocumentTokenizer, size: int, read: Callable[[int], None]) -> list[PackedBlocks]:
        """The text of each source, packed; none of it where it is streamed."""
        return (
            []
            if self.streamed
            else [
                cached_blocks(source, tokens, size, self.cache, field=self.field, advance=read)
                for source in self.sources
            ]
        )

    def examples(
        self, tokens: DocumentTokenizer, options: TrainingOptions, blocks: Sequence[PackedBlocks], count: int
    ) -> Any:
        """Blocks drawn by weight, `count` of them, or as they are read without end."""
        if self.streamed:
            return Stream(self.sources, tokens, options.block_size, options.seed, self.field)
        return Mixture(blocks, [source.weight for source in self.sources], count, options.seed)

    def held_out(
        self, tokens: DocumentTokenizer, size: int, blocks: Sequence[PackedBlocks]
    ) -> list[ValidationSet]:
        """What is given to be measured; else what packing kept aside, and the shipped samples of zh and en where none is."""
        texts: dict[str, list[str]] = {}
        if self.heldout:
            for source in self.heldout:
                texts.setdefault(source.label, []).extend(read_documents(source.files, self.field))
        else:
            for source, some in zip(self.sources, blocks, strict=False):
                texts.setdefault(source.label, []).extend(some.aside())
            for label in ("zh", "en"):
                if not texts.get(label):
                    texts[label] = sample_texts(label)
        return [ValidationSet.of(label, some, tokens, size) for label, some in texts.items() if some]

    def grow(self, ground: "ModelInfo", folder: Path, seed: int) -> Grown:
        """The base with rows for the larger vocabulary, into `folder`."""
        return grow(ground.chain.base, ground.tokens.folder, folder, seed=seed)

    def report(self, run: Run, blocks: Sequence[PackedBlocks]) -> dict[str, Any]:
        """Text has nothing to be left out."""
        return {}


@dataclass(frozen=True)
class ModelInfo:
    """The model that is trained: its chain and config, the rows that it has when training begins, and had before it grew.

    `n_old` is None where nothing says so. `grows`: the tokenizer extends the model's own, so rows are still to be added.
    """

    chain: Chain
    config: Any
    tokens: DocumentTokenizer
    rows: int
    n_old: int | None
    grows: bool

    def old_rows(self) -> int:
        """Rows before the model grew; OptionError where nothing says so."""
        if self.n_old is None:
            told = f"nothing says which rows of {self.chain.base} are new"
            remedy = "Grow it with zhllama grow, give `old_rows` N, or `rows` all"
            raise OptionError("rows new", told, remedy)
        return self.n_old

    def inputs(self) -> list[Path]:
        """Files of the base, and manifests of the runs between, that this run's manifest names."""
        return chain_files(self.chain)


def inspect_model(job: PretrainingJob, options: TrainingOptions) -> ModelInfo:
    """Resolve the model's chain and see whether the tokenizer fits; InputError where it cannot."""
    chain = resolve_chain(job.model)
    config = read_model_config(chain.base)
    rows = int(config.get_text_config().vocab_size)
    check_old_rows(options, rows)
    tokens = DocumentTokenizer.open(job.tokenizer or chain.tokenizer)
    if job.tokenizer is None or same_vocabulary(chain.tokenizer, tokens):
        if tokens.size > rows:
            told = f"has {rows:,} rows and its tokenizer {tokens.size:,} ids"
            raise InputError(chain.base, told, "Put the right tokenizer there")
        n_old = options.old_rows if options.old_rows is not None else old_rows_by_manifest(chain)
        return ModelInfo(chain, config, tokens, rows, n_old, grows=False)
    if chain.runs:
        told = f"is not the tokenizer that {chain.runs[-1]} was trained with"
        raise InputError(tokens.path, told, "Leave `tokenizer` out")
    growth = plan_growth(chain.base, tokens.folder)
    return ModelInfo(chain, config, tokens, growth.rows, growth.n_old, grows=True)


def check_old_rows(options: TrainingOptions, rows: int) -> None:
    """OptionError for more old rows than there are."""
    if options.old_rows is not None and not 0 <= options.old_rows <= rows:
        told = f"{options.old_rows:,} is not among the model's {rows:,} rows"
        raise OptionError("old_rows", told, "Give fewer")


def check_length(config: Any, length: int) -> None:
    """OptionError for more tokens than the model was made for."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and length > longest:
        told = f"is {length:,} and the model was made for {longest:,} tokens"
        raise OptionError("block_size", told, "Give fewer")


def old_rows_by_manifest(chain: Chain) -> int | None:
    """The rows that a model had before it grew, by the newest manifest that says so."""
    for folder in (*reversed(chain.runs), chain.base):
        if (folder / MANIFEST).is_file():
            told = read_manifest(folder).get("figures", {}).get("n_old")
            if isinstance(told, int):
                return told
    return None


def same_vocabulary(own: Path, given: DocumentTokenizer) -> bool:
    """Whether a model's own tokenizer is the given one: the same file, or the same pieces at the same ids."""
    try:
        mine = DocumentTokenizer.open(own)
    except InputError:
        return False
    if mine.hash == given.hash:
        return True
    left, right = load_any_tokenizer(own), load_any_tokenizer(given.path)
    return left.size == right.size and all(left.surface(id) == right.surface(id) for id in range(left.size))


def read_shape(model: str | None, shape: str | None) -> Any:
    """The config to plan for: the model's own, a config.json, or a shipped shape by its name."""
    if model is not None:
        return read_model_config(resolve_chain(model).base)
    path = Path(str(shape))
    shipped = Path(__file__).parent.parent / "recipes" / "shapes"
    if path.suffix != ".json":
        path = shipped / f"{shape}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in shipped.glob("*.json")))
        raise InputError(str(shape), "is neither a config.json nor a shipped shape", f"Shipped are: {known}")
    try:
        settings = read_object(path, "Give a transformers config.json")
        return config_of(settings, path)
    except (ValueError, KeyError, TypeError) as error:
        told = f"is not a model's config ({error})"
        raise InputError(path, told, "Give a transformers config.json") from error


def rows_to_plan(
    model: str | None, tokenizer: Path | None, config: Any, ids: int | None, options: TrainingOptions
) -> tuple[int, int]:
    """Rows that a model has before it grows, and those that it will be trained with, for a plan alone."""
    if model is not None and ids is None:
        ground = inspect_model(PretrainingJob(model, tokenizer, (), (), Path()), options)
        return ground.old_rows() if options.rows in ("new", "used") else 0, ground.rows
    rows = int(config.get_text_config().vocab_size)
    size = (
        ids if ids is not None else DocumentTokenizer.open(tokenizer).size if tokenizer is not None else rows
    )
    return options.old_rows if options.old_rows is not None else rows, max(rows, size)
