"""`grow --init taught`: what rows and first layers learn, what else stays equal, and that an interrupted run goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model_toys import (
    CHINESE,
    ENGLISH,
    WORDS,
    base_vocabulary,
    larger_vocabulary,
    line,
    logits,
    write_model,
    write_tokenizer,
)
from zhllama.errors import InputError, OptionError
from zhllama.model import row_init_taught, taught_model
from zhllama.model.first_layers import find_first_layers
from zhllama.model.grow import PARTIAL, Grown, grow
from zhllama.model.lessons import draw_lessons, lesson_of
from zhllama.model.load import load_base
from zhllama.model.old_rows import compare_old_rows
from zhllama.model.row_init_taught import Teaching
from zhllama.model.student import Student
from zhllama.vocab.any_tokenizer import load_any_tokenizer

N_OLD = 600
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TEXTS = ["".join(np.random.default_rng(n).choice(WORDS, 60)) for n in range(24)]
QUICK = Teaching(steps=6)


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    return write_tokenizer(larger_vocabulary(), tmp_path / "larger")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def taught(base: Path, larger: Path, out: Path, teaching: Teaching = QUICK, **more: Any) -> Grown:
    return grow(base, larger, out, **{"init": "taught", "texts": TEXTS, "teaching": teaching, **more})


def test_only_the_declared_layers_and_rows_of_the_head_change(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", num_hidden_layers=4)
    before = weights(base)
    grown = taught(base, larger, tmp_path / "out", Teaching(1, 6))
    after = weights(tmp_path / "out")
    assert before.keys() == after.keys()
    expected = sorted(name for name in before if name.startswith("model.layers.0."))
    assert grown.changed_weights == expected and grown.taught_layers == 1
    others = before.keys() - {EMBEDDING, HEAD, *expected}
    assert all(torch.equal(before[name], after[name]) for name in others)
    assert not any(torch.equal(before[name], after[name]) for name in expected)
    assert torch.equal(after[EMBEDDING][:N_OLD], before[EMBEDDING])
    rows = (after[HEAD][:N_OLD] != before[HEAD]).any(1).nonzero(as_tuple=True)[0].tolist()
    assert rows == grown.changed_head_rows
    assert not (tmp_path / "out" / PARTIAL).exists()


def test_rows_alone_leave_every_other_weight_equal(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", dtype=torch.bfloat16)
    before = weights(base)
    grown = taught(base, larger, tmp_path / "out", Teaching(0, 6), keep_old_rows=True)
    after = weights(tmp_path / "out")
    assert grown.changed_weights == [] and grown.taught_layers == 0
    for name in before:
        old = after[name][:N_OLD] if name in (EMBEDDING, HEAD) else after[name]
        assert old.dtype == torch.bfloat16 and torch.equal(old, before[name]), name
    assert grown.boundary_error is not None and grown.boundary_error[1] < grown.boundary_error[0]


def test_the_states_at_new_boundaries_come_closer_to_the_original_ones(tmp_path: Path, larger: Path) -> None:
    """Measured on the written model, on text that it was not taught."""
    base = write_model(tmp_path / "base", num_hidden_layers=4)
    texts = ["".join(np.random.default_rng(n).choice(WORDS, 60)) for n in range(100, 120)]
    errors = {}
    for name, layers, steps in (("start", 0, 1), ("rows", 0, 60), ("layers", 2, 60)):
        taught(base, larger, tmp_path / name, Teaching(layers, steps))
        errors[name] = difference(base, tmp_path / name, texts, 3)
    assert errors["rows"] < 0.8 * errors["start"]
    assert errors["layers"] < 0.9 * errors["rows"]


def difference(base: Path, grown: Path, texts: list[str], layer: int) -> float:
    """The mean square of the difference of hidden states where new tokens end, as a share of the original ones' variance."""
    old, new = load_any_tokenizer(base), load_any_tokenizer(grown)
    models = load_base(base), load_base(grown)
    found, expected = [], []
    for text in texts:
        lesson = lesson_of(old, new, 1, text)
        with torch.no_grad():
            was, now = (
                model.base_model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
                for model, ids in zip(models, (lesson.old, lesson.new), strict=True)
            )
        expected.append(was[lesson.at_old])
        found.append(now[lesson.at_new])
    one, other = torch.cat(found), torch.cat(expected)
    return float((one - other).square().mean() / other.var(0).mean())


