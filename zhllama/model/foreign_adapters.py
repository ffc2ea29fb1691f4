"""Folds published PEFT adapters into their base, in the order given, and proves the result against PEFT's own merge.

Chinese-LLaMA and Chinese-Alpaca were published so: LoRA weights, and a whole embedding and head for the larger vocabulary, which
PEFT calls `modules_to_save`. Only the tensors that an adapter names are read into memory, one at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import BrokenPromise, InputError
from zhllama.hub import hub_folder
from zhllama.hub_name import is_hub_name
from zhllama.io.files import is_present, to_json
from zhllama.io.json import read_object
from zhllama.io.safetensors import load_tensors
from zhllama.io.torch import load_torch
from zhllama.manifest import digest
from zhllama.model.copy_files import TOKENIZER_FILES, copy_missing, copy_tokenizer
from zhllama.model.embeddings import EmbeddingNames, find_matrices
from zhllama.model.export import (
    LORA,
    REPORT,
    LowRankUpdate,
    Proof,
    compare_logits,
    excess_of,
    first_difference,
    merged,
    scale_of,
    updates_of,
)
from zhllama.model.finite_weights import check_finite, refuse_not_finite
from zhllama.model.load import load_base, load_transformers_tokenizer
from zhllama.model.stored_model import StoredModel, read_stored_model
from zhllama.model.weight_files import Change, rewrite
from zhllama.pretrained import ADAPTER_CONFIG, open_adapter
from zhllama.vocab.any_tokenizer import load_any_tokenizer

if TYPE_CHECKING:
    import torch

FILES = ("adapter_model.safetensors", "adapter_model.bin")
AGAIN = "Download the adapter again"
OTHER_BASE = "Give the base that it was trained on"
BASE = "base.json"  # names the base of an adapter of zhllama: {"model": NAME, "files": {FILE: sha256}}
TOKENS = ".token_adapter.trainable_tokens_delta"


@dataclass(frozen=True)
class ForeignAdapter:
    """What one adapter does to the stored tensors of its base: matrices and single rows that it replaces, and updates that it adds.

    `rows`: ids [n] and rows [n, width] by the name of the tensor, which PEFT calls trainable tokens.
    """

    folder: Path
    updates: Mapping[str, LowRankUpdate]
    whole: "Mapping[str, torch.Tensor]"
    rows: "Mapping[str, tuple[torch.Tensor, torch.Tensor]]" = field(default_factory=dict)


@dataclass(frozen=True)
class FoldPlan:
    """A base with the adapters that are folded into it, first to last, and the tokenizer of the result; `rows` it will have."""

    base: StoredModel
    matrices: EmbeddingNames
    adapters: tuple[ForeignAdapter, ...]
    tokenizer: Path
    rows: int

    @property
    def grows(self) -> bool:
        """Whether an adapter has more rows than the base."""
        return self.rows != self.base.weights.tensors[self.matrices.input].shape[0]

    @property
    def changed(self) -> set[str]:
        """The stored names of all tensors that change."""
        return {
            name for adapter in self.adapters for name in (*adapter.updates, *adapter.whole, *adapter.rows)
        }


def adapter_folder(name: str | Path) -> Path:
    """The folder of an adapter, or the cached copy of a hub name, downloaded where the network allows. Errors: InputError."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not is_hub_name(str(name)):
        raise InputError(name, "is not the folder of a PEFT adapter", "Name a folder or a hub name")
    return hub_folder(str(name))


