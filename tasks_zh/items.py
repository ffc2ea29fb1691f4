"""Reads the items of a task for lm-eval: `custom_dataset` of the YAML files beside it."""

import json
from pathlib import Path
from typing import Any

import datasets


def read(name: str, **_: Any) -> dict[str, Any]:
    """The one split of a task: texts, the place of the right one, and where they come from."""
    lines = Path(__file__).with_name(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
