"""Exports a chain of runs as one plain model, shard by shard, and verifies its logits and weights against the run."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import BrokenPromise, InputError
from zhllama.io.files import to_json
from zhllama.io.json import read_object
from zhllama.io.safetensors import load_tensors
from zhllama.model.chain import ADAPTER, ROWS, Chain
from zhllama.model.copy_files import OTHER_FILES, copy_missing, copy_tokenizer
from zhllama.model.embeddings import find_matrices
from zhllama.model.finite_weights import check_finite, refuse_not_finite
from zhllama.model.load import OpenedModel, end_token_ids, load_transformers_tokenizer, open_model
from zhllama.model.stored_model import StoredLayer, StoredModel, read_stored_model
from zhllama.model.trained_rows import check_rows, read_trained_rows
from zhllama.model.weight_files import Change, read_weights, rewrite
from zhllama.pretrained import stored_names

if TYPE_CHECKING:
    import torch

LORA = "base_model.model."
# Settings of an adapter that say where its tensors belong, which is checked by their names, or that do not change what it adds.
UNDERSTOOD = {
    "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "target_parameters",
    "layers_to_transform", "layers_pattern", "modules_to_save", "trainable_token_indices", "ensure_weight_tying", "bias",
    "lora_bias", "lora_dropout", "fan_in_fan_out", "init_lora_weights", "loftq_config", "eva_config", "qalora_group_size",
    "megatron_core", "runtime_config", "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
    "revision", "inference_mode", "merge_weights", "unsloth_fixed",
}  # fmt: skip
# Ways of initializing an adapter for which PEFT takes its first values out of the base, also when it opens the adapter.
CHANGES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")
ALPHA = 8  # PEFT's default
MERGE_ELSEWHERE = "Merge it with the program that wrote it"
REPORT = "Report this with the run's manifest"
# The largest relative logit difference (RMS of the difference / RMS of the logits) that rounding the merged weights to
# the stored type explains (tests/test_export.py; docs/model.md has measured values).
PRECISION = {"F32": 1e-5, "F16": 5e-3, "BF16": 3e-2}


@dataclass(frozen=True)
class LowRankUpdate:
    """A LoRA update of one stored weight [out, in]: `scale * b @ a` is added to it; a [rank, in], b [out, rank].

    The weight is [in, out] if `transposed`.
    """

    a: "torch.Tensor"
    b: "torch.Tensor"
    scale: float
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight."""
        shape = self.b.shape[0], self.a.shape[1]
        return shape[::-1] if self.transposed else shape


@dataclass(frozen=True)
class Proof:
    """How closely the exported model's logits match the run's, on `tokens` tokens of real text.

    `difference` is the RMS of the logit difference over the RMS of the logits, and `limit` the largest one allowed;
    `agree` is the share of positions at which both models rank the same next token first.
    """

    difference: float
    limit: float
    agree: float
    tokens: int


@dataclass(frozen=True)
class MergePlan:
    """The base of a chain, and by stored name the rows and the adapters that its runs trained, oldest first."""

    base: StoredModel
    rows: "Mapping[str, Sequence[tuple[torch.Tensor, torch.Tensor]]]"
    updates: Mapping[str, Sequence[LowRankUpdate]]


def plan_merge(chain: Chain) -> MergePlan:
    """Read everything that a chain trained, and check that it can be merged into the files of its base.

    Training calls this too, before it begins. Errors: InputError for a base, rows and adapters that cannot be merged.
    """
    stored = read_stored_model(chain.base)
    weights, matrices = stored.weights, find_matrices(stored)
    names = {"input": [matrices.input, matrices.copy], "output": [matrices.output]}
    rows: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    updates: dict[str, list[LowRankUpdate]] = {}
    for run in chain.runs:
        for side, ids, values in read_trained_rows(run):
            check_finite(run / ROWS, {f"{side}_rows": values}, "Start the run over")
            for name in names[side]:
                if name is not None:
                    check_rows(run, weights.tensors[name].shape, ids, values)
                    rows.setdefault(name, []).append((ids, values))
        if (run / ADAPTER).is_dir():
            for name, update in read_adapter(run / ADAPTER, stored).items():
                if weights.tensors[name].shape != update.shape:
                    raise InputError(
                        run / ADAPTER,
                        f"does not fit the shape of {name} in its base",
                        "Give the base it was trained on",
                    )
                updates.setdefault(name, []).append(update)
    return MergePlan(stored, rows, updates)


