"""First values of new rows: what each way promises, on numbers small enough to check by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.model_toys import CHINESE, WORDS, base_vocabulary, larger_vocabulary, write_model, write_tokenizer
from zhllama.errors import InputError, OptionError
from zhllama.model.grow import grow
from zhllama.model.load import load_base
from zhllama.model.old_pieces import tokenize_surfaces
from zhllama.model.row_init import (
    RowCombination,
    focus,
    hf_mean,
    mean,
    moments,
    random,
    read_vectors,
    sparsemax,
    weighted_mean,
)
from zhllama.model.row_init_distilled import Distillation, align_tokenizations, distill, find_snippets
from zhllama.model.row_init_fitted import fit_output_rows, log_shares
from zhllama.vocab.any_tokenizer import load_any_tokenizer

N_OLD = 600
MATRIX = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])


def test_mean_and_weighted() -> None:
    cuts = [[0, 1], [1, 0], [0, 0, 2]]
    assert mean(cuts).rows(MATRIX).tolist() == [[0.5, 0.5], [0.5, 0.5], pytest.approx([2.0, 4 / 3])]
    inputs, outputs = weighted_mean(cuts, "input").rows(MATRIX), weighted_mean(cuts, "output").rows(MATRIX)
    assert inputs[0].tolist() == pytest.approx([1 / 3, 2 / 3]) and inputs[1].tolist() == pytest.approx(
        [2 / 3, 1 / 3]
    )
    assert torch.equal(inputs[0], outputs[1])


def test_a_row_made_of_nothing_is_the_mean_of_all() -> None:
    assert RowCombination([[], [2]], [[], [1.0]]).rows(MATRIX).tolist() == [
        pytest.approx([5 / 3, 5 / 3]),
        [4.0, 4.0],
    ]


def test_draws_follow_the_old_matrix_and_the_seed() -> None:
    old = torch.randn(5000, 8) * 0.3 + 0.1
    drawn = random(old, 4000, seed=1)
    assert float(drawn.mean()) == pytest.approx(0.1, abs=0.02) and float(drawn.std()) == pytest.approx(
        0.3, abs=0.02
    )
    assert torch.equal(drawn, random(old, 4000, seed=1)) and not torch.equal(drawn, random(old, 4000, seed=2))
    assert torch.allclose(hf_mean(old, 10, seed=1), old.mean(0), atol=1e-3)


def test_moments_need_no_second_matrix() -> None:
    old = torch.randn(3000, 16).bfloat16()
    centre, spread = moments(old)
    assert torch.allclose(centre, old.float().mean(0), atol=1e-6)
    assert torch.allclose(spread, old.float().std(0, correction=0), atol=1e-5)


def test_sparsemax_is_the_projection_on_the_simplex() -> None:
    scores = torch.tensor([[1.0, 0.9, -1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert sparsemax(scores).tolist() == [
        pytest.approx([0.55, 0.45, 0]),
        [1, 0, 0],
        pytest.approx([1 / 3] * 3),
    ]


def test_new_pieces_are_cut_as_inside_a_text(tmp_path: Path) -> None:
    """Both forms of the old tokenizer cut alike, and no ▁ is put before a piece that has none."""
    folder = write_tokenizer(base_vocabulary(), tmp_path)
    surfaces = ["人工".encode(), b" the", b"the", b" people"]
    cuts = tokenize_surfaces(load_any_tokenizer(folder / "tokenizer.model"), surfaces)
    assert cuts == tokenize_surfaces(load_any_tokenizer(folder / "tokenizer.json"), surfaces)
    assert len(cuts[0]) == 6  # bytes
    old = load_any_tokenizer(folder)
    assert [b"".join(old.surface(i) for i in cut) for cut in cuts] == surfaces


def test_byte_level_pieces_are_cut_into_bytes_where_they_are_no_text() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    inner.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    path = Path(__file__).parent / "none.json"

    from zhllama.vocab.any_tokenizer import JsonTokenizer

    old = JsonTokenizer(path)
    old.__dict__["inner"] = inner
    whole, half = "中".encode(), "中".encode()[:2]
    cuts = tokenize_surfaces(old, [whole, half, b" a"])
    assert [b"".join(old.surface(i) for i in cut) for cut in cuts] == [whole, half, b" a"]


def test_focus_takes_the_nearest_old_pieces(tmp_path: Path) -> None:
    old = load_any_tokenizer(write_tokenizer(base_vocabulary(), tmp_path))
    the, people = (base_vocabulary().ids[piece] for piece in ("▁the", "▁to"))
    vectors = {"▁the": torch.tensor([1.0, 0]), "▁to": torch.tensor([0, 1.0]), "那": torch.tensor([2.0, 0.1])}
    blend = focus([[5, 6], [7]], old, ["那".encode(), "无".encode()], vectors)
    assert blend.ids[0] == [the, people] or blend.ids[0] == [the]
    assert blend.weights[0][0] > 0.9 and sum(blend.weights[0]) == pytest.approx(1)
    assert (blend.ids[1], blend.weights[1]) == ([7], [1.0])  # no vector: the mean of its cut
    with pytest.raises(InputError, match="contain no piece"):
        focus([[5]], old, ["无".encode()], vectors)


def test_vectors_are_read_as_word2vec_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "some.vec"
    path.write_text("3 2\n中 1 2.5\n▁the 0 -1 \nof 3 4\n", encoding="utf-8")
    found = read_vectors(path, ["中", "▁the", "absent"])
    assert {k: v.tolist() for k, v in found.items()} == {"中": [1, 2.5], "▁the": [0, -1]}
    path.write_text("中 1 2\nof 3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"some.vec:2: has 1 numbers and the first had 2"):
        read_vectors(path, ["of"])
    with pytest.raises(InputError, match=r"absent\.vec: no such file"):
        read_vectors(tmp_path / "absent.vec", [])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("init", ["mean", "weighted", "random", "hf-mean", "focus", "fitted", "distill"])
def test_each_way_through_grow(tmp_path: Path, init: str, tied: bool) -> None:
    if init == "fitted" and tied:
        pytest.skip("refused: see test_fitted_needs_a_head_of_its_own")
    base = write_model(tmp_path / "base", tied=tied)
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    dice = np.random.default_rng(0)
    with (tmp_path / "some.vec").open("w", encoding="utf-8") as file:
        for piece in larger_vocabulary().pieces:
            file.write(f"{piece.text} {' '.join(map(str, dice.standard_normal(8)))}\n")
    grown = grow(base, larger, tmp_path / "out", init=init, vectors=tmp_path / "some.vec", texts=[CHINESE * 20],  # type: ignore[arg-type]
                 distillation=Distillation(steps=2, batch=2))  # fmt: skip
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "out"))
    for name in before.keys() & {"model.embed_tokens.weight", "lm_head.weight"}:
        assert torch.equal(after[name][:N_OLD], before[name])
        fresh = after[name][N_OLD:]
        assert fresh.shape[0] == grown.n_new and bool(torch.isfinite(fresh).all()) and float(fresh.std()) > 0


def test_boundaries_meet_where_both_cuts_have_read_the_same(tmp_path: Path) -> None:
    old = load_any_tokenizer(write_tokenizer(base_vocabulary(), tmp_path / "base"))
    new = load_any_tokenizer(write_tokenizer(larger_vocabulary(), tmp_path / "larger"))
    snippet = align_tokenizations(old, new, "在 we 人工智能!")
    for a, b in snippet.positions:
        assert b"".join(map(old.surface, snippet.old[: a + 1])) == b"".join(
            map(new.surface, snippet.new[: b + 1])
        )
    assert snippet.positions[-1] == (len(snippet.old) - 1, len(snippet.new) - 1)


@pytest.mark.parametrize("tied", [False, True])
def test_distilling_brings_the_hidden_states_nearer(tmp_path: Path, tied: bool) -> None:
    base = write_model(tmp_path / "base", tied=tied)
    old = load_any_tokenizer(base)
    new = load_any_tokenizer(write_tokenizer(larger_vocabulary(), tmp_path / "larger"))
    text = "".join(np.random.default_rng(0).choice(WORDS[:20], 600))
    taught = find_snippets(old, new, [text], N_OLD, 64)
    model = load_base(base)
    was = model.get_input_embeddings().weight.clone()
    cuts = tokenize_surfaces(old, [new.surface(i) for i in range(N_OLD, new.size)])
    start = mean(cuts).rows(was.detach())
    outputs = None if tied else mean(cuts).rows(model.get_output_embeddings().weight.detach())
    rows, heads, losses = distill(
        model, taught, start, outputs, N_OLD, Distillation(steps=20, batch=8, rate=0.3)
    )
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert torch.equal(model.get_input_embeddings().weight, was)
    used = {i for s in taught for i in s.new if i >= N_OLD}
    unseen = sorted(set(range(new.size - N_OLD)) - {i - N_OLD for i in used})
    assert unseen and torch.equal(rows[unseen], start[unseen])  # rows the text never shows stay as they began
    assert (heads is None) == tied


def test_fitted_rows_promise_the_first_piece_by_its_share(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", tied=False)
    old, new = (
        load_any_tokenizer(base),
        load_any_tokenizer(write_tokenizer(larger_vocabulary(), tmp_path / "larger")),
    )
    texts = ["".join(np.random.default_rng(n).choice(WORDS[:20], 60)) for n in range(8)]
    cuts = [*tokenize_surfaces(old, [new.surface(id) for id in range(N_OLD, new.size)])]
    model = load_base(base)
    rows = fit_output_rows(model, old, new, cuts, texts)
    firsts = [cut[0] for cut in cuts]
    shares = torch.from_numpy(log_shares(new, firsts, texts)).float()
    assert float(shares.exp().min()) > 0 and float(shares.max()) < 0
    head = model.get_output_embeddings().weight.detach()
    with torch.no_grad():
        ids = torch.tensor([old.encode([texts[0]])[0]])
        states = model.base_model(input_ids=ids).last_hidden_state[0]
    more = states @ (rows - head[firsts]).T  # over the first pieces' logits
    assert float((more / shares - 1).abs().mean()) < 0.2
    together = np.bincount(firsts, weights=shares.exp().numpy())
    assert together.max() < 1  # what is left is the first piece's own


def test_fitted_needs_a_head_of_its_own(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", tied=True)
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    with pytest.raises(OptionError, match="needs an untied LM head"):
        grow(base, larger, tmp_path / "out", init="fitted", texts=[CHINESE])
    with pytest.raises(OptionError, match="needs text"):
        grow(write_model(tmp_path / "other", tied=False), larger, tmp_path / "out", init="fitted")
