"""The fit of a shared head to what the original model predicts after each first token."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.model_toys import WORDS, larger_vocabulary, write_model, write_tokenizer
from zhllama.errors import OptionError
from zhllama.model.grow import grow
from zhllama.model.head_fit import fit_changes, options_of
from zhllama.model.row_init_taught import Teaching

N_OLD, HEAD = 600, "lm_head.weight"
TEXTS = ["".join(np.random.default_rng(n).choice(WORDS, 60)) for n in range(24)]


def test_options_are_the_second_tokens_of_each_first_one() -> None:
    first, second = options_of([7, 9], [[7, 1], [9, 4, 4], [7, 2], [7, 1, 3], [], [9]])
    assert (first.lead, first.seconds, first.tokens) == (7, [1, 2], [[0, 3], [2]])
    assert (second.lead, second.seconds, second.tokens) == (9, [4], [[1]])


def test_fitted_rows_come_closer_to_what_the_model_predicts() -> None:
    """States after the first token follow from those before it; the first number of each state is 1, and is the direction."""
    generator = torch.Generator().manual_seed(0)
    width, lead, seconds = 12, 7, [1, 2, 3]
    head = torch.randn(20, width, generator=generator) * 0.7
    after_of = torch.randn(width, width, generator=generator) * 0.5
    passages = []
    for _ in range(60):
        states = torch.randn(12, width, generator=generator)
        states[:, 0] = 1
        states[1::2] = states[::2] @ after_of.T
        passages.append(([9, lead] * 6, states))
    direction = torch.zeros(width)
    direction[0] = 1
    (options,) = options_of([lead], [[lead, second] for second in seconds])
    shares, own = np.log(np.full(3, 0.2)), np.log(np.full(1, 0.4))
    fitted = fit_changes(head, direction, [options], shares, own, passages[:40])
    errors, totals = [], []
    for new, stop in ((torch.zeros(3, width), torch.zeros(width)), (fitted.new, fitted.own[0])):
        before = torch.cat([states[::2] for _, states in passages[40:]])
        after = torch.cat([states[1::2] for _, states in passages[40:]])
        chances = (torch.tensor(shares).float() + before @ new.T).exp()
        totals.append(float((chances.sum(1) + (own[0] + before @ stop).exp()).log().square().mean()))
        expected = (after @ head.T).softmax(1)[:, seconds]
        errors.append(float((chances - expected).abs().mean()))
    assert errors[1] < 0.9 * errors[0]
    assert totals[1] < 0.05


def test_only_declared_rows_change_with_the_fit(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", tied=False)
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    plain = grow(base, larger, tmp_path / "plain", init="shared", texts=TEXTS)
    fitted = grow(base, larger, tmp_path / "fitted", init="shared", texts=TEXTS, fit=True)
    before, one, other = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "plain", tmp_path / "fitted"))  # fmt: skip
    assert fitted.changed_head_rows == plain.changed_head_rows
    changed = (other[HEAD][:N_OLD] != before[HEAD]).any(1).nonzero(as_tuple=True)[0].tolist()
    assert changed == fitted.changed_head_rows
    assert not torch.equal(one[HEAD], other[HEAD])
    assert all(torch.equal(one[name], other[name]) for name in one if name != HEAD)
    taught = grow(base, larger, tmp_path / "taught", init="taught", texts=TEXTS, teaching=Teaching(1, 2), fit=True)  # fmt: skip
    made = load_file(tmp_path / "taught" / "model.safetensors")
    assert taught.changed_head_rows and not torch.equal(made[HEAD], one[HEAD])
    with pytest.raises(OptionError, match="fit: changes nothing with `init` mean"):
        grow(base, larger, tmp_path / "mean", fit=True)
