"""The experiment trackers to which transformers reports a run: tensorboard, SwanLab, Weights & Biases, MLflow, Trackio."""

from collections.abc import Mapping
from importlib.util import find_spec

from zhllama.errors import OptionError
from zhllama.extras import install_package
from zhllama.training.options import Tracker

# Packages by tracker; one of them is enough.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "swanlab": ("swanlab",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}


def chosen_tracker(tracker: Tracker | None) -> Tracker:
    """The tracker of a run: the one that is named, else tensorboard if it is installed; OptionError without its package."""
    if tracker is None:
        return "tensorboard" if _is_here("tensorboard") else "none"
    if tracker != "none" and not _is_here(tracker):
        package = PACKAGES[tracker][0]
        raise OptionError(f"report_to {tracker}", f"needs the package {package}", install_package(package))
    return tracker


def _is_here(tracker: str) -> bool:
    return any(find_spec(package) is not None for package in PACKAGES[tracker])