def merge_chain(chain: Chain, out: Path) -> set[str]:
    """Write the chain's base to `out` with all trained rows and adapters merged; return the dtypes of changed weights.

    Products are computed in float32 and rounded once, to the stored dtype. The config is written last.
    Errors: InputError for what `plan_merge` refuses, OutputError.
    """
    plan = plan_merge(chain)
    weights, rows, updates = plan.base.weights, plan.rows, plan.updates
    refuse_not_finite(plan.base)

    def change(name: str) -> Change:
        return Change(
            weights.tensors[name].shape,
            lambda matrix: merged(matrix, updates.get(name, []), rows.get(name, [])),
        )

    out.mkdir(parents=True, exist_ok=True)
    changed = rows.keys() | updates.keys()
    rewrite(weights, out, {name: change(name) for name in changed})
    copy_tokenizer(chain.tokenizer, out)
    copy_missing(chain.base, out, (*OTHER_FILES, "config.json"))
    return {weights.tensors[name].dtype for name in changed}


def merged_matrix(plan: MergePlan, name: str) -> "torch.Tensor":
    """One stored weight with everything that the runs of its chain trained merged into it."""
    return merged(plan.base.weights.tensor(name), plan.updates.get(name, []), plan.rows.get(name, []))


def merged(
    matrix: "torch.Tensor",
    updates: Sequence[LowRankUpdate],
    rows: "Sequence[tuple[torch.Tensor, torch.Tensor]]",
) -> "torch.Tensor":
    """A matrix with updates added in float32, and then rows replaced."""
    result = matrix.float() if updates else matrix.clone()
    for update in updates:
        product = update.b.float() @ update.a.float()
        result = result + update.scale * (product.T if update.transposed else product)
    result = result.to(matrix.dtype)
    for ids, values in rows:
        result[ids] = values.to(matrix.dtype)
    return result


def read_adapter(folder: Path, base: StoredModel) -> dict[str, LowRankUpdate]:
    """The updates of a PEFT LoRA adapter by the name of the stored weight of its base.

    Errors: InputError for another type of adapter, and for modules that the base lacks.
    """
    config = read_object(folder / "adapter_config.json", "Start the run over")
    path = folder / "adapter_model.safetensors"
    tensors = load_tensors(path, "Start the run over")
    check_finite(path, tensors, "Start the run over")
    return updates_of(folder, config, tensors, base)


def updates_of(
    folder: Path, config: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", base: StoredModel
) -> dict[str, LowRankUpdate]:
    """The updates of an adapter's tensors by its config. Errors: those of `read_adapter`."""
    _refuse_settings(folder, config)
    updates: dict[str, LowRankUpdate] = {}
    for key in sorted(tensors):
        module, part, _ = key.removeprefix(LORA).rpartition(".lora_A.weight")
        if part and key.endswith(part):
            b = tensors.get(f"{LORA}{module}.lora_B.weight")
            if b is None:
                raise InputError(folder, f"lacks lora_B of {module}", "Download the adapter again")
            layer = adapted_layer(module, base, folder)
            scale = scale_of(folder, config, module, len(tensors[key]))
            updates[layer.name] = LowRankUpdate(tensors[key], b, scale, layer.transposed)
        elif not key.endswith(".lora_B.weight"):  # a bias too, which a merged layer has no place for
            raise InputError(folder, f"contains {key}, which is not a LoRA weight", MERGE_ELSEWHERE)
    return updates


def adapted_layer(module: str, base: StoredModel, where: Path) -> StoredLayer:
    """The stored layer that an adapter of `module` changes; InputError for one that cannot be merged into the files."""
    if module in base.layers:
        return base.layers[module]
    if module.removesuffix(".base_layer") in dict(base.model.named_modules()):
        message = f"changes {module}, which the files of its base do not store as one matrix"
        raise InputError(where, message, MERGE_ELSEWHERE)
    raise InputError(where, f"changes {module}, which its base lacks", "Give the base it was trained on")


