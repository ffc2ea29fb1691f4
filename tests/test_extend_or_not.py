"""The experiment on extending: its texts are apart, its curves go on where they stopped, and crossings are found."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

import scripts.experiments.extend_or_not as experiment
from zhllama.io.files import to_json
from zhllama.io.text import read_lines
from zhllama.model.row_init_distilled import Distillation
from zhllama.resources import shipped
from zhllama.training.document_tokenizer import DocumentTokenizer

from .model_toys import base_vocabulary, write_model

# ruff: isort: split
# Importing the experiment has put its folder on the path.
from extending.curve import Point, Settings, batches, read_points, train
from extending.report import at, compare, table
from extending.texts import PASSAGE, Texts, draw, mixture, passages
from extending.variants import Base, Learn, Variant, most_useful

CHINESE = [line for f in sorted(shipped("corpora", "sample").glob("zh_*.txt")) for line in read_lines([f])]
ENGLISH = [line for f in sorted(shipped("corpora", "sample").glob("en_*.txt")) for line in read_lines([f])]
TEXTS = Texts([], CHINESE[:-4], ENGLISH[:-2], CHINESE[-4:], ENGLISH[-2:])
SETTINGS = Settings(batch=2, size=32, validation_zh=60, validation_en=60)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("small")
    write_model(folder / "base")
    return Base("small", folder, SETTINGS, Distillation(steps=2, batch=2))


def test_passages_hold_every_line_and_no_more() -> None:
    document = "\n".join(["字" * 500, "文" * 900, "长" * 3000, "末"])
    cut = list(passages(document))
    assert "".join(cut).replace("\n", "") == document.replace("\n", "")
    assert max(map(len, cut)) <= PASSAGE + 1 and len(cut) == 5


def test_mixture_keeps_its_share_of_bytes() -> None:
    some = list(islice(mixture(["中文" * 50, "汉字" * 20], ["some words " * 9], 0.25), 400))
    english = sum(len(t) for t in some if t.isascii())
    assert english / sum(len(t.encode()) for t in some) == pytest.approx(0.25, abs=0.01)
    assert some[0] == "中文" * 50 and "汉字" * 20 in some


def test_what_is_aside_is_never_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("zh_a", "zh_b"):
        documents = [
            "\n".join(f"{name}的第{n}篇第{k}行，这一行写得足够长，长到二十个字以上。" for k in range(20))
            for n in range(60)
        ]
        (folder / f"{name}.txt.xz").write_bytes(_packed("\n\n".join(documents)))
    novels = "\n\n".join("\n".join(f"Book {n}, line {k}." for k in range(200)) for n in range(3))
    (folder / "en_gutenberg.txt.xz").write_bytes(_packed(novels))
    texts = draw(tmp_path, tmp_path / "texts.json")
    read = {line for p in (*texts.base_zh, *texts.zh, *texts.en) for line in p.splitlines()}
    assert len(texts.validation_zh) == 4 and texts.validation_en and texts.base_zh and texts.zh
    assert read.isdisjoint(
        line for p in (*texts.validation_zh, *texts.validation_en) for line in p.splitlines()
    )
    # whole documents are kept aside, not the measured passage alone
    of = {line.split("第")[0] + line.split("第")[1] for line in read if "第" in line}
    assert of.isdisjoint(p.split("第")[0] + p.split("第")[1] for p in texts.validation_zh)
    assert set(texts.base_zh).isdisjoint(texts.zh)
    assert draw(Path("/nowhere"), tmp_path / "texts.json") == texts


def test_other_sources_are_left_out_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    shared = "这一行两个来源都有，而且写得足够长，长到二十个字以上。"
    for name in ("zh_a", "zh_docs_rust"):
        lines = [
            f"{name}的第{n}篇第{k}行，写得足够长，长到二十个字以上。" for n in range(60) for k in range(20)
        ]
        documents = ["\n".join([shared, *lines[20 * n : 20 * n + 20]]) for n in range(60)]
        (folder / f"{name}.txt.xz").write_bytes(_packed("\n\n".join(documents)))
    novels = "\n\n".join("\n".join(f"Book {n}, line {k}." for k in range(200)) for n in range(3))
    (folder / "en_gutenberg.txt.xz").write_bytes(_packed(novels))
    texts = draw(tmp_path, tmp_path / "texts.json")
    assert list(texts.other_zh) == ["zh_docs_rust"] and len(texts.other_zh["zh_docs_rust"]) == 10
    read = "\n".join((*texts.base_zh, *texts.zh, *texts.validation_zh))
    assert "zh_docs_rust" not in read and "zh_a" in read
    assert all(shared not in p for p in (*texts.base_zh, *texts.zh))


def test_a_seed_is_another_order_of_the_same_training_text() -> None:
    assert TEXTS.reordered(0) is TEXTS
    one, other = TEXTS.reordered(1), TEXTS.reordered(2)
    assert one == TEXTS.reordered(1) and one.zh != other.zh != TEXTS.zh
    assert sorted(one.zh) == sorted(TEXTS.zh) and sorted(one.en) == sorted(TEXTS.en) != one.en
    assert one.validation_zh == TEXTS.validation_zh and one.other_zh == TEXTS.other_zh
    assert Variant(40, learn="faster", seed=2).name == "40-mean-faster-seed2"
    assert Variant(0, learn="lora", rate=1e-3).name == "old-lora-0.001"


def _packed(text: str) -> bytes:
    import lzma

    return lzma.compress(text.encode())


def test_the_most_useful_pieces() -> None:
    base = base_vocabulary()
    few, many, _ = most_useful(base, CHINESE, (80, 300, 2000))
    assert len(few.pieces) == len(base.pieces) + 80 and [p.text for p in few.pieces[:600]] == [
        p.text for p in base.pieces
    ]
    assert {p.text for p in few.pieces} < {p.text for p in many.pieces} and not few.dead(range(600, 680))
    counts = [sum(map(len, v.processor.encode(CHINESE))) for v in (base, few, many)]
    assert counts[0] > counts[1] > counts[2]


def _curve(base: Base, folder: Path, marks: list[tuple[int, float]]) -> list[Point]:
    tokens = DocumentTokenizer.open(base.tokenizer(40, TEXTS))
    return train(folder, lambda: base.start(Variant(40), TEXTS, 1e-3), tokens, 600, TEXTS.zh, TEXTS, marks)


@pytest.fixture(autouse=True)
def _few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extending.variants.SIZES", (2000,))


def test_a_curve_goes_on_as_if_it_had_never_stopped(base: Base, tmp_path: Path) -> None:
    marks = [(0, 0.0), (3, 30.0), (6, 60.0)]
    whole = _curve(base, tmp_path / "whole", marks)
    _curve(base, tmp_path / "halves", marks[:2])
    (tmp_path / "halves" / "curve.jsonl").unlink()  # killed between the checkpoint and the points
    again = _curve(base, tmp_path / "halves", marks)
    assert [replace(p, process_seconds=0) for p in again] == [replace(p, process_seconds=0) for p in whole]
    assert again == read_points(tmp_path / "halves") == _curve(base, tmp_path / "halves", marks)
    one, other = (torch.load(tmp_path / f / "checkpoint.pt")["model"] for f in ("whole", "halves"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole[-1].tokens == 6 * 64 and whole[-1].new_tokens > 0 and 0 < whole[-1].rows_seen <= 40


@pytest.mark.parametrize("learn", ["new", "faster", "input-faster"])
def test_old_rows_stay_where_new_ones_alone_learn(base: Base, learn: Learn) -> None:
    variant = Variant(40, learn=learn)
    trained = base.start(variant, TEXTS, 1e-2)
    before = {n: p.clone() for n, p in trained.model.named_parameters()}
    rows = trained.model.get_input_embeddings().weight.clone()
    read = next(batches(TEXTS.zh, TEXTS.en, DocumentTokenizer.open(base.tokenizer(40, TEXTS)), SETTINGS))
    assert read.characters > 0 and len(read.ids) == 64
    trained.step(30, read.blocks)
    moved = {n for n, p in trained.model.named_parameters() if not torch.equal(p, before[n])}
    assert (moved == {"model.embed_tokens.rows", "lm_head.rows"}) == (learn == "new")
    rates = {id(p): group["lr"] for group in trained.optimizer.param_groups for p in group["params"]}
    named = dict(trained.model.named_parameters())
    assert rates[id(named["lm_head.rows"])] == pytest.approx(1e-2 * (10 if learn == "faster" else 1))
    faster = 10 if learn != "new" else 1
    assert rates[id(named["model.embed_tokens.rows"])] == pytest.approx(1e-2 * faster)
    assert rates.get(id(named["model.norm.weight"]), 1e-2) == pytest.approx(1e-2)
    assert torch.equal(trained.model.get_input_embeddings().weight[:600], rows[:600])


def test_adapters_alone_learn(base: Base) -> None:
    trained = base.start(Variant(0, learn="lora"), TEXTS, 1e-2)
    before = {n: p.clone() for n, p in trained.model.named_parameters()}
    read = next(batches(TEXTS.zh, TEXTS.en, DocumentTokenizer.open(base.folder / "base"), SETTINGS))
    first = trained.step(30, read.blocks)
    assert first == pytest.approx(base.start(Variant(0), TEXTS, 1e-2).step(30, read.blocks), abs=0.005)
    moved = {n for n, p in trained.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all("lora_" in name for name in moved)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in moved} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    assert trained.step(31, read.blocks) < first


def test_untied_begins_as_the_tied_one_did(tmp_path: Path) -> None:
    write_model(tmp_path / "base", tied=True)
    tied = Base("small", tmp_path, SETTINGS, Distillation(steps=2, batch=2))
    parts = [tied.start(Variant(0, untied=untied), TEXTS, 1e-3) for untied in (False, True)]
    read = next(batches(TEXTS.zh, TEXTS.en, DocumentTokenizer.open(tied.folder / "base"), SETTINGS))
    assert len({p.step(0, read.blocks) for p in parts}) == 1
    assert len(parts[1].parameters) == len(parts[0].parameters) + 1


def test_taught_rows_cost_their_seconds(base: Base) -> None:
    folder, seconds = base.grown(Variant(40, "distill"), TEXTS)
    assert seconds > 0 and base.grown(Variant(40, "distill"), TEXTS) == (folder, seconds)
    assert base.grown(Variant(40), TEXTS)[1] == 0


def _points(bits: dict[float, float], new: int = 1) -> list[Point]:
    return [
        Point(int(s), s, s, int(s) * 10, int(s) * 7, int(s) * new, 1, None, b, 2.0) for s, b in bits.items()
    ]


def test_crossings() -> None:
    old = _points({0: 8.0, 100: 6.0, 400: 5.5}, new=0)
    late = _points({0: 12.0, 100: 6.5, 400: 5.0}, new=20)
    v = compare("10-mean", 10, old, late)
    assert v.crossing is not None and at(old, v.crossing.seconds, "zh_bits_per_character") == pytest.approx(
        at(late, v.crossing.seconds, "zh_bits_per_character"), abs=0.02
    )
    assert 100 < v.crossing.seconds < 400 and v.crossing.per_row == pytest.approx(
        2 * v.crossing.seconds, rel=0.1
    )
    assert v.ahead == pytest.approx(0.5) and v.speed is None
    assert compare("n", 10, old, _points({0: 12.0, 400: 5.6})).crossing is None
    # taught rows: the curve begins later, and is only judged from there on
    taught = compare("n", 10, old, _points({50: 5.9, 400: 5.5}))
    assert taught.crossing is None or taught.crossing.seconds >= 50
    assert compare("n", 10, old, _points({50: 5.4, 400: 5.2})).crossing.seconds == 50  # type: ignore[union-attr]
    assert compare("n", 10, old, _points({0: 9.0, 400: 5.75})).speed == pytest.approx(250 / 400)


def test_what_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "small"
    experiment.show(folder)
    assert "has not begun" in capsys.readouterr().out
    made = {
        "old": {0: 8.0, 60: 7.0, 120: 6.5},
        "8000-mean": {0: 12.0, 60: 7.5, 120: 6.4},
        "1000-distill": {20: 9.0, 60: 6.9, 120: 6.3},
    }
    from extending.curve import _write

    for name, bits in made.items():
        (folder / "curves" / name).mkdir(parents=True)
        _write(folder / "curves" / name, _points(bits))
    experiment.show(folder)
    shown = capsys.readouterr().out
    assert (
        "| old | 8.000 / 2.000 | 7.000 / 2.000 | 6.500 / 2.000 |" in shown
        and "| 8000-mean | 120 | +0.100 |" in shown
    )
    assert (
        shown.strip()
        == table(
            {n: (0 if n == "old" else int(n.split("-")[0]), _points(b)) for n, b in made.items()}
        ).strip()
    )
    svg = ElementTree.fromstring((folder / "curves.svg").read_text(encoding="utf-8"))
    drawn = [e for e in svg.iter() if e.tag.endswith("polyline")]
    assert len(drawn) == 3 * 3 and (folder / "curves.json").is_file()


def test_a_curve_may_begin_with_the_point_of_another_seed(base: Base, tmp_path: Path) -> None:
    """The untrained model is the same for all seeds, so its bits are measured once; other sources beside the first set."""
    texts = replace(TEXTS, other_zh={"zh_one": CHINESE[-4:-2], "zh_two": CHINESE[-2:]})
    tokens = DocumentTokenizer.open(base.tokenizer(40, TEXTS))

    def curve(folder: str, untrained: Point | None) -> list[Point]:
        marks = [(0, 0.0), (2, 20.0)]
        start = lambda: base.start(Variant(40), TEXTS, 1e-3)  # noqa: E731
        return train(tmp_path / folder, start, tokens, 600, texts.zh, texts, marks, untrained)

    measured = curve("measured", None)
    assert set(measured[1].other) == {"zh_one", "zh_two"} and measured[1].other != measured[0].other
    assert measured[0].other_bits_per_character == pytest.approx(sum(measured[0].other.values()) / 2)
    again = curve("again", measured[0])
    assert [replace(p, process_seconds=0) for p in again] == [replace(p, process_seconds=0) for p in measured]
    assert again == read_points(tmp_path / "again")


def test_seconds_of_another_machine(tmp_path: Path) -> None:
    """Steps and row initializations are in the seconds of the machine of which seconds.json has the old vocabulary's."""
    from extending.curve import _write

    folder = tmp_path / "smollm2"
    name = "8000-shared-input-faster-untied"
    for curve in (name, f"{name}-seed1"):
        (folder / "curves" / curve).mkdir(parents=True)
        _write(folder / "curves" / curve, _points({10: 8.0, 20: 7.0}))
    (folder / "grown-8000-shared-untied").mkdir()
    (folder / "grown-8000-shared-untied" / "seconds.json").write_text("50", encoding="utf-8")
    seconds = {"0-all": 8.0, "8000-input-faster-untied": 7.0, "unit": 2.0}
    (folder / "seconds.json").write_text(to_json(seconds), encoding="utf-8")
    for curve in (name, f"{name}-seed1"):
        points = experiment.timed(folder, folder / "curves" / curve)
        assert [p.seconds for p in points] == [2 * 50 + 10 * 7, 2 * 50 + 20 * 7]


def test_marks() -> None:
    assert experiment.marks(240) == [15, 30, 60, 120, 240]
    assert experiment.marks(3600)[-4:] == [1800, 2400, 3000, 3600]
