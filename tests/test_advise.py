"""Advice: the curve is what cutting with fewer pieces gives, costs are counted, and the word follows from them."""

import json
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

from tests.model_toys import line, write_model
from zhllama.cli import main
from zhllama.commands.advise import draw
from zhllama.efficiency.advise import (
    Advice,
    AdviceStep,
    AdvisedModel,
    MeasuredText,
    advise,
    recommended,
    savings,
    seen_shares,
)
from zhllama.efficiency.bpe_extension import Extension, extend, split_validation
from zhllama.efficiency.break_even import LAW, BreakEven, break_even
from zhllama.errors import InputError
from zhllama.io.text import read_lines
from zhllama.pages.advice import advice_page
from zhllama.resources import shipped
from zhllama.vocab.byte_level_recipes import continued, count_runs
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

from .test_byte_level_vocabulary import trained

Zhllama = Callable[..., "subprocess.CompletedProcess[str]"]
SAMPLE = shipped("corpora", "sample")
TEXTS = {f.stem: list(read_lines([f])) for f in sorted(SAMPLE.glob("zh_*.txt"))}
MODEL = AdvisedModel(hidden=64, layers=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ByteLevelVocabulary:
    path = tmp_path_factory.mktemp("base") / "tokenizer.json"
    trained("deepseek").save(str(path))
    return ByteLevelVocabulary.read(path)


@pytest.fixture(scope="module")
def extension(base: ByteLevelVocabulary) -> Extension:
    train, aside = split_validation(TEXTS, seed=0)
    return extend(base, train, aside, 1500, prior=0.0)


def test_one_cut_holds_those_with_fewer_pieces(base: ByteLevelVocabulary, extension: Extension) -> None:
    train, aside = split_validation(TEXTS, seed=0)
    merge = continued(base, count_runs(train), len(extension.parts))
    pieces = merge.added
    lines = [line for lines in aside.values() for line in lines]
    saved = sum(savings(m.counts, extension.parts, extension.first) for m in extension.domains.values())
    held = sum(m.counts.sum() for m in extension.domains.values())
    for added in (0, 1, 137, 800, len(pieces)):
        model = base.extended(pieces[:added])
        assert sum(map(len, model.encode_by_merges(lines))) == held + saved[added:].sum()


def test_training_lines_are_not_measured() -> None:
    train, aside = split_validation({**TEXTS, "en": ["no Chinese"]}, seed=1)
    assert "en" not in aside and all(lines for lines in aside.values())
    assert len(train) + sum(map(len, aside.values())) == sum(
        bool(re.search("[\u4e00-\u9fff\u3000-\u303f\uff00-\uff65]", line))
        for lines in TEXTS.values()
        for line in lines
    )
    assert (
        split_validation(TEXTS, seed=1)[0]
        == split_validation(TEXTS, seed=1)[0]
        != split_validation(TEXTS, seed=2)[0]
    )
    with pytest.raises(InputError, match="contains too few lines with Chinese"):
        split_validation({"one": ["中文"]}, seed=0)


def test_a_small_base_is_told_to_extend(base: ByteLevelVocabulary, extension: Extension) -> None:
    advice = advise(extension.first, extension.parts, extension.domains, extension.training, MODEL, 1e12)
    assert [s.added for s in advice.steps] == [0, 1000, len(extension.parts)]
    assert advice.verdict == "yes" and advice.sentence.startswith("Extending pays in tokens, at once: ")
    assert advice.caution.startswith("In quality it pays only after training")
    first, last = advice.steps[0], advice.steps[-1]
    assert first.saved == 0 and first.compute == 1 and last.next_saves == 0
    assert first.characters_per_token < last.characters_per_token and set(first.domains) == set(
        extension.domains
    )
    assert last.parameters == 2 * 64 * last.added and last.memory_mb == pytest.approx(
        last.parameters * 2 / 1e6
    )
    few = advise(extension.first, extension.parts, extension.domains, extension.training, MODEL, 1e3)
    assert few.recommended.added == 0 and few.verdict == "no"


def test_a_base_that_cuts_chinese_well_is_told_no() -> None:
    # 4,000 pieces that join two tokens each, all of them rare beside the base's own.
    parts = [(i, i + 1) for i in range(4000)]
    counts = np.concatenate([np.full(5000, 100.0), np.full(4000, 1.0)])
    advice = advise(5000, parts, {"a": MeasuredText(800_000, counts)}, counts, AdvisedModel(), 1e12)
    assert (
        advice.verdict == "no" and "does not pay" in advice.sentence and advice.repaid == advice.caution == ""
    )


def test_shares_of_pieces_that_are_seen() -> None:
    # 2 = 0+1 stands 30 times, 3 = 2+0 once; without 3 its parts come back.
    shares = seen_shares(np.array([60.0, 9.0, 30.0, 1.0]), [(0, 1), (2, 0)], 2, 100 * 100)
    assert shares == {0: 1.0, 2: 1.0}
    assert seen_shares(np.array([60.0, 9.0, 30.0, 1.0]), [(0, 1), (2, 0)], 2, 50 * 100)[2] == 0.5


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0.2, 1.0, 1.0), (0.01, 0.9, 1.0), (0.004, 0.8, 1.0), (0.0, 0.7, 1.0)], 2000),  # saves too little
        ([(0.2, 1.0, 1.0), (0.2, 0.9, 1.0), (0.2, 0.8, 0.8)], 1000),  # not seen enough
        ([(0.2, 1.0, 1.0), (0.2, 0.9, 1.0), (0.2, 0.95, 1.0)], 1000),  # the head costs more than is saved
        ([(0.001, 1.0, 1.0), (0.0, 0.9, 1.0)], 0),
    ],
)
def test_where_to_stop(steps: list[tuple[float, float, float]], expected: int) -> None:
    made = [
        AdviceStep(n * 1000, 1.0, {}, 0.0, saves, 0, 0.0, 0.0, compute, seen)
        for n, (saves, compute, seen) in enumerate(steps)
    ]
    assert recommended(made).added == expected