def _refuse_settings(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError for an adapter that is no plain LoRA: `scale * b @ a` is not what it adds to the weights of its base."""
    if config.get("peft_type") != "LORA":
        raise InputError(folder, "is not a plain LoRA adapter", MERGE_ELSEWHERE)
    if (unknown := next((key for key in config if config[key] and key not in UNDERSTOOD), None)) is not None:
        raise InputError(folder, f"is not a plain LoRA adapter: it sets {unknown}", MERGE_ELSEWHERE)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        message = f"was initialized by {start}, for which the weights of its base were changed too"
        raise InputError(folder, message, MERGE_ELSEWHERE)


def scale_of(where: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor of a LoRA update: alpha, which PEFT finds by a pattern of the module's path, over the rank or over its root.

    Errors: InputError for an alpha that is no number, and a pattern that is no regular expression.
    """
    by_module = config.get("alpha_pattern") or {}
    try:
        key = next((key for key in by_module if re.match(rf"(.*\.)?({key})$", module)), None)
        alpha = float(config.get("lora_alpha", ALPHA) if key is None else by_module[key])
    except (re.error, TypeError, ValueError) as error:
        message = f"has an alpha for {module} that cannot be read ({error})"
        raise InputError(where / "adapter_config.json", message, "Download the adapter again") from error
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def prove_export(
    run: str | Path | Chain, exported: Path, texts: Sequence[str], changed: Iterable[str], length: int = 256
) -> Proof:
    """Compare the exported model with the run, whose adapters stay in PEFT, in float32: logits, then every weight.

    The first `length` ids of each text are compared; `changed` are the stored dtypes of the changed weights. Raises
    BrokenPromise where the tokenizers differ, where the logits differ by more than rounding to these dtypes explains,
    and where a weight is not PEFT's merged weight after one rounding.
    """
    import torch

    def logits(opened: OpenedModel) -> tuple[torch.Tensor, list[list[int]]]:
        """The logits [tokens, vocabulary] of all texts, and their ids."""
        batches = [opened.tokenizer(text, return_tensors="pt").input_ids[:, :length] for text in texts]
        try:
            with torch.inference_mode():
                parts = [opened.model(input_ids=ids, use_cache=False).logits[0] for ids in batches]
        except Exception as error:  # whatever fails in the model's own code
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            message = f"cannot be compared: its own forward pass fails ({reason})"
            raise InputError(exported, message, "Correct config.json") from error
        return torch.cat(parts), [ids[0].tolist() for ids in batches]

    opened = open_model(run, dtype=torch.float32, merge=False)
    expected, expected_ids = logits(opened)
    different = first_difference(opened.model, exported)
    del opened
    actual, ids = logits(open_model(exported, dtype=torch.float32))
    if ids != expected_ids:
        raise BrokenPromise(exported, "tokenizes text differently from the run", REPORT)
    proof = compare_logits(expected, actual, changed)
    if different is not None:
        raise BrokenPromise(exported, f"differs from the run in the weight {different}", REPORT)
    if (reason := excess_of(proof)) is not None:
        raise BrokenPromise(exported, f"differs from the run: {reason}", REPORT)
    return proof


def compare_logits(expected: "torch.Tensor", actual: "torch.Tensor", dtypes: Iterable[str]) -> Proof:
    """Compare logits [tokens, vocabulary] of a model whose weights were rounded once to these stored dtypes."""
    difference = float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    limit = max(PRECISION.get(dtype, 0.0) for dtype in ("F32", *dtypes))
    agree = float((actual.argmax(-1) == expected.argmax(-1)).float().mean())
    return Proof(difference, limit, agree, len(actual))


def excess_of(proof: Proof) -> str | None:
    """What is wrong where the logits differ by more than is allowed, or None."""
    if proof.difference <= proof.limit:  # false for NaN
        return None
    return f"the logits differ by {proof.difference:.1e} of their RMS where {proof.limit:.0e} is allowed"


def first_difference(model: Any, exported: Path) -> str | None:
    """The first stored weight that differs from PEFT's merged weight by more than one rounding."""
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    weights = read_weights(exported)
    return differing_weight(model, stored_names(model, weights.tensors), weights.tensor)


def differing_weight(
    model: Any, names: Mapping[str, str], weight: "Callable[[str], torch.Tensor]"
) -> str | None:
    """The first stored weight, by `names` the parameter it belongs to, that differs from a model's by more than one rounding."""
    import torch

    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, path in names.items():
        if path not in parameters:
            continue
        stored, expected = weight(name), parameters[path].detach()
        spread = float(expected.square().nanmean().sqrt())
        eps = torch.finfo(stored.dtype).eps
        if not torch.allclose(stored.float(), expected, rtol=eps, atol=1e-5 * spread, equal_nan=True):
            return name
    return None


def write_generation_config(out: Path) -> None:
    """Write generation_config.json: the base's, or one from the model's config, with the tokenizer's end token."""
    path = out / "generation_config.json"
    source = path if path.exists() else out / "config.json"
    config = read_object(source, "Download the model again")
    if source != path:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        config = {key: config[key] for key in names if config.get(key) is not None}
    ends = end_token_ids(config.get("eos_token_id"), load_transformers_tokenizer(out))
    if ends is not None:
        config["eos_token_id"] = ends
    path.write_text(to_json(config), encoding="utf-8")
