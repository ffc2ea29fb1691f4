"""The fit of a shared head to what the original model predicts after each first token."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.model_toys import WORDS, larger_vocabulary, line, write_model, write_tokenizer
from zhllama.errors import InputError, OptionError
from zhllama.model import row_init_shared
from zhllama.model.grow import grow
from zhllama.model.head_fit import FittedChanges, fit_changes, options_of
from zhllama.model.next_tokens import NextTokens
from zhllama.model.row_init_fitted import ReadPassage
from zhllama.model.row_init_shared import ENGLISH_LIMIT, SharedHead, Shares, share_head, with_fit
from zhllama.model.row_init_taught import Teaching
from zhllama.vocab.any_tokenizer import AnyTokenizer

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
        states[:, 6:] *= 0.1
        states[1::2] = states[::2] @ after_of.T
        passages.append(ReadPassage("", [9, lead] * 6, states))
    # Text in which the first token never follows varies where the other does not.
    elsewhere = 2 * torch.randn(400, width, generator=generator)
    elsewhere[:, 0] = 1
    direction = torch.zeros(width)
    direction[0] = 1
    (options,) = options_of([lead], [[lead, second] for second in seconds])
    shares, own = np.log(np.full(3, 0.2)), np.log(np.full(1, 0.4))
    fitted = fit_changes(head, direction, [options], shares, own, passages[:40], elsewhere[:200])
    errors, totals = [], []
    for new, stop in ((torch.zeros(3, width), torch.zeros(width)), (fitted.new, fitted.own[0])):
        before = torch.cat([one.states[::2] for one in passages[40:]])
        after = torch.cat([one.states[1::2] for one in passages[40:]])
        chances = (torch.tensor(shares).float() + before @ new.T).exp()
        totals.append(float((chances.sum(1) + (own[0] + before @ stop).exp()).log().square().mean()))
        expected = (after @ head.T).softmax(1)[:, seconds]
        errors.append(float((chances - expected).abs().mean()))
    assert errors[1] < 0.9 * errors[0]
    assert totals[1] < 0.05
    logits = torch.tensor([*own, *shares]).float() + elsewhere[200:] @ torch.cat([fitted.own, fitted.new]).T
    assert logits.logsumexp(1).square().mean() < 0.006  # 0.012 from a fit that leaves them out


WIDTH = 8


class Words:
    """A tokenizer that takes the longest of its words."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [self._ids(text) for text in texts]

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        best = max((id for id, word in enumerate(self.words) if text.startswith(word)), key=lambda id: len(self.words[id]))  # fmt: skip
        return [best, *self._ids(text[len(self.words[best]) :])]

    def surface(self, id: int) -> bytes:
        return self.words[id].encode()


def _head_and_english() -> tuple[torch.Tensor, torch.Tensor, NextTokens]:
    """A head of 20 rows, the direction, and English states whose next token is mostly the likeliest one."""
    generator = torch.Generator().manual_seed(1)
    head = torch.randn(20, WIDTH, generator=generator)
    states = torch.randn(300, WIDTH, generator=generator)
    head[:, -1], states[:, -1] = 0, 1
    head[4:6, -1] = -8  # the first tokens of SHARES hardly occur in English
    direction = torch.zeros(WIDTH)
    direction[-1] = 1
    return head, direction, NextTokens(states, (states @ head.T).argmax(1), 300)


SHARES = Shares(np.array([4, 4, 5]), np.log([0.2, 0.3, 0.5]), np.array([4, 5]), np.log([0.5, 0.5]))


def test_a_fit_that_costs_english_too_much_is_weakened() -> None:
    head, direction, english = _head_and_english()
    before = english.bits_per_byte(head)
    plain = share_head(head, SHARES, direction, english, before, False)
    shift, kept = torch.zeros(3, WIDTH), []
    for size in (0.0, 2.0, 4.0, 8.0, 40.0):
        shift[:, -1] = size
        found = share_head(head, SHARES, direction, english, before, False, FittedChanges(shift, shift[:2]))
        kept.append(found.fit_kept)
        permitted = found.english[1] <= found.english[0] * (1 + ENGLISH_LIMIT)
        assert permitted == (size < 40)
    assert plain.fit_kept == 0 and kept == [1, 1, 0.5, 0.25, 0.25]


def test_a_fit_is_kept_if_it_gains_on_held_out_text_and_english_permits_it() -> None:
    head, _, held_out = _head_and_english()
    worse, better = torch.full((1, WIDTH), 0.0), torch.full((1, WIDTH), 0.0)
    worse[:, -1], better[:, -1] = 3, -9

    def one(rows: torch.Tensor, english: float, kept: float) -> SharedHead:
        return SharedHead(rows, [], head[:0], (2.0, english), kept)

    hardly = better + 1e-4 * (worse - better)
    assert with_fit(one(hardly, 2.0, 0), one(better, 2.0, 1), head, held_out).fit_kept == 0
    limit = 2 * (1 + ENGLISH_LIMIT)
    found = with_fit(one(worse, 2.0, 0), one(better, limit, 1), head, held_out)
    assert found.fit_kept == 1 and torch.equal(found.rows, better)
    assert found.held_out is not None and found.held_out[1] < found.held_out[0]
    for rows, english in ((better, limit + 0.001), (worse, 2.0)):
        other = worse if rows is better else better
        found = with_fit(one(other, 2.0, 0), one(rows, english, 0.5), head, held_out)
        assert found.fit_kept == 0 and torch.equal(found.rows, other)
        assert found.held_out is not None and (found.held_out[1] < found.held_out[0]) == (rows is better)