def test_guard_text_keeps_the_states_of_english(
    tmp_path: Path, larger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_model(tmp_path / "base", num_hidden_layers=4)
    english = [ENGLISH] * 40

    def moved(folder: Path) -> float:
        ids = base_vocabulary().processor.encode(ENGLISH)
        return float((logits(folder, ids)[:, :N_OLD] - logits(base, ids)).square().mean())

    guarded = taught(base, larger, tmp_path / "guarded", Teaching(2, 30), texts=[*TEXTS, *english], keep_old_rows=True)  # fmt: skip
    assert guarded.guard_text == "given"
    monkeypatch.setattr("zhllama.model.student.GUARD", 0.0)
    free = taught(base, larger, tmp_path / "free", Teaching(2, 30), keep_old_rows=True)
    assert free.guard_text == "shipped"
    assert moved(tmp_path / "guarded") < 0.5 * moved(tmp_path / "free")


class Killed(Exception):
    """Stands for a signal."""


class Kill(row_init_taught.NoProgress):
    """Stops the teaching once, in its third step, and notes with how many steps each start began."""

    def __init__(self) -> None:
        self.name, self.taken, self.begun = "", 0, list[int]()

    def stage(self, name: str, total: float | None = None, unit: str = "share", done: int = 0) -> None:
        self.name = name
        if name == "teaching":
            self.begun.append(done)

    def __call__(self, step: float = 1) -> None:
        self.taken += self.name == "teaching"
        if self.name == "teaching" and self.taken == 3:
            raise Killed


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, larger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_model(tmp_path / "base", num_hidden_layers=4)
    taught(base, larger, tmp_path / "whole")
    monkeypatch.setattr(row_init_taught, "EVERY", 0.0)
    monkeypatch.setattr(row_init_taught, "WRITING", 0.0)
    progress = Kill()
    with pytest.raises(Killed):
        taught(base, larger, tmp_path / "resumed", progress=progress)
    assert (tmp_path / "resumed" / PARTIAL / row_init_taught.CHECKPOINT).is_file()
    monkeypatch.setattr(taught_model, "fit_shared_head", None)  # it is in the folder already
    taught(base, larger, tmp_path / "resumed", progress=progress)
    assert progress.begun == [0, 2]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_other_text_or_one_that_is_cut_off_begins_again(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base")
    partial = tmp_path / "out" / PARTIAL
    row_init_taught.save_state(partial / row_init_taught.CHECKPOINT, {"key": "another", "done": 5})
    (partial / taught_model.HEAD).write_bytes(b"cut off")
    taught(base, larger, tmp_path / "out")
    taught(base, larger, tmp_path / "new")
    one, other = weights(tmp_path / "out"), weights(tmp_path / "new")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "kind", ["llama", "qwen3", "mistral", "gpt2", "bloom", "gemma", "gemma3_text", "phi", "opt"]
)
def test_architectures(tmp_path: Path, larger: Path, kind: str) -> None:
    """Also tied ones, and those whose embedding has a factor."""
    sizes: dict[str, Any] = {"gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4}, "gemma": {"head_dim": 16},
                             "gemma3_text": {"head_dim": 16}, "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64}}.get(kind, {})  # fmt: skip
    base = write_model(tmp_path / "base", kind, tied=True, **sizes)
    ids = base_vocabulary().processor.encode(CHINESE)
    model = load_base(base)
    find_first_layers(model, 1, ids, base)
    grown = taught(base, larger, tmp_path / "out", Teaching(1, 30), untie=True)
    assert grown.taught_layers == 1 and grown.changed_weights
    assert grown.boundary_error is not None and grown.boundary_error[1] < grown.boundary_error[0]
    told = compare_old_rows_of(tmp_path / "out", base, grown)
    assert told == set(grown.changed_weights)
    assert logits(tmp_path / "out", ids).isfinite().all()


def compare_old_rows_of(out: Path, base: Path, grown: Grown) -> set[str]:
    """The stored weights that differ beside those that have another shape."""
    before, after = weights(base), weights(out)
    return {
        name
        for name in before
        if before[name].shape == after[name].shape and not torch.equal(before[name], after[name])
    }


def test_lessons_are_whole_tokens_of_both_and_differ_by_seed(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base")
    old, new = load_any_tokenizer(base), load_any_tokenizer(larger)
    lessons = draw_lessons(old, new, 1, [*TEXTS, *[ENGLISH] * 9], 10, 5, 512, 0)
    assert len(lessons.taught) == 10 and len(lessons.guard) == 5
    for lesson in lessons.taught:
        assert lesson.old[0] == lesson.new[0] == 1 and 0 not in lesson.at_new
        for a, b in zip(lesson.at_old, lesson.at_new, strict=True):
            read = [b"".join(map(one.surface, ids[1 : at + 1])) for one, ids, at in ((old, lesson.old, a), (new, lesson.new, b))]  # fmt: skip
            assert read[0] == read[1]
    assert all(max(ids) < N_OLD for ids in lessons.guard)
    assert draw_lessons(old, new, 1, TEXTS, 10, 5, 512, 1) != draw_lessons(old, new, 1, TEXTS, 10, 5, 512, 0)
    short = draw_lessons(old, new, 1, TEXTS, 10, 5, 40, 0)
    assert all(len(lesson.old) <= 40 for lesson in short.taught)


def test_what_cannot_be_taught_is_refused_in_one_line_before_the_work(
    tmp_path: Path, larger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied, own = write_model(tmp_path / "tied", tied=True), write_model(tmp_path / "own")
    out = tmp_path / "out"
    with pytest.raises(OptionError, match=r"init taught.*needs an untied LM head"):
        taught(tied, larger, out)
    with pytest.raises(OptionError, match=r"init taught.*needs text"):
        taught(own, larger, out, texts=())
    with pytest.raises(InputError, match="contains none of the new pieces"):
        taught(own, larger, out, texts=[ENGLISH])
    with pytest.raises(InputError, match="has 2 layers, and the first 2 cannot be run alone"):
        taught(own, larger, out, Teaching(2, 6))
    monkeypatch.setattr(
        "zhllama.model.first_layers._layers", lambda model: list(model.base_model.layers)[::-1]
    )
    with pytest.raises(InputError, match="has first layers that cannot be run alone"):
        taught(own, larger, out)
    assert not out.exists()


def test_a_killed_command_goes_on_with_resume(
    tmp_path: Path, larger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "base", num_hidden_layers=4)
    (tmp_path / "zh.txt").write_text("\n\n".join([CHINESE * 9, *TEXTS]), encoding="utf-8")
    words = (
        "grow",
        "--model",
        "base",
        "--tokenizer",
        "larger",
        "--init",
        "taught",
        "--text",
        "zh.txt",
        "--steps",
        6,
    )
    assert line(tmp_path, *words, "--out", "whole").code == 0
    monkeypatch.setattr(row_init_taught, "EVERY", 0.0)
    monkeypatch.setattr(row_init_taught, "WRITING", 0.0)
    step, taken = Student.step, list[int]()

    def stopped(student: Student, *some: Any) -> float:
        if len(taken) == 3:
            taken.append(0)
            raise KeyboardInterrupt
        taken.append(student.done)
        return step(student, *some)

    monkeypatch.setattr(Student, "step", stopped)
    assert line(tmp_path, *words, "--out", "out").code != 0
    again = line(tmp_path, *words, "--out", "out")
    assert again.code == 1 and "Give --resume to continue, or --force" in again.err
    done = line(tmp_path, *words, "--out", "out", "--resume")
    assert done.code == 0, done.err
    assert taken == [0, 1, 2, 0, 3, 4, 5]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not (tmp_path / "out" / PARTIAL).exists()


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("mean", ("--text", "zh.txt")), ("mean", ("--steps", 6)), ("shared", ("--steps", 6)),
        ("weighted", ("--vectors", "zh.txt")), ("distill", ("--teach-layers", 1)),
    ],
)  # fmt: skip
def test_options_that_an_initialization_does_not_take(
    tmp_path: Path, init: str, words: tuple[object, ...]
) -> None:
    write_model(tmp_path / "base")
    write_tokenizer(larger_vocabulary(), tmp_path / "tok")
    (tmp_path / "zh.txt").write_text(CHINESE, encoding="utf-8")
    paths = ("--model", "base", "--tokenizer", "tok", "--out", "grown")
    done = line(tmp_path, "grow", *paths, "--init", init, *words)
    assert done.code == 1 and f"{words[0]}: changes nothing with --init {init}" in done.err, done.err
    assert not (tmp_path / "grown").exists()


def test_the_whole_line(tmp_path: Path) -> None:
    """grow on the command line, its manifest, the audit of the weights, and an adapter's base."""
    write_model(tmp_path / "base", tied=True)
    write_tokenizer(larger_vocabulary(), tmp_path / "tok")
    (tmp_path / "zh.txt").write_text("\n\n".join([CHINESE * 9, *TEXTS]), encoding="utf-8")
    words = ("grow", "--model", "base", "--tokenizer", "tok", "--untie", "--text", "zh.txt", "--out", "grown")
    assert "changes nothing with --init mean" in line(tmp_path, *words, "--teach-layers", 1).err
    assert "continues nothing with --init mean" in line(tmp_path, *words, "--resume").err
    done = line(tmp_path, *words, "--init", "taught", "--steps", 6, "--teach-layers", 1)
    assert done.code == 0, done.err
    figures = json.loads((tmp_path / "grown/manifest.json").read_text(encoding="utf-8"))["figures"]
    changed = figures["changed_weights"]
    assert changed and f"except {len(changed)} weights of the first 1 layers" in done.out
    assert "the given text has too little English" in done.out
    audit = ("audit", "tok", "--base", "base", "--fuzz", 0, "--model", "grown")
    shown = line(tmp_path, *audit)
    assert shown.code == 0 and f"{len(changed)} of 19 changed," in shown.out
    told = compare_old_rows(tmp_path / "grown")
    assert told is not None and sorted(told.changed_weights) == changed and told.undeclared_weights == ()
    # A weight of a later layer that changed behind the manifest's back
    held = weights(tmp_path / "grown")
    held["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(held, tmp_path / "grown/model.safetensors", metadata={"format": "pt"})
    told = compare_old_rows(tmp_path / "grown")
    assert told is not None and told.undeclared_weights == ("model.layers.1.mlp.up_proj.weight",)
    assert line(tmp_path, *audit).code == 1