def plan_fold(base: Path, adapters: Sequence[Path], tokenizer: Path | None) -> FoldPlan:
    """Read the adapters and check that they fit the base, each other and the tokenizer.

    The tokenizer is by default that of the last adapter that has one, else the base's. Errors: InputError.
    """
    stored = read_stored_model(base)
    _check_base(adapters[0], stored)
    matrices = find_matrices(stored)
    old = stored.weights.tensors[matrices.input].shape[0]
    read = tuple(_read(folder, stored, matrices) for folder in adapters)
    folder = tokenizer or tokenizer_folder(base, adapters)
    size = load_any_tokenizer(folder).size
    rows = old
    for adapter in read:
        if any(int(ids.max()) >= rows for ids, _ in adapter.rows.values()):
            message = f"trained rows beyond the {rows:,} of its base"
            raise InputError(adapter.folder, message, OTHER_BASE)
        counts = {len(adapter.whole[name]) for name in _row_names(matrices) if name in adapter.whole}
        if len(counts) > 1:
            listed = " and ".join(f"{count:,}" for count in sorted(counts))
            raise InputError(adapter.folder, f"has {listed} rows in its matrices", AGAIN)
        if counts:
            (rows,) = counts
            missing = [n for n in _row_names(matrices) if n not in adapter.whole]
            if missing and rows != old:
                message = f"has {rows:,} rows for {old:,} of its base, and none for {missing[0]}"
                raise InputError(adapter.folder, message, OTHER_BASE)
    if rows != old and matrices.per_layer is not None:
        message = f"has {rows:,} rows for {old:,} of its base, and none for {matrices.per_layer}"
        raise InputError(adapters[-1], message, "Merge it with the program that wrote it")
    if size != rows and (size > rows or rows != old):
        message = f"has {size:,} ids, and the model with its adapters {rows:,} rows"
        remedy = "Put the tokenizer that was published with the last adapter into its folder, or name it with zhllama export --tokenizer"
        raise InputError(folder, message, remedy)
    return FoldPlan(stored, matrices, read, folder, rows)


def _check_base(adapter: Path, base: StoredModel) -> None:
    """Refuse a base whose weights are not those that an adapter names by their hashes, as `export --adapter-only` does."""
    path = adapter / BASE
    if not is_present(path):
        return
    named = read_object(path, AGAIN)
    hashes = named.get("files")
    if not isinstance(hashes, dict):
        raise InputError(path, "names no files of a base", AGAIN)
    here = weight_hashes(base)
    if set(hashes.values()) == set(here.values()):
        return
    wanted = next(
        (f"{name} {sha}" for name, sha in hashes.items() if sha not in here.values()), "fewer files"
    )
    given = next((f"{name} {sha}" for name, sha in here.items() if sha not in hashes.values()), "fewer files")
    message = f"was trained on {named.get('model')}, whose weights are {wanted} (sha256), and {base.folder.name} has {given}"
    remedy = f"Give that base, or remove {BASE} from the adapter if it is the same model in another type"
    raise InputError(adapter, message, remedy)


def weight_hashes(base: StoredModel) -> dict[str, str]:
    """The sha256 of each weight file of a base."""
    return {file: digest(base.folder / file) for file in base.weights.files}


def tokenizer_folder(base: Path, adapters: Sequence[Path]) -> Path:
    """The last adapter that has a tokenizer, else the base."""
    named = [folder for folder in adapters if any((folder / name).is_file() for name in TOKENIZER_FILES[:2])]
    return named[-1] if named else base


def _row_names(matrices: EmbeddingNames) -> list[str]:
    """The stored tensors with one row for each id."""
    return [
        name
        for name in (matrices.input, matrices.output, matrices.copy, *matrices.biases)
        if name is not None
    ]


