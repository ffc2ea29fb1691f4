"""Every page that a command writes, when the texts, labels and names that it shows mean harm: they are shown, and do nothing."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.model_toys import CHINESE, base_vocabulary, larger_vocabulary, line, write_tokenizer
from tests.serving import Served, served
from tests.test_gen_zh import gen_zh
from tests.test_gen_zh import imported as generate_imported
from tests.test_judge_command import answers, judge
from tests.test_judge_command import imported as judge_imported
from zhllama.pages.render import static
from zhllama.resources import shipped

__all__ = ["generate_imported", "judge_imported", "served"]
NAME = "<img src=x onerror=alert(1)>"  # as far as a file can be called
LABEL = "</script><script>alert(1)</script>"  # no =, which ends a label
EVIL = (
    f"</script></style><script>alert(1)</script>{NAME}\" onload='alert(1)' <!-- ${{alert(1)}} {{{{ 7 * 7 }}}}"
)


class Page(HTMLParser):
    """What a browser would find: the tags, and the attributes that run or fetch something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.harm: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.harm += [f"{name}={value}" for name, value in attrs if name.startswith("on") or name == "src"]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"]:
            self.scripts.append(data)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    for name, vocabulary in (
        ("base", base_vocabulary()),
        ("bigger", larger_vocabulary()),
        (NAME, base_vocabulary()),
    ):
        write_tokenizer(vocabulary, folder / name)
    story = shipped("corpora", "sample", "zh_story.txt").read_text(encoding="utf-8")
    said = "".join(f"{CHINESE}{n}{EVIL}{CHINESE}\n\n" for n in range(40))
    (folder / f"{NAME}.txt").write_text(said + story * 3, encoding="utf-8")
    return folder


def report(world: Path, run: Path, served: Served) -> None:
    told = line(
        world,
        "report",
        "base",
        f"{LABEL}=bigger",
        "--text",
        f"{LABEL}={NAME}.txt",
        "--sentence",
        EVIL,
        "--out",
        run,
    )
    assert told.code == 0, told.err


def advise(world: Path, run: Path, served: Served) -> None:
    words = ("--most", "1000", "--prior", "0", "--hidden", "64", "--layers", "2", "--train-tokens", "1e6")
    told = line(world, "advise", "--base", NAME, "--text", f"{NAME}.txt", *words, "--out", run)
    assert told.code == 0, told.err


def corpus(world: Path, run: Path, served: Served) -> None:
    told = line(world, "corpus", "clean", f"{NAME}.txt", "--out", run, "--workers", "1")
    assert told.code == 0, told.err


def training(world: Path, run: Path, served: Served) -> None:
    from zhllama.pages.training import training_page

    run.mkdir()
    figures: dict[str, object] = dict.fromkeys(
        ("trained", "parameters", "trained_percent", "steps", "tokens"), 1
    )
    figures |= {f"{EVIL}_bits_per_byte": {"before": 2.0, "after": 1.0}}
    lines = [{"step": n, "loss": 1.5, f"{EVIL}_bits_per_byte": 1.5} for n in range(3)]
    (run / "report.html").write_text(training_page(NAME, figures, lines), encoding="utf-8")


def serving(world: Path, run: Path, served: Served) -> None:
    words = ("--serving", "--shape", "smollm2-135m", "--text", f"{NAME}.txt", "--out", run)
    told = line(world, "eval", "base", NAME, *words)
    assert told.code == 0, told.err


def generate(world: Path, run: Path, served: Served) -> None:
    url = served(text=f"1. 指令：写一段说明{EVIL}\n1. 输出：这是一个关于网页安全的例子，请勿执行它。{EVIL}")
    code, _, said = gen_zh(url, run, "--n", 1, "--without", "too little Chinese")
    assert code == 0, said


def judging(world: Path, run: Path, served: Served) -> None:
    for name, text in ((f"{NAME}a", EVIL), (f"{NAME}b", "无害")):
        row = {"id": EVIL, "instruction": EVIL, "category": EVIL, "answer": text, "reference": EVIL}
        (run.parent / f"{name}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    url = served(text=f"{EVIL}\n结论：[[A]]")
    code, _, said = judge(url, run, *answers(*(run.parent / f"{NAME}{n}.jsonl" for n in "ab")))
    assert code == 0, said


SCRIPTED = (
    training,
    generate,
    judging,
    corpus,
    advise,
    serving,
)  # pages of the base template, whose only script is the one of the language and the theme


@pytest.mark.parametrize("made", [report, advise, corpus, training, generate, judging, serving])
def test_hostile_texts_are_shown_and_do_nothing(
    made: object, world: Path, tmp_path: Path, served: Served
) -> None:
    run = tmp_path / NAME
    assert callable(made)
    made(world, run, served)
    pages = list(run.rglob("*.html"))
    assert pages
    for path in pages:
        html = path.read_text(encoding="utf-8")
        page = Page(html)
        assert "alert(1)" in html, "nothing of it is shown, and nothing was tried"
        assert page.harm == [] and "img" not in page.tags
        assert page.tags.count("script") == (
            2 if made is report else int(made in SCRIPTED)
        )  # its data, and what draws it
        assert made not in SCRIPTED or page.scripts[0] == static("switch.js")
        assert not [s for s in page.scripts if s.lstrip().startswith("alert")]
        assert "7 * 7" in html or made in (advise, serving), "a template read it"
