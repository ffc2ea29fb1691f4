"""Tasks of EleutherAI's lm-evaluation-harness on a model of any kind that opens here: C-Eval, CMMLU, one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zhllama.errors import InputError, MissingPackage
from zhllama.model.load import OpenedModel


def run_tasks(
    opened: OpenedModel, tasks: Sequence[str], own: Path | None = None, samples: int | None = None
) -> list[dict[str, Any]]:
    """Every metric of every task, as task, metric, value and standard error.

    `own` is a folder of task files to be known besides lm-eval's. Errors: InputError for a task it does not know, or
    whose questions cannot be fetched; MissingPackage.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingPackage("--tasks", "lm-eval", "eval") from None
    # lm-eval's own list has 14,683 names and takes 12 CPU seconds to read: only where one's own do not suffice
    manager = TaskManager(include_path=str(own), include_defaults=False) if own is not None else None
    if manager is None or not set(tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=None if own is None else str(own))
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown:
        raise InputError(
            "--tasks", f"lm-eval knows no {unknown[0]!r}", "See lm-eval ls tasks, or give --task-path"
        )
    model = HFLM(pretrained=opened.model, tokenizer=opened.tokenizer, trust_remote_code=False)
    try:
        told: Any = lm_eval.simple_evaluate(
            model,
            tasks=list(tasks),
            task_manager=manager,
            limit=samples,
            bootstrap_iters=0,
        )
    except (OSError, ConnectionError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError("--tasks", f"the questions cannot be read ({first})", "Check the network") from error
    scores = []
    for task, metrics in told["results"].items():
        for name, value in metrics.items():
            metric, _, kind = name.partition(",")
            if isinstance(value, int | float) and kind and not metric.endswith("_stderr"):
                spread = metrics.get(f"{metric}_stderr,{kind}")
                scores.append(
                    {
                        "task": task,
                        "metric": metric,
                        "value": float(value),
                        "error": spread if isinstance(spread, float) else None,
                    }
                )
    return scores
