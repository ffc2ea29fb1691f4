"""Ranked pairs that a two-layer model can learn: answers in Chinese are better than answers in English."""

import json
from pathlib import Path
from typing import Any

from tests.model_toys import WORDS

WORSE = ("The river is long.", "people have lived here", "no idea", "history, and so on")


def ranked_rows(count: int) -> list[dict[str, Any]]:
    """Rows of four forms, a pair each."""
    rows: list[dict[str, Any]] = []
    for n in range(count):
        asked, better, worse = f"说说{WORDS[n % 28]}{n}", WORDS[n * 5 % 28] + "很好", WORSE[n % 4]
        forms: list[dict[str, Any]] = [
            {"instruction": asked, "input": "", "ranked_outputs": [better, worse]},
            {"user_input": asked, "responses_and_scores": [{"response": worse, "score": 1}, {"response": better, "score": 9}]},
            {"user_input": asked, "completion_a": better, "completion_b": worse},
            {"conversations": [{"from": "human", "value": asked}], "chosen": {"from": "gpt", "value": better}, "rejected": {"from": "gpt", "value": worse}},
        ]  # fmt: skip
        rows.append(forms[n % 4])
    return rows


def write_ranked(path: Path, count: int = 60) -> Path:
    path.write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ranked_rows(count)), encoding="utf-8"
    )
    return path
