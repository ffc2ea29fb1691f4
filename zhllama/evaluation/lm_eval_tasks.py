"""Runs tasks of EleutherAI's lm-evaluation-harness on a model: C-Eval, CMMLU or the user's own."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zhllama.errors import InputError, MissingPackage
from zhllama.model.load import OpenedModel
from zhllama.resources import shipped

ACCURACIES = ("acc", "acc_norm", "acc_bytes")
BOOTSTRAPS = 100  # samples for the error of metrics that are not means, e.g. F1


Advance = Callable[[int], None]


def run_tasks(
    opened: OpenedModel,
    tasks: Sequence[str],
    task_folder: Path | None = None,
    samples: int | None = None,
    begin: Callable[[int], Advance] = lambda total: lambda done: None,
) -> list[dict[str, Any]]:
    """One row per task and metric: task, metric, value, error (the standard error), chance (of a guess; None where unknown).

    `task_folder` contains task files in addition to lm-eval's own and the shipped tasks_zh. `begin` is called with the number of answers
    that the model scores or writes, and returns what is called with each number that is done. Errors: InputError for an unknown task or one
    whose questions cannot be loaded; MissingPackage.
    """
    try:
        import lm_eval
        from lm_eval import evaluator
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingPackage("`tasks`", "lm-eval", "eval") from None
    # lm-eval's own index has 14,683 names and takes 12 CPU seconds to load: skip it if the user's folder has all tasks.
    folders = [str(folder) for folder in (shipped("tasks_zh"), task_folder) if folder is not None]
    manager = TaskManager(include_path=folders, include_defaults=False)
    if not set(tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folders)
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown:
        raise InputError(
            "`tasks`", f"lm-eval knows no {unknown[0]!r}", "See lm-eval ls tasks, or give `task_path`"
        )
    evaluator.get_git_commit_hash = lambda: None  # not used here, and git complains outside a repository
    try:
        with _told_to(begin):
            model = HFLM(pretrained=opened.model, tokenizer=opened.tokenizer, trust_remote_code=False)
            evaluation: Any = lm_eval.simple_evaluate(
                model,
                tasks=list(tasks),
                task_manager=manager,
                limit=samples,
                bootstrap_iters=BOOTSTRAPS,
            )
    except (OSError, ConnectionError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(
            "`tasks`", f"the questions cannot be loaded ({message})", "Check the network"
        ) from error
    chances = chance_levels(evaluation)
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
                        "chance": chances.get(task) if metric in ACCURACIES else None,
                    }
                )
    return rows


class _Bar:
    """Takes the place of lm-eval's bars: tells the answers of the model, and is silent while questions are prepared."""

    def __init__(
        self,
        begin: Callable[[int], Advance],
        some: Iterable[Any] | None = None,
        total: int | None = None,
        **_: Any,
    ) -> None:
        self._some = some
        self.update = begin(total or 0) if some is None else _nothing

    def __iter__(self) -> Iterator[Any]:
        return iter(self._some or ())

    def close(self) -> None:
        """End the bar."""


def _nothing(done: int = 1) -> None:
    """Tell nothing."""


@contextmanager
def _told_to(begin: Callable[[int], Advance]) -> Iterator[None]:
    """Replace lm-eval's bars, and silence its remarks on a model that is already open."""
    from lm_eval.api import model, task
    from lm_eval.models import huggingface

    logger = logging.getLogger("lm_eval")
    parts, level = (huggingface, model, task), logger.level
    bars = [vars(part)["tqdm"] for part in parts]
    for part in parts:
        vars(part)["tqdm"] = lambda some=None, **settings: _Bar(begin, some, **settings)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        for part, bar in zip(parts, bars, strict=True):
            vars(part)["tqdm"] = bar


def chance_levels(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The accuracy of a guess for each task of multiple choice, and for groups of such tasks, by lm-eval's result.

    A question with n choices has 1/n; a group has the mean over the questions of all its tasks.
    """
    questions: dict[str, list[float]] = {}
    for task, samples in evaluation.get("samples", {}).items():
        settings = evaluation["configs"][task]
        if settings.get("output_type") == "multiple_choice":
            # With acc_mutual_info each choice is scored a second time without its question.
            metrics = [metric.get("metric") for metric in settings.get("metric_list") or []]
            times = 2 if "acc_mutual_info" in metrics else 1
            questions[task] = [times / len(sample["arguments"]) for sample in samples]
    groups: Mapping[str, Sequence[str]] = evaluation.get("group_subtasks", {})

    def of(name: str) -> list[float]:
        parts = groups.get(name)
        return questions.get(name, []) if not parts else [chance for part in parts for chance in of(part)]

    levels = {name: of(name) for name in {*questions, *groups}}
    return {name: sum(chances) / len(chances) for name, chances in levels.items() if chances}
