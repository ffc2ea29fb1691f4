"""Folds what a chain of runs trained into one plain model, shard by shard, and proves that it says the same."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import BrokenPromise, InputError
from zhllama.io.files import to_json
from zhllama.io.json import read_object
from zhllama.io.safetensors import load_tensors
from zhllama.manifest import read_manifest
from zhllama.model.embeddings import find_matrices
from zhllama.model.grow import BESIDE, copy_tokenizer
from zhllama.model.load import (
    ADAPTER,
    Chain,
    OpenedModel,
    check_rows,
    end_ids,
    load_tokenizer,
    open_model,
    read_trained_rows,
)  # fmt: skip
from zhllama.model.weight_files import Change, read_weights, rewrite
from zhllama.run_folder import MANIFEST

if TYPE_CHECKING:
    import torch

LORA = "base_model.model."
REFUSED = ("use_dora", "fan_in_fan_out", "use_qalora")  # these fold otherwise
REPORT = "Report this with the run's manifest"
# Largest root mean square of the logits' difference, over that of the logits, that rounding the folded weights to the
# stored type explains (tests/test_export.py; docs/model.md has what was seen).
PRECISION = {"F32": 1e-5, "F16": 5e-3, "BF16": 3e-2}


@dataclass(frozen=True)
class Low:
    """One low-rank change of one stored weight: `scale * b @ a` is added to it."""

    a: "torch.Tensor"
    b: "torch.Tensor"
    scale: float


@dataclass(frozen=True)
class Proof:
    """How near the exported logits come to the run's, on `tokens` tokens of real text.

    `difference` is the root mean square of the difference over that of the logits; `agree` the share of tokens after
    which both models would write the same next one.
    """

    difference: float
    limit: float
    agree: float
    tokens: int


def fold(chain: Chain, out: Path) -> set[str]:
    """Write the chain's base to `out` with all rows and adapters folded in, and return the types of what changed.

    Products are taken in float32 and rounded once, to the type the base is stored in. The config comes last.
    Errors: InputError for what does not fit the base, OutputError.
    """
    weights = read_weights(chain.base)
    matrices = find_matrices(weights)
    names = {"input": [matrices.input, matrices.copy], "output": [matrices.output]}
    rows: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    lows: dict[str, list[Low]] = {}
    for run in chain.runs:
        for which, ids, values in read_trained_rows(run):
            for name in names[which]:
                if name is not None:
                    check_rows(run, weights.tensors[name].shape, ids, values)
                    rows.setdefault(name, []).append((ids, values))
        if (run / ADAPTER).is_dir():
            for name, low in read_adapter(run / ADAPTER, weights.tensors.keys()).items():
                if weights.tensors[name].shape != (low.b.shape[0], low.a.shape[1]):
                    raise InputError(
                        run / ADAPTER,
                        f"does not fit {name} of its base in shape",
                        "Give the base it was trained on",
                    )
                lows.setdefault(name, []).append(low)

    def change(name: str) -> Change:
        return Change(
            weights.tensors[name].shape,
            lambda matrix: _folded(matrix, lows.get(name, []), rows.get(name, [])),
        )

    out.mkdir(parents=True, exist_ok=True)
    changed = rows.keys() | lows.keys()
    rewrite(weights, out, {name: change(name) for name in changed})
    copy_tokenizer(chain.tokenizer, out)
    for pattern in (*BESIDE, "config.json"):
        for path in chain.base.glob(pattern):
            if not (out / path.name).exists():
                shutil.copyfile(path, out / path.name)
    return {weights.tensors[name].dtype for name in changed}


def _folded(
    matrix: "torch.Tensor", lows: Sequence[Low], rows: "Sequence[tuple[torch.Tensor, torch.Tensor]]"
) -> "torch.Tensor":
    made = matrix.float() if lows else matrix.clone()
    for low in lows:
        made = made + low.scale * (low.b.float() @ low.a.float())
    made = made.to(matrix.dtype)
    for ids, values in rows:
        made[ids] = values.to(matrix.dtype)
    return made


def read_adapter(folder: Path, stored: Sequence[str] | Any) -> dict[str, Low]:
    """A PEFT LoRA adapter as changes of stored weights, by their names.

    Errors: InputError for an adapter of another kind, and for modules that the base does not have.
    """
    config = read_object(folder / "adapter_config.json", "Make the run again")
    tensors = load_tensors(folder / "adapter_model.safetensors", "Make the run again")
    if config.get("peft_type") != "LORA" or any(config.get(key) for key in REFUSED):
        raise InputError(folder, "is not a plain LoRA adapter", "Merge it with the program that made it")
    found: dict[str, Low] = {}
    for key in sorted(tensors):
        module, part, _ = key.removeprefix(LORA).rpartition(".lora_A.")
        if part:
            b = tensors[f"{LORA}{module}.lora_B.weight"]
            found[_weight_of(module, stored, folder)] = Low(tensors[key], b, _scale(config, module))
        elif ".lora_B." not in key:
            raise InputError(
                folder, f"holds {key}, which is no LoRA weight", "Merge it with the program that made it"
            )
    return found


def _weight_of(module: str, stored: Any, folder: Path) -> str:
    """The stored name of a module's weight; BLOOM's files leave the outermost name out."""
    for name in (f"{module}.weight", f"{module.partition('.')[2]}.weight"):
        if name in stored:
            return name
    raise InputError(
        folder, f"changes {module}, which its base does not have", "Give the base it was trained on"
    )


def _scale(config: dict[str, Any], module: str) -> float:
    def of(pattern: str, plain: str) -> float:
        special = config.get(pattern) or {}
        return float(next((v for k, v in special.items() if module.endswith(k)), config[plain]))

    rank = of("rank_pattern", "r")
    return of("alpha_pattern", "lora_alpha") / (rank**0.5 if config.get("use_rslora") else rank)


def prove(
    run: str | Path, exported: Path, texts: Sequence[str], changed: Iterable[str], length: int = 256
) -> Proof:
    """Compare the exported model with the run, whose adapters PEFT holds, both in float32: logits, then every weight.

    Of each text the first `length` ids are compared. Raises BrokenPromise where the tokenizers differ, where the logits
    do by more than rounding to the types `changed` explains, or where any weight is not PEFT's own, rounded once.
    """
    import torch

    def logits(opened: OpenedModel) -> torch.Tensor:
        cut = [opened.tokenizer(text, return_tensors="pt").input_ids[:, :length] for text in texts]
        ids.append([part.tolist() for part in cut])
        with torch.inference_mode():
            return torch.cat([opened.model(input_ids=part, use_cache=False).logits[0] for part in cut])

    ids: list[list[list[int]]] = []
    opened = open_model(run, dtype=torch.float32, merge=False)
    wanted = logits(opened)
    different = _first_difference(opened.model, exported)
    del opened
    got = logits(open_model(exported, dtype=torch.float32))
    if ids[0] != ids[1]:
        raise BrokenPromise(exported, "cuts text otherwise than the run", REPORT)
    difference = float((got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
    limit = max(PRECISION.get(kind, 0.0) for kind in ("F32", *changed))
    if different is not None:
        raise BrokenPromise(exported, f"says something else than the run: {different} differs", REPORT)
    if not difference <= limit:  # so that NaN is refused too
        told = f"its logits differ by {difference:.1e} of their size where {limit:.0e} is allowed"
        raise BrokenPromise(exported, f"says something else than the run: {told}", REPORT)
    return Proof(difference, limit, float((got.argmax(-1) == wanted.argmax(-1)).float().mean()), len(got))


def _first_difference(model: Any, exported: Path) -> str | None:
    """The first stored weight that is not the model's, its adapters merged by PEFT, to within one rounding."""
    import torch

    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    held = dict(model.named_parameters(remove_duplicate=False))
    weights = read_weights(exported)
    for name in weights.tensors:
        parameter = held.get(name, held.get(f"{model.base_model_prefix}.{name}"))
        if parameter is None:
            continue
        stored, wanted = weights.tensor(name), parameter.detach()
        spread = float(wanted.square().mean().sqrt())
        if not torch.allclose(stored.float(), wanted, rtol=torch.finfo(stored.dtype).eps, atol=1e-5 * spread):
            return name
    return None


