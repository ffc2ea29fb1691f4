"""Writes what a chain of runs trained as one PEFT adapter for the model that the chain began with, and proves it in PEFT.

The low-rank updates of several runs are one update of the sum of their ranks. Trained and new rows are written as whole matrices
(`modules_to_save`), as Chinese-LLaMA was published, which every version of PEFT opens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import BrokenPromise, InputError, MissingPackage
from zhllama.hub_name import parse_hub_name
from zhllama.io.files import to_json
from zhllama.manifest import read_config, read_manifest
from zhllama.model.chain import ADAPTER, TUNED, Chain, base_of, check_inputs
from zhllama.model.copy_files import copy_tokenizer
from zhllama.model.embeddings import PER_LAYER, find_matrices
from zhllama.model.export import (
    LORA,
    REPORT,
    LowRankUpdate,
    MergePlan,
    Proof,
    compare_logits,
    differing_weight,
    excess_of,
    merged_matrix,
    plan_merge,
    read_adapter,
)
from zhllama.model.foreign_adapters import BASE, FILES, weight_hashes
from zhllama.model.load import load_base, load_transformers_tokenizer, open_model
from zhllama.model.stored_model import StoredModel, read_stored_model
from zhllama.model.weight_files import read_weights
from zhllama.pretrained import open_adapter, stored_names
from zhllama.run_folder import MANIFEST

if TYPE_CHECKING:
    import torch

ANOTHER = "Export it without `adapter_only`"


@dataclass(frozen=True)
class AdapterPlan:
    """A chain, the model that it began with, under the name that its user gave, and the runs with adapters, oldest first.

    `rows`: of the embedding with the adapter, at least as many as the base has.
    """

    chain: Chain
    base: StoredModel
    name: str
    runs: tuple[Path, ...]
    merged: MergePlan
    rows: int

    @property
    def hub_name(self) -> str | None:
        """The base's name on a hub, if it has one."""
        found = parse_hub_name(self.name)
        return None if found is None else found.id

    @property
    def grows(self) -> bool:
        """Whether the base must be given rows before PEFT opens the adapter."""
        return self.rows != self.base.weights.tensors[find_matrices(self.base).input].shape[0]


def plan_adapter(chain: Chain) -> AdapterPlan:
    """Find the model that a chain began with, and check that an adapter can say all that changed since.

    Errors: InputError for full training, for a chain without runs, and for what `plan_merge` refuses.
    """
    base, name, runs = _origin(chain)
    merged = plan_merge(chain)
    rows = merged.base.weights.tensors[find_matrices(merged.base).input].shape[0]
    return AdapterPlan(chain, read_stored_model(base), name, runs, merged, rows)


def _origin(chain: Chain) -> tuple[Path, str, tuple[Path, ...]]:
    """The plain folder that a chain began with, the name it was given by, and all runs since, oldest first.

    A model that `grow`, or a run, gave more rows is followed back to the one that had fewer, as far as that is there.
    """
    if not chain.runs:
        raise InputError(chain.base, "is no run, so that nothing was trained", "Name a run")
    folder, runs = chain.base, list(chain.runs)
    name = str(read_config(runs[0])["model"])
    if folder == runs[0] / TUNED:
        raise InputError(runs[0], "was trained with all of its weights, which no adapter says", ANOTHER)
    grown_by = runs[0] if folder.parent == runs[0] else folder if _command(folder) == "grow" else None
    # The weights of layers that `grow` taught are in no adapter of the base, nor are rows of a table of each layer's inputs.
    while grown_by is not None and not _taught(grown_by) and not _has_per_layer_table(folder):
        try:
            earlier = base_of(grown_by)
            check_inputs(grown_by, earlier)
            given = str(read_config(grown_by)["model"])
        except InputError:  # gone, or changed since: the grown model stands for it
            break
        added: list[Path] = []
        while not (earlier / "config.json").is_file():
            if (earlier / TUNED / "config.json").is_file():
                earlier = earlier / TUNED
                break
            added.insert(0, earlier)
            given, earlier = str(read_config(earlier)["model"]), base_of(earlier)
        folder, name, runs = earlier, given, [*added, *runs]
        grown_by = folder if _command(folder) == "grow" else None
    return folder, name if folder.name != TUNED else str(folder), tuple(runs)