def _read(folder: Path, base: StoredModel, matrices: EmbeddingNames) -> ForeignAdapter:
    config = read_object(folder / ADAPTER_CONFIG, "Give the folder of a PEFT adapter")
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(folder, f"contains none of {', '.join(FILES)}", AGAIN)
    tensors = load_tensors(path, AGAIN) if path.suffix == ".safetensors" else load_torch(path, AGAIN)
    if not isinstance(tensors, dict) or not all(hasattr(value, "shape") for value in tensors.values()):
        raise InputError(path, "contains something other than named tensors", AGAIN)
    check_finite(path, tensors, AGAIN)
    # PEFT saves what a matrix was before training, too.
    tensors = {k: v for k, v in tensors.items() if ".original_module." not in k}
    low_rank = {k: v for k, v in tensors.items() if ".lora_A." in k or ".lora_B." in k}
    of_rows = {k: v for k, v in tensors.items() if ".lora_embedding_" in k}
    updates = updates_of(folder, config, low_rank, base)
    updates |= _updates_of_rows(folder, config, of_rows, base, matrices)
    for name, update in updates.items():
        stored = base.weights.tensors[name].shape
        if stored != update.shape:
            message = f"changes {name} as {update.shape}, and its base stores {stored}"
            raise InputError(folder, message, OTHER_BASE)
    whole: dict[str, torch.Tensor] = {}
    rows: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    # The parameters of a tied matrix that it replaces: both get the same, or it is untied.
    sides: set[str] = set()
    for key in sorted(tensors.keys() - low_rank.keys() - of_rows.keys()):
        module, token, _ = key.partition(TOKENS)
        found = _stored_name(f"{module}.weight" if token else key, base)
        if found is None:
            raise InputError(folder, f"contains {key}, which its base lacks", OTHER_BASE)
        name, value = matrices.input if found == matrices.copy else found, tensors[key]
        shape, given = base.weights.tensors[name].shape, tuple(value.shape)
        if token:
            ids = _token_ids(folder, config, module)
            if given != (len(ids), *shape[1:]):
                message = (
                    f"stores rows of {name} as {given}, and its config and base say {(len(ids), *shape[1:])}"
                )
                raise InputError(folder, message, AGAIN)
            rows[name] = ids, value
            continue
        of_ids = name in _row_names(matrices)
        if (given[1:] if of_ids else given) != (shape[1:] if of_ids else shape):
            raise InputError(folder, f"stores {name} as {given}, and its base as {shape}", OTHER_BASE)
        is_tied = of_ids and matrices.output is None and name not in matrices.biases
        if name in whole and not whole[name].equal(value):
            if is_tied:
                raise _untied(folder, name)
            raise InputError(folder, f"stores two different tensors for {name}", AGAIN)
        if is_tied:
            sides.add(_parameter(key))
        whole[name] = value
    if len(sides) == 1 and not config.get("ensure_weight_tying"):
        raise _untied(folder, matrices.input)
    if matrices.copy is not None and matrices.input in whole:
        whole[matrices.copy] = whole[matrices.input]
    if matrices.copy is not None and matrices.input in rows:
        rows[matrices.copy] = rows[matrices.input]
    return ForeignAdapter(folder, updates, whole, rows)


def _updates_of_rows(
    folder: Path,
    config: Mapping[str, Any],
    tensors: "Mapping[str, torch.Tensor]",
    base: StoredModel,
    matrices: EmbeddingNames,
) -> dict[str, LowRankUpdate]:
    """The updates of an embedding matrix, whose factors PEFT names by themselves and keeps transposed."""
    updates = {}
    for key in tensors:
        module, found, _ = key.partition(".lora_embedding_A")
        if not found:
            continue
        name = base.names.get(f"{module.removeprefix(LORA)}.weight")
        factor = tensors.get(f"{module}.lora_embedding_B")
        if name is None or factor is None:
            raise InputError(folder, f"contains {key}, which its base lacks", OTHER_BASE)
        if matrices.output is None:
            raise _untied(folder, name)
        updates[name] = LowRankUpdate(
            tensors[key], factor, scale_of(folder, config, module, len(tensors[key])), transposed=True
        )
    return updates


def _untied(folder: Path, name: str) -> InputError:
    remedy = (
        "Train it with ensure_weight_tying=True in PEFT's config, or merge it with the program that wrote it"
    )
    return InputError(folder, f"replaces {name}, which its base ties to another matrix", remedy)


def _token_ids(folder: Path, config: Mapping[str, Any], module: str) -> "torch.Tensor":
    """The ids of the rows that an adapter trained of a module."""
    import torch

    given = config.get("trainable_token_indices")
    if isinstance(given, dict):
        path = module.removeprefix(LORA)
        given = next((ids for name, ids in given.items() if f".{path}".endswith(f".{name}")), None)
    if not isinstance(given, list) or not given or not all(type(id) is int and id >= 0 for id in given):
        message = f"has rows of {module.removeprefix(LORA)} without ids in trainable_token_indices"
        raise InputError(folder / ADAPTER_CONFIG, message, AGAIN)
    return torch.tensor(given)


def _stored_name(key: str, base: StoredModel) -> str | None:
    """The stored tensor that a whole tensor of an adapter replaces."""
    path = _parameter(key)
    parameters = dict(base.model.named_parameters(remove_duplicate=False))
    tied = (n for n, p in parameters.items() if p is parameters.get(path) and n in base.names)
    return base.names.get(path) or next((base.names[name] for name in tied), None)