def write_card(chain: Chain, out: Path, proof: Proof) -> None:
    """README.md of the exported model: what it came from, run by run, and the figures."""
    lines = [
        "---",
        "library_name: transformers",
        "language: [zh, en]",
        "---",
        "",
        f"# {out.name}",
        "",
        f"Made by zhllama from `{chain.base.name}`.",
        "",
        "| step | options | figures |",
        "|---|---|---|",
    ]
    for step in (chain.base, *chain.runs):
        if (step / MANIFEST).is_file():
            manifest = read_manifest(step)
            told = [
                "; ".join(
                    f"{k} {v}" for k, v in manifest.get(part, {}).items() if isinstance(v, int | float | str)
                )
                for part in ("options", "figures")
            ]
            lines.append(
                f"| {manifest['command']} ({step.name}) | {told[0]} | {told[1]} |".replace("\n", " ")
            )
    lines += [
        "",
        f"Its logits against the unfolded run's on {proof.tokens} tokens: root mean square of the difference "
        f"{proof.difference:.1e} of theirs (allowed {proof.limit:.0e}); the same next token after "
        f"{100 * proof.agree:.1f} %.",
        "",
    ]
    (out / "README.md").write_text("\n".join(lines), encoding="utf-8")


def generation_config(out: Path) -> None:
    """generation_config.json: the base's, or from the model's config, with what ends a text for the tokenizer."""
    path = out / "generation_config.json"
    source = path if path.exists() else out / "config.json"
    config = read_object(source, "Fetch the model again")
    if source != path:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        config = {key: config[key] for key in names if config.get(key) is not None}
    tokenizer = load_tokenizer(out)
    ends = end_ids(config.get("eos_token_id"), tokenizer)
    if ends is not None:
        config["eos_token_id"] = ends
    path.write_text(to_json(config), encoding="utf-8")
