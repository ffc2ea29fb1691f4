"""Training counts how often each new row was met, and lists those that were hardly met."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.model_toys import larger_vocabulary
from zhllama.pages.training import training_page
from zhllama.run import Run
from zhllama.training.new_rows import SHOWN, count_new_ids, new_row_figures
from zhllama.vocab.any_tokenizer import SentencePieceTokenizer


def test_rows_that_were_hardly_met_are_listed(tmp_path: Path) -> None:
    tokenizer = SentencePieceTokenizer(larger_vocabulary())
    rows = tokenizer.size
    ids = [np.array([5, 600, 601, 601]), np.array([601] * 9 + [rows - 1])]
    examples: list[Any] = [{"input_ids": one} for one in ids]
    counts = count_new_ids(examples, 600, rows)
    assert counts[:2].tolist() == [1, 11] and counts[-1] == 1 and counts.sum() == 13
    with Run(tmp_path / "run", "pretrain", {}, []) as run:
        figures = new_row_figures(run, examples, 600, rows, tokenizer)
        assert new_row_figures(run, examples, None, rows, tokenizer) == {}
        assert new_row_figures(run, iter(examples), 600, rows, tokenizer) == {}
    new = figures["new_rows"]
    assert new["rows"] == rows - 600 and new["hardly_met"] == rows - 601 and new["never_met"] == rows - 603
    assert tokenizer.name(601) not in [piece for piece, _ in new["least"]]
    lines = (tmp_path / "run/new_rows.tsv").read_text(encoding="utf-8").splitlines()
    assert (
        lines[0] == "id\tpiece\tmet"
        and f"600\t{tokenizer.name(600)}\t1" in lines
        and len(lines) == rows - 600
    )
    page = training_page(
        "run", {"steps": 1, "tokens": 1, "trained": 1, "trained_percent": 1, "parameters": 1, **figures}, []
    )
    assert "new_rows.tsv" not in page or new["hardly_met"] > SHOWN
    assert str(tokenizer.name(602)) in page
    met = dict(new["by_times_met"])
    assert met == {"0": rows - 603, "1–9": 2, "10–99": 1, "100–999": 0, "1,000+": 0}
    assert all(label in page for label in met)
