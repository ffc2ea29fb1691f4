"""Runs tasks of EleutherAI's lm-evaluation-harness on a model: C-Eval, CMMLU or the user's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zhllama.errors import InputError, MissingPackage
from zhllama.model.load import OpenedModel


def run_tasks(
    opened: OpenedModel, tasks: Sequence[str], task_folder: Path | None = None, samples: int | None = None
) -> list[dict[str, Any]]:
    """One row per task and metric: task, metric, value, error (the standard error).

    `task_folder` contains task files in addition to lm-eval's own. Errors: InputError for an unknown task or one whose
    questions cannot be loaded; MissingPackage.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingPackage("`tasks`", "lm-eval", "eval") from None
    # lm-eval's own index has 14,683 names and takes 12 CPU seconds to load: skip it if the user's folder has all tasks.
    manager = None
    if task_folder is not None:
        manager = TaskManager(include_path=str(task_folder), include_defaults=False)
    if manager is None or not set(tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=None if task_folder is None else str(task_folder))
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown:
        raise InputError(
            "`tasks`", f"lm-eval knows no {unknown[0]!r}", "See lm-eval ls tasks, or give `task_path`"
        )
    model = HFLM(pretrained=opened.model, tokenizer=opened.tokenizer, trust_remote_code=False)
    try:
        evaluation: Any = lm_eval.simple_evaluate(
            model,
            tasks=list(tasks),
            task_manager=manager,
            limit=samples,
            bootstrap_iters=0,
        )
    except (OSError, ConnectionError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(
            "`tasks`", f"the questions cannot be loaded ({message})", "Check the network"
        ) from error
    rows = []
    for task, metrics in evaluation["results"].items():
        for name, value in metrics.items():
            metric, _, kind = name.partition(",")
            if isinstance(value, int | float) and kind and not metric.endswith("_stderr"):
                standard_error = metrics.get(f"{metric}_stderr,{kind}")
                rows.append(
                    {
                        "task": task,
                        "metric": metric,
                        "value": float(value),
                        "error": standard_error if isinstance(standard_error, float) else None,
                    }
                )
    return rows