def test_a_base_that_reads_better_takes_more_text() -> None:
    (low, many), (middle, some), *_, (high, few) = LAW
    assert all(break_even(bits) == found for bits, found in LAW)
    assert break_even(high) == break_even(high + 3) == few
    between = break_even((low + middle) / 2)
    assert many.about is not None and some.about is not None and between.about is not None
    assert between.about == pytest.approx((many.about * some.about) ** 0.5)
    assert between.low == pytest.approx((many.low * some.low) ** 0.5)
    assert between.low < between.about and (between.high is None) == (many.high is None)
    # reads better than all bases measured: no figure, and at least what the nearest needs
    assert break_even(low - 0.1) == BreakEven(None, many.low, None)


def test_a_range_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    law = ((6.0, BreakEven(4e6, 1e6, None)), (8.0, BreakEven(4e4, 1e4, 9e4)))
    monkeypatch.setattr("zhllama.efficiency.break_even.LAW", law)
    assert break_even(7.0) == BreakEven(pytest.approx(4e5), pytest.approx(1e5), None)
    assert break_even(8.0).high == 9e4


@pytest.mark.parametrize(
    ("bits", "tokens", "verdict", "says"),
    [
        (8.0, 1e9, "yes", "about 14,000 characters of training text (1,000 to 29,000)"),
        (5.0, 1e9, "yes", "as good as before after more than 3,300,000 characters of training text, how many more is not known"),
        (5.0, 1e6, "no", "after more than 3,300,000 characters"),
    ],
)  # fmt: skip
def test_what_is_said_of_quality(
    extension: Extension, bits: float, tokens: float, verdict: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = ((6.14, BreakEven(7.5e6, 3.3e6, 4.1e7)), (7.90, BreakEven(1.6e4, 1.0e3, 3.4e4)), (10.2, BreakEven(1.0e3, 1.0e3, 1.0e3)))  # fmt: skip
    monkeypatch.setattr("zhllama.efficiency.break_even.LAW", law)
    made = advise(extension.first, extension.parts, extension.domains, extension.training, MODEL, tokens, bits)  # fmt: skip
    assert says in made.caution and (made.verdict == "no") == (verdict == "no")
    assert made.break_even == break_even(bits) and made.to_dict()["break_even"]["low"] == break_even(bits).low
    assert re.findall(r"[\d,]{5,}", says)[0] in advice_page(made, "b")


def test_costs_of_a_model() -> None:
    seven = AdvisedModel()
    assert seven.body == pytest.approx(6.44e9, rel=0.001)
    assert seven.head_share(32_000) == pytest.approx(0.02, abs=0.001)


def test_sentencepiece(embedded: SentencePieceVocabulary) -> None:
    train, aside = split_validation(TEXTS, seed=0)
    found = extend(embedded, train, aside, 1200, prior=0.1)
    lengths = [len(parts) for parts in found.parts]
    assert set(lengths) <= {2, 3, 4} and 3 in lengths  # merges, and characters that were bytes
    assert all(max(parts) < found.first + i for i, parts in enumerate(found.parts))
    lines = [line for lines in aside.values() for line in lines]
    saved = sum(savings(m.counts, found.parts, found.first).sum() for m in found.domains.values())
    held = sum(m.counts.sum() for m in found.domains.values())
    assert held + saved == sum(map(len, embedded.processor.encode(lines)))


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_stands_alone_and_escapes(extension: Extension) -> None:
    label = '<script>alert("x")</script>'
    domains = {label: next(iter(extension.domains.values())), "二": next(iter(extension.domains.values()))}
    advice = advise(extension.first, extension.parts, domains, extension.training, MODEL, 1e9)
    html = advice_page(advice, "<b>base</b>")
    read = _Page()
    read.feed(html)
    fetched = [source for source in read.sources if not source.startswith(("#", "data:"))]
    assert read.open == [] and fetched == [] and "http" not in html.replace("http-equiv", "")
    assert html.count("<script") == 1 and "<b>" not in html and "&lt;script&gt;" in html
    assert html.count("<polyline") == 3 and "prefers-color-scheme:dark" in html


def test_command_line(zhllama: Zhllama, base: ByteLevelVocabulary, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(base.content, encoding="utf-8")
    line = (
        "advise",
        "--base",
        "tokenizer.json",
        "--text",
        SAMPLE,
        "--most",
        1000,
        "--hidden",
        64,
        "--layers",
        2,
    )
    shown = zhllama(*line, "--out", "o")
    assert shown.returncode == 0, shown.stderr
    assert (
        "Extending pays in tokens, at once: 1,000 more pieces" in shown.stdout
        and "Written to o" in shown.stdout
    )
    heading, first = (row for row in shown.stdout.splitlines() if row.lstrip().startswith(("added ", "0 ")))
    cells = {
        name: first[: heading.index(name) + len(name)].split()[-1] for name in ("params", "head", "compute")
    }
    head_share = AdvisedModel(64, 2, False).head_share(
        ByteLevelVocabulary.read(tmp_path / "tokenizer.json").size
    )
    assert cells == {"params": "M", "head": f"{head_share:.1%}", "compute": "1.00"}
    advice = json.loads((tmp_path / "o" / "advice.json").read_text(encoding="utf-8"))
    assert advice["verdict"] == "yes" and (tmp_path / "o" / "advice.html").is_file()
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["figures"] == {"recommended": 1000, "verdict": "yes"}
    told = zhllama(*line, "--prior", 0, "--bits", 7.9)
    assert (
        "as good as before after about 16,000 characters" in " ".join(told.stdout.split())
        and "Extending pays" in told.stdout
    )
    beyond = zhllama(*line, "--prior", 0, "--bits", 5, "--train-tokens", 900_000)
    assert (
        "fewer than all that were measured" in " ".join(beyond.stdout.split())
        and "is too short for the larger" in beyond.stdout
    )


def test_a_model_gives_its_vocabulary_its_shape_and_its_bits(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    text = SAMPLE / "zh_*.txt"
    few = line(tmp_path, "advise", "--text", text, "--model", base, "--bits", 7, "--most", 1000)
    assert few.code == 1 and "--most: 1,600 leaves 1,000 pieces" in few.err and "Raise it, or give" in few.err
    asked = ("advise", "--text", text, "--most", 2500, "--prior", 0, "--json")
    told = line(tmp_path, *asked, "--model", base, "--out", "o")
    assert told.code == 0, told.err
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    by_hand = line(tmp_path, *asked, "--base", base, "--hidden", config["hidden_size"], "--layers",
                   config["num_hidden_layers"], *(["--tied"] if config["tie_word_embeddings"] else []))  # fmt: skip
    advice, other = json.loads(told.out), json.loads(by_hand.out)
    assert advice["steps"] == other["steps"]
    assert "bits per character" in advice["caution"] and "bits per character" not in other["caution"]
    given = line(tmp_path, *asked, "--model", base, "--bits", 7.9)
    assert "about 16,000 characters of training text (1,000 to 34,000)" in json.loads(given.out)["caution"]
    wrong = line(tmp_path, *asked, "--model", base, "--base", base)
    assert wrong.code == 1 and "--base: is the model's own vocabulary where --model is given" in wrong.err


@pytest.mark.parametrize(("language", "last"), [("en", "seen 100×"), ("zh", "出现100次")])
def test_no_heading_is_cut_in_80_columns(
    language: str, last: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The widest figures: at 80 columns the Chinese headings lost their ends."""
    monkeypatch.setenv("ZHLLAMA_LANG", language)
    step = AdviceStep(
        added=128_000, characters_per_token=1.234, domains={}, saved=0.688, next_saves=0.4613, parameters=998_000_000,
        memory_mb=1.0, head_share=0.123, compute=0.32, seen=1.0,
    )  # fmt: skip
    model = AdvisedModel(4096, 32, False)
    draw(Advice(32000, model, 2e9, (step, step), step, "yes", "", "", None), "a/long/path/" * 9)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "a/long/path/" * 9 and told[1].rstrip().endswith(last)
    assert "…" not in "".join(told) and max(map(cell_len, told[1:])) <= 80 and len(told) == 5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("advise", "--text: is missing, and advice needs text. Give --text FILE"),
        ("advise --text nope.txt", "nope.txt: no such file. Check the path."),
        (
            "advise --text en.txt",
            "--text: contains too few lines with Chinese to measure any. Give more text.",
        ),
        ("advise --text en.txt --base en.txt", "en.txt: is not a tokenizer of a known format."),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    (tmp_path / "en.txt").write_text("English only\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(line.split())
    err = capsys.readouterr().err
    assert left.value.code == 1 and err.startswith(f"zhllama: {told}") and err.count("\n") == 1