def _command(folder: Path) -> str | None:
    """The command whose run a folder is, None for a folder that no run wrote."""
    return str(read_manifest(folder)["command"]) if (folder / MANIFEST).is_file() else None


def _taught(folder: Path) -> bool:
    """Whether `grow` changed the layers of the model in a folder."""
    if _command(folder) != "grow":
        return False
    return bool(read_manifest(folder).get("figures", {}).get("changed_weights"))


def _has_per_layer_table(folder: Path) -> bool:
    return any(name.endswith(PER_LAYER) for name in read_weights(folder).tensors)


def write_adapter_folder(plan: AdapterPlan, out: Path) -> None:
    """Write the adapter, its tokenizer and the hashes of its base to `out`. Errors: InputError, MissingPackage."""
    from safetensors.torch import save_file

    try:
        from peft import LoraConfig
    except ImportError:
        raise MissingPackage(str(out), "peft", "train") from None
    updates, matrices = _updates(plan), _matrices(plan)
    if not updates and not matrices:
        raise InputError(plan.chain.model, "trained nothing that an adapter could say", ANOTHER)
    modules = {name.rpartition(".")[0] for name in matrices}
    updates = updates or _nothing(plan.base)
    tensors: dict[str, torch.Tensor] = {f"{LORA}{name}": tensor for name, tensor in matrices.items()}
    ranks, scales = {}, {}
    for module, parts in updates.items():
        update = _joined(parts)
        tensors |= {
            f"{LORA}{module}.lora_{side}.weight": tensor.contiguous()
            for side, tensor in (("A", update.a), ("B", update.b))
        }
        ranks[module], scales[module] = update.a.shape[0], update.scale
    alphas = {module: _whole_number(scales[module] * rank) for module, rank in ranks.items()}
    rank, alpha = max(ranks.values()), max(alphas.values())
    config = LoraConfig(
        task_type="CAUSAL_LM", inference_mode=True, base_model_name_or_path=plan.name,
        target_modules=sorted(ranks), modules_to_save=sorted(modules) or None, r=rank, lora_alpha=alpha,  # type: ignore[arg-type]
        rank_pattern={m: r for m, r in ranks.items() if r != rank},
        alpha_pattern={m: a for m, a in alphas.items() if a != alpha},
        fan_in_fan_out=all(plan.base.layers[module].transposed for module in ranks),
        ensure_weight_tying=bool(modules) and find_matrices(plan.merged.base).output is None,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(out))
    save_file(tensors, out / FILES[0], metadata={"format": "pt"})
    copy_tokenizer(plan.chain.tokenizer, out)
    named = {"model": plan.name, "files": weight_hashes(plan.base), "rows": plan.rows}
    (out / BASE).write_text(to_json(named), encoding="utf-8")


def _whole_number(alpha: float) -> float:
    """An alpha as PEFT's configs have it, an integer where it is one."""
    return round(alpha) if abs(alpha - round(alpha)) < 1e-9 else alpha


def _updates(plan: AdapterPlan) -> dict[str, list[LowRankUpdate]]:
    """The updates of all runs by the path of their layer, oldest first."""
    paths = {layer.name: path for path, layer in plan.base.layers.items()}
    updates: dict[str, list[LowRankUpdate]] = {}
    for run in plan.runs:
        if (run / ADAPTER).is_dir():
            for name, update in read_adapter(run / ADAPTER, plan.base).items():
                updates.setdefault(paths[name], []).append(update)
    return updates


