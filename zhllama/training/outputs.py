"""What a pre-training run leaves: learned rows, adapter, tokenizer, page and figures, each whole; then its manifest."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zhllama.io.files import to_json
from zhllama.io.json import read_object
from zhllama.model.chain import ADAPTER, GROWN, ROWS, TOKENIZER, TUNED
from zhllama.model.copy_files import OTHER_FILES, copy_missing, copy_tokenizer
from zhllama.model.weight_files import Change, read_weights, rewrite
from zhllama.run import Run
from zhllama.training.checkpoint import save_whole, whole_folder
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.page import draw_page
from zhllama.training.plan import TrainingPlan
from zhllama.training.prepare_model import PreparedModel
from zhllama.training.trainer import LOG, BlockTrainer, read_log

CHECKPOINTS, FIGURES, PAGE = "checkpoints", "figures.json", "report.html"


def gather(trainer: BlockTrainer) -> dict[str, Tensor] | None:
    """Parameters whole where they are cut up over processes, for which all of them must ask; else None."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        state: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        return state
    return None


def write(
    run: Run,
    tokens: DocumentTokenizer,
    ready: PreparedModel,
    planned: TrainingPlan,
    known: Mapping[str, Any],
    state: dict[str, Tensor] | None,
    whole: Path | None = None,
) -> dict[str, Any]:
    """Write all products and return the manifest. `known`: what the next run must know of the rows, and figures.

    `whole`: the folder of the model that all of was trained; then the trained one is written, else what learned.
    """
    if whole is not None:
        write_tuned(ready.model, whole, tokens, run.out / TUNED, state)
    elif trained := ready.rows.trained(state):
        save_whole(run.out / ROWS, trained)
    if planned.shape.lora:
        write_adapter(ready.model, run.out / ADAPTER, state)
    with whole_folder(run.out / TOKENIZER) as folder:
        save_tokenizer(tokens, folder)
    lines = read_log(run.out / LOG)
    figures = {**known, **planned.figures(), **learned(lines)}
    run.write(PAGE, draw_page(run.out.name, figures, lines))
    run.write(FIGURES, to_json(figures))
    return finish(run)


def finish(run: Run) -> dict[str, Any]:
    """The checkpoints go and the manifest stands; where FIGURES is, everything before was written."""
    shutil.rmtree(run.out / CHECKPOINTS, ignore_errors=True)
    if (run.out / TUNED).is_dir():
        shutil.rmtree(run.out / GROWN, ignore_errors=True)
    figures = read_object(run.out / FIGURES, "Start over with --force", any_number=True)
    return run.finish(figures)


def write_adapter(model: Any, out: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """The adapters of a PEFT model, as a whole folder; `state` where parameters are cut up over processes."""
    with whole_folder(out) as folder:
        model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
        (folder / "README.md").unlink(missing_ok=True)  # an empty form


def write_tuned(
    model: Any, base: Path, tokens: DocumentTokenizer, out: Path, state: Mapping[str, Tensor] | None = None
) -> None:
    """A model that was trained as a whole, and its tokenizer, as a whole folder that loads."""
    with whole_folder(out) as folder:
        _write_trained(model, base, folder, state)
        copy_tokenizer(tokens.folder, folder)


def _write_trained(model: Any, base: Path, out: Path, state: Mapping[str, Tensor] | None) -> None:
    """The base's files with every weight that was trained, each in the type it was stored in; the config comes last."""
    learned = dict(model.named_parameters(remove_duplicate=False)) if state is None else state
    trained = {name.replace(".rows", ".weight"): tensor.detach() for name, tensor in learned.items()}
    weights = read_weights(base)

    def change(name: str) -> Change:
        inner = f"{model.base_model_prefix}.{name}"
        tensor = trained[name if name in trained else inner].cpu()
        return Change(weights.tensors[name].shape, lambda old: tensor.to(old.dtype))

    known = {n for n in weights.tensors if n in trained or f"{model.base_model_prefix}.{n}" in trained}
    rewrite(weights, out, {name: change(name) for name in known})
    copy_missing(base, out, (*OTHER_FILES, "config.json"))


def save_tokenizer(tokens: DocumentTokenizer, folder: Path) -> None:
    """A copy of a tokenizer's folder, or of the single file that it is."""
    copy_tokenizer(tokens.folder, folder)
    if not any(folder.iterdir()):
        shutil.copyfile(tokens.path, folder / f"tokenizer{tokens.path.suffix}")


def learned(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Last loss, median speed, and bits before the first step and after the last."""
    figures: dict[str, Any] = {}
    losses = [line for line in lines if "loss" in line]
    if losses:
        speeds = sorted(line["tokens_per_second"] for line in losses)
        figures = {"loss": losses[-1]["loss"], "tokens_per_second": speeds[len(speeds) // 2]}
    measured = [line for line in lines if "loss" not in line]
    for name in [k for k in (measured[-1] if measured else {}) if "_bits_per_" in k]:
        figures[name] = {"before": measured[0][name], "after": measured[-1][name]}
    return figures