def _parameter(key: str) -> str:
    """The parameter that a whole tensor of an adapter replaces; its name has parts that PEFT puts in."""
    path = key.removeprefix(LORA).replace(".base_layer", "")
    head, found, end = path.partition(".modules_to_save.")
    # After it comes the adapter's name, which newer files leave out.
    return f"{head}.{end.rpartition('.')[2]}" if found else path


def fold(plan: FoldPlan, out: Path) -> set[str]:
    """Write the base with everything folded in to `out`; return the dtypes of changed weights. Errors: OutputError."""
    weights = plan.base.weights
    refuse_not_finite(plan.base)

    def change(name: str) -> Change:
        shape = weights.tensors[name].shape
        shape = (plan.rows, *shape[1:]) if name in _row_names(plan.matrices) else shape
        return Change(shape, lambda matrix: _folded(matrix, name, plan.adapters))

    out.mkdir(parents=True, exist_ok=True)
    rewrite(weights, out, {name: change(name) for name in plan.changed})
    copy_tokenizer(plan.tokenizer, out)
    copy_missing(plan.base.folder, out)
    _write_config(plan, out)
    return {weights.tensors[name].dtype for name in plan.changed}


def _folded(matrix: "torch.Tensor", name: str, adapters: Sequence[ForeignAdapter]) -> "torch.Tensor":
    """One tensor after each adapter in turn, computed in float32 and rounded once."""
    values = matrix.float()
    for adapter in adapters:
        if name in adapter.whole:
            values = adapter.whole[name].float()
        rows = [adapter.rows[name]] if name in adapter.rows else []
        updates = [adapter.updates[name]] if name in adapter.updates else []
        values = merged(values, updates, rows)
    return values.to(matrix.dtype)


def _write_config(plan: FoldPlan, out: Path) -> None:
    config = read_object(plan.base.folder / "config.json", AGAIN)
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    text["vocab_size"] = plan.rows
    tokenizer = load_transformers_tokenizer(out)
    if config.get("pad_token_id") is None and tokenizer.pad_token_id is not None:
        config["pad_token_id"] = tokenizer.pad_token_id
    (out / "config.json").write_text(to_json(config), encoding="utf-8")


def prove_fold(
    plan: FoldPlan, out: Path, texts: Sequence[str], changed: set[str], length: int = 256
) -> Proof:
    """Compare the logits of the folded model, and every weight, with what PEFT merges itself, in float32.

    Raises BrokenPromise where they differ by more than rounding to the stored types explains.
    """
    import torch

    model = peft_merge(plan)
    different = first_difference(model, out)
    tokenizer = load_transformers_tokenizer(out)
    batches = [tokenizer(text, return_tensors="pt").input_ids[:, :length] for text in texts]

    def logits(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([model(input_ids=ids, use_cache=False).logits[0] for ids in batches])

    expected = logits(model)
    del model
    actual = logits(load_base(out, torch.float32).eval())
    proof = compare_logits(expected, actual, changed)
    if different is not None:
        raise BrokenPromise(out, f"differs from PEFT's merge in the weight {different}", REPORT)
    if (reason := excess_of(proof)) is not None:
        raise BrokenPromise(out, f"differs from PEFT's merge: {reason}", REPORT)
    return proof


def peft_merge(plan: FoldPlan) -> Any:
    """The model that PEFT makes of the base and the adapters, each merged before the next is opened, in float32.

    PEFT opens an adapter with whole matrices on a model of as many rows alone: Chinese-LLaMA-Plus has 49,953,
    Chinese-Alpaca-Plus, which follows it, one more.
    """
    import torch

    model = load_base(plan.base.folder, torch.float32)
    rows = model.get_input_embeddings().weight.shape[0]
    for adapter in plan.adapters:
        whole = next(
            (adapter.whole[name] for name in _row_names(plan.matrices) if name in adapter.whole), None
        )
        if whole is not None and len(whole) != rows:
            rows = len(whole)
            model.resize_token_embeddings(rows, mean_resizing=False)
        model = open_adapter(model, adapter.folder).merge_and_unload()
    return model.eval()