def _joined(updates: Sequence[LowRankUpdate]) -> LowRankUpdate:
    """One update that is the sum of several: their ranks one after the other, each scale in its own part of b."""
    import torch

    if len(updates) == 1:
        return updates[0]
    a = torch.cat([update.a.float() for update in updates])
    b = torch.cat([update.b.float() * update.scale for update in updates], dim=1)
    return LowRankUpdate(a, b, 1.0, updates[0].transposed)


def _nothing(base: StoredModel) -> dict[str, list[LowRankUpdate]]:
    """An update that changes nothing, of the first layer: PEFT opens no adapter that has only matrices."""
    import torch

    head = base.model.get_output_embeddings()
    modules = dict(base.model.named_modules())
    path, layer = next((p, layer) for p, layer in base.layers.items() if modules[p] is not head)
    shape = base.weights.tensors[layer.name].shape
    outputs, inputs = shape[::-1] if layer.transposed else shape
    return {path: [LowRankUpdate(torch.zeros(1, inputs), torch.zeros(outputs, 1), 1.0, layer.transposed)]}


def _matrices(plan: AdapterPlan) -> dict[str, "torch.Tensor"]:
    """The matrices with rows that differ from those of the base, by parameter: all of their modules, and of both sides if tied."""
    model, stored = plan.base.model, plan.merged.base
    found, names = find_matrices(stored), find_matrices(plan.base)
    paths = {id(module): path for path, module in model.named_modules()}
    sides = [(model.get_input_embeddings(), found.input, names.input)]
    head = model.get_output_embeddings()
    sides.append((head, found.output or found.input, names.output or names.input))
    tensors: dict[str, torch.Tensor] = {}
    for module, now, before in sides:
        matrix = merged_matrix(plan.merged, now)
        old = plan.base.weights.tensor(before)
        if matrix.shape == old.shape and matrix.equal(old):
            continue
        tensors[f"{paths[id(module)]}.weight"] = matrix.clone()
        if module is head and getattr(head, "bias", None) is not None:
            if not found.biases:
                raise InputError(stored.folder, "has a bias of its head that it does not store", ANOTHER)
            tensors[f"{paths[id(module)]}.bias"] = stored.weights.tensor(found.biases[0]).clone()
    return tensors


def prove_adapter(plan: AdapterPlan, out: Path, texts: Sequence[str], length: int = 256) -> Proof:
    """Open the adapter with PEFT on the base, and compare logits, and every merged weight, with the chain's in float32.

    Raises BrokenPromise where they differ by more than rounding to the stored types explains.
    """
    import torch

    opened = open_model(plan.chain, dtype=torch.float32, merge=False)
    tokenizer = load_transformers_tokenizer(out)
    batches = [tokenizer(text, return_tensors="pt").input_ids[:, :length] for text in texts]
    if any(
        opened.tokenizer(t).input_ids[:length] != ids[0].tolist()
        for t, ids in zip(texts, batches, strict=True)
    ):
        raise BrokenPromise(out, "tokenizes text differently from the run", REPORT)

    def logits(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([model(input_ids=ids, use_cache=False).logits[0] for ids in batches])

    expected = logits(opened.model)
    del opened
    model = load_base(plan.base.folder, torch.float32)
    if plan.grows:
        model.resize_token_embeddings(plan.rows, mean_resizing=False)
    model = open_adapter(model, out).eval()
    actual = logits(model)
    stored = plan.merged.base
    types = {stored.weights.tensors[name].dtype for name in stored.names.values()}
    proof = compare_logits(expected, actual, types)
    merged = model.merge_and_unload()
    names = stored_names(merged, stored.weights.tensors)
    different = differing_weight(merged, names, lambda name: merged_matrix(plan.merged, name))
    if different is not None:
        raise BrokenPromise(out, f"differs from the run in the weight {different}", REPORT)
    if (reason := excess_of(proof)) is not None:
        raise BrokenPromise(out, f"differs from the run: {reason}", REPORT)
    return proof