def test_bits_of_new_tokens_are_those_of_the_whole_head() -> None:
    """At old states before a new token, by hand: the log of its share of all old and new rows."""
    head, _, old = _head_and_english()
    rows = torch.ones(2, WIDTH)
    targets = torch.arange(300) % 22
    found = NextTokens(old.states, targets, 300).bits_per_byte(head, rows, [3], head[4:5])
    changed = torch.cat([head[:3], head[4:5], head[4:], rows])
    expected = -(old.states @ changed.T).log_softmax(1)[range(300), targets].mean() / np.log(2)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_only_declared_rows_change_with_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's weights are random, so that no fit gains on other text, and the head would be that of `shared` alone."""
    monkeypatch.setattr(row_init_shared, "with_fit", lambda plain, fitted, *_: fitted)
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


def test_one_passage_is_not_fitted(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", tied=False)
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    with pytest.raises(InputError, match="has one passage of two tokens"):
        grow(base, larger, tmp_path / "out", init="shared", texts=TEXTS[:1], fit=True)
    two = grow(base, larger, tmp_path / "two", init="shared", texts=TEXTS[:2], fit=True)
    assert two.fit_kept is not None and two.fit_held_out is not None
    plain = grow(base, larger, tmp_path / "plain", init="shared", texts=TEXTS[:2])
    assert plain.fit_kept is None and plain.fit_held_out is None


@pytest.mark.parametrize(
    "kept, held_out, told",
    [
        (1.0, (2.5, 2.25), ["fit: 2.2500 bits per byte of held-out text with the new head, 2.5000 without the fit"]),
        (0.25, (2.5, 2.25), ["fit: 2.2500 bits", "25 % of the fit is kept: more would cost English over 0.5 %"]),
        (0.0, (2.5, 2.25), ["the fit is left out: it would cost English over 0.5 %"]),
        (0.0, (2.5, 2.495), ["the fit is left out: it must save 0.25 % of the bits of held-out text (2.4950 per byte with it, 2.5000 without)"]),
    ],
)  # fmt: skip
def test_the_command_tells_what_became_of_the_fit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: float,
    held_out: tuple[float, float],
    told: list[str],
) -> None:
    write_model(tmp_path / "base", tied=False)
    write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    (tmp_path / "zh.jsonl").write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS), encoding="utf-8"
    )
    monkeypatch.setattr(row_init_shared, "with_fit", lambda plain, fitted, *_: replace(plain, fit_kept=kept, held_out=held_out))  # fmt: skip
    done = line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", "--init", "shared", "--text", "zh.jsonl", "--fit", "--out", "out")  # fmt: skip
    assert done.code == 0
    said = [one for one in (done.out + done.err).splitlines() if "fit" in one]
    assert [one.startswith(start) for one, start in zip(said, told, strict=True)] == [True] * len(told)
    figures = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["figures"]
    assert (figures["fit_kept"], figures["fit_held_out"]) == (kept, list(held_out))


def test_the_head_is_that_of_shared_alone_where_no_fit_gains(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", tied=False)
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    found = grow(base, larger, tmp_path / "fitted", init="shared", texts=TEXTS, fit=True)
    assert found.fit_kept == 0 and found.fit_held_out is not None
    assert found.fit_held_out[0] <= found.fit_held_out[1]
    grow(base, larger, tmp_path / "plain", init="shared", texts=TEXTS)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "fitted"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_new_tokens_are_measured_where_an_old_one_ends() -> None:
    """By hand: 6 old tokens and 4 new ones of the same text."""
    old, new = (cast(AnyTokenizer, Words(words)) for words in (["a", "b", "c"], ["a", "b", "c", "ab", "bc"]))
    states = torch.arange(12.0).reshape(6, 2)
    found = NextTokens.new(old, new, [ReadPassage("abcabc", [0, 1, 2, 0, 1, 2], states)])
    assert new.encode(["abcabc"]) == [[3, 2, 3, 2]]
    assert found.targets.tolist() == [2, 3, 2] and found.bytes == 1 + 2 + 1
    assert found.states.tolist() == [[2, 3, 1], [4, 5, 1], [8, 9, 1]]
    # only the first ids of the text have states
    cut = NextTokens.new(old, new, [ReadPassage("abcabc", [0, 1, 2], states[:3])])
    assert cut.targets.tolist() == [2] and cut.bytes == 1
    nothing = NextTokens.new(old, new, [ReadPassage("a", [0], states[:1])])
    assert nothing.bytes == 0 and nothing.bits_per_byte(torch.ones(3, 3)) == 0
