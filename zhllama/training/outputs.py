"""The outputs of a training run: trained rows, adapter, tokenizer, page and figures, each written atomically; the manifest last."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Any

from torch import Tensor

from zhllama.io.files import to_json
from zhllama.io.json import read_object
from zhllama.model.chain import ADAPTER, GROWN, ROWS, TOKENIZER, TUNED
from zhllama.model.copy_files import OTHER_FILES, copy_missing, copy_tokenizer
from zhllama.model.stored_model import read_stored_model
from zhllama.model.weight_files import Change, rewrite
from zhllama.pages.training import training_page
from zhllama.pretrained import split_parameter
from zhllama.run import Run
from zhllama.training.checkpoint import save_whole, whole_folder
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.plan import TrainingPlan
from zhllama.training.prepare_model import PreparedModel
from zhllama.training.trainable_rows import RowEmbedding, RowHead
from zhllama.training.trainer import LOG, read_log

CHECKPOINTS, FIGURES, PAGE = "checkpoints", "figures.json", "report.html"


def write_outputs(
    run: Run,
    tokenizer: DocumentTokenizer,
    prepared: PreparedModel,
    plan: TrainingPlan,
    figures: Mapping[str, Any],
    state: dict[str, Tensor] | None,
    full_base: Path | None = None,
) -> dict[str, Any]:
    """Write all outputs and return the manifest.

    `figures`: row counts, which the next run needs, and those of the job. `full_base`: the model's folder if all of it
    was trained; the whole model is then written, else the trained rows and adapters.
    """
    if full_base is not None:
        write_tuned(prepared.model, full_base, tokenizer, run.out / TUNED, state)
    elif rows := prepared.rows.trained(state):
        save_whole(run.out / ROWS, rows)
    if plan.shape.lora:
        write_adapter(prepared.model, run.out / ADAPTER, state)
    with whole_folder(run.out / TOKENIZER) as folder:
        save_tokenizer(tokenizer, folder)
    lines = read_log(run.out / LOG)
    all_figures = {**figures, **plan.figures(), **log_figures(lines)}
    run.write(PAGE, training_page(run.out.name, all_figures, lines))
    run.write(FIGURES, to_json(all_figures))
    return finish_run(run)


def finish_run(run: Run) -> dict[str, Any]:
    """Remove the checkpoints and write the manifest; the file FIGURES shows that all other outputs were written."""
    rmtree(run.out / CHECKPOINTS, ignore_errors=True)
    if (run.out / TUNED).is_dir():
        rmtree(run.out / GROWN, ignore_errors=True)
    return run.finish(read_object(run.out / FIGURES, "Start over with `force`", any_number=True))


def write_adapter(model: Any, out: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapters of a PEFT model to a folder; `state`: the gathered parameters of a sharded model."""
    with whole_folder(out) as folder:
        model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
        (folder / "README.md").unlink(missing_ok=True)  # an empty model card


def write_tuned(
    model: Any,
    base: Path,
    tokenizer: DocumentTokenizer,
    out: Path,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a fully trained model and its tokenizer to a folder that transformers loads."""
    with whole_folder(out) as folder:
        _write_model(model, base, folder, state)
        copy_tokenizer(tokenizer.folder, folder)


def _write_model(model: Any, base: Path, out: Path, state: Mapping[str, Tensor] | None) -> None:
    """Write the base's files with every trained weight, each in the type it was stored in; the config comes last."""
    parameters = dict(model.named_parameters(remove_duplicate=False)) if state is None else state
    trained = {name.replace(".rows", ".weight"): tensor.detach() for name, tensor in parameters.items()}
    for name, module in model.named_modules():
        # Their parameter may lack a row that is not trained, or have its rows in another order.
        rows = parameters.get(f"{name}.rows") if isinstance(module, (RowEmbedding, RowHead)) else None
        if rows is not None:
            layout = module.layout
            whole = (rows if layout.start == 0 else module.weight).detach()
            order = layout.row_of_id
            trained[f"{name}.weight"] = whole if order is None else whole[order.to(whole.device)]
    stored = read_stored_model(base)
    weights = stored.weights

    def change(name: str, parameter: str) -> Change:
        tensor = trained[parameter].cpu()
        return Change(weights.tensors[name].shape, lambda old: tensor.to(old.dtype))

    @lru_cache(1)  # one parameter's parts in memory at a time
    def split(parameter: str) -> dict[str, Tensor]:
        return split_parameter(stored.model, parameter, trained[parameter].cpu())

    def change_part(name: str, parameter: str) -> Change:
        return Change(weights.tensors[name].shape, lambda old: split(parameter)[name].to(old.dtype))

    names = {name: parameter for parameter, name in stored.names.items() if parameter in trained}
    changes = {name: change(name, parameter) for name, parameter in names.items()}
    for parameter, parts in stored.parts.items():
        changes |= {name: change_part(name, parameter) for name in parts}
    rewrite(weights, out, changes)
    copy_missing(base, out, (*OTHER_FILES, "config.json"))


def save_tokenizer(tokenizer: DocumentTokenizer, folder: Path) -> None:
    """Copy a tokenizer's folder, or its single file."""
    copy_tokenizer(tokenizer.folder, folder)
    if not any(folder.iterdir()):
        copyfile(tokenizer.path, folder / f"tokenizer{tokenizer.path.suffix}")


def log_figures(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last loss, the median speed, time and memory, and bits before the first step and after the last."""
    figures: dict[str, Any] = {}
    losses = [line for line in lines if "loss" in line]
    if losses:
        speeds = sorted(line["tokens_per_second"] for line in losses)
        figures = {"loss": losses[-1]["loss"], "tokens_per_second": speeds[len(speeds) // 2]}
        names = {"seconds": "training_seconds", "peak_memory_bytes": "peak_memory_bytes"}
        figures |= {new: losses[-1][old] for old, new in names.items() if old in losses[-1]}
    measured = [line for line in lines if "loss" not in line]
    for name in [k for k in (measured[-1] if measured else {}) if "_bits_per_" in k]:
        figures[name] = {"before": measured[0][name], "after": measured[-1][name]}
    return figures
