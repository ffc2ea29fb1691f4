"""All pages: one base, texts in every language, readable and within the screen in both themes."""

import re
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any, get_args

import pytest

from tests.conftest import ROOT
from tests.page_toys import pages
from tests.seed_checks import spaced
from tests.test_report_page import CONTRASTS, browser
from zhllama.efficiency.advise import Verdict
from zhllama.generation.filters import REASONS
from zhllama.generation.verbs_and_nouns import KINDS
from zhllama.pages.charts import Curve, line_chart, round_values, smoothed
from zhllama.pages.render import label, render, static, text
from zhllama.pages.texts import LANGUAGES, page_texts

__all__ = ["browser"]
VERDICTS = get_args(Verdict)
CLEANING = [
    (ROOT / "zhllama" / "corpus" / f"{name}.py").read_text(encoding="utf-8")
    for name in ("filters", "clean", "decode")
]
# What filters return, what datatrove's own are given, and why a file cannot be read.
CLEANING_REASONS = {
    reason
    for source in CLEANING
    for reason in re.findall(
        r'return "([A-Za-z ]+)" if|return "([A-Za-z ]+)"$|rejects\(rejected, "\w+", "([a-z ]+)"|Broken\("([a-z ]+)"| else "([A-Za-z ]+)"$',
        source, re.M,
    )
    for reason in reason
    if reason
}  # fmt: skip
MOJIBAKE = "锟斤拷"  # GBK's reading of replacement characters is Simplified in a Traditional text too
TEMPLATES = ROOT / "zhllama" / "pages" / "templates"
NAMES = sorted(
    path.stem for path in TEMPLATES.glob("*.html") if "{% extends" in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    written = {}
    for name, html in pages(folder).items():
        written[name] = folder / f"{name}.html"
        written[name].write_text(html, encoding="utf-8")
    return written


class Read(HTMLParser):
    """Tags that are open, scripts, and the languages of the texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.languages: list[str | None] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        if tag == "span" and ("class", "l") in attrs:
            self.languages.append(dict(attrs)["lang"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)


def test_every_page_has_a_toy(files: dict[str, Path]) -> None:
    assert sorted(files) == NAMES and len(NAMES) == 8


def test_no_other_html_in_the_package() -> None:
    """HTML, styles and colors are in templates and the style sheet, never in Python."""
    for path in (ROOT / "zhllama").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"<!doctype html>|<style|<section|<svg|<polyline", source), path
    for path in TEMPLATES.glob("*.html"):
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b(?!;)|rgb\(", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("name", NAMES)
def test_pages_share_base_style_and_script(files: dict[str, Path], name: str) -> None:
    html = files[name].read_text(encoding="utf-8")
    read = Read(html)
    assert read.open == []
    assert static("style.css") in html and html.count(static("dark.css")) == 2
    scripts = [script for script in read.scripts if not script.startswith("{")]
    assert len(scripts) == 1 and scripts[0].startswith(static("switch.js"))
    assert (scripts[0] == static("switch.js")) == (name not in ("report", "review"))
    assert "default-src 'none'" in html and "script-src 'sha256-" in html and not re.search("https?://", html)


@pytest.mark.parametrize("name", NAMES)
def test_texts_come_in_every_language(files: dict[str, Path], name: str) -> None:
    languages = Read(files[name].read_text(encoding="utf-8")).languages
    assert len(languages) > 10 and languages == [*LANGUAGES] * (len(languages) // len(LANGUAGES))


@pytest.mark.parametrize("name", NAMES)
def test_no_two_columns_have_one_head(files: dict[str, Path], name: str) -> None:
    """On a telephone a head stands above each cell, without the column beside it that would tell what it is of."""
    for table in re.findall(r"<thead>.*?</thead>", files[name].read_text(encoding="utf-8"), re.S):
        heads = re.findall(r"<th\b[^>]*>(.*?)</th>", table, re.S)
        assert len(set(heads)) == len(heads), heads


def test_the_catalogue_is_complete() -> None:
    used = "".join(
        path.read_text(encoding="utf-8")
        for path in TEMPLATES.parent.rglob("*")
        if path.suffix in (".html", ".js", ".py")
    )
    for key, texts in page_texts().items():
        assert tuple(sorted(texts)) == tuple(sorted(LANGUAGES)), key
        for words in texts.values():
            assert words.strip(), key
        filled = [
            {name.removesuffix("_yi") for _, name, _, _ in Formatter().parse(t) if name}
            for t in texts.values()
        ]
        assert all(names == filled[0] for names in filled), f"{key}: other placeholders in another language"
        name = key.partition(".")[2].removesuffix("_explained")
        group = name.rpartition(".")[0] or name  # e.g. of generation.reason.too short, which is in the data
        assert key in used or re.search(rf'["._`]{group}["._`]', used) or name in VERDICTS, (
            f"{key} is not used"
        )
    for reason in REASONS:
        assert f"generation.reason.{reason}" in page_texts()
    for reason in CLEANING_REASONS:
        assert f"cleaning.reason.{reason}" in page_texts(), reason
    for kind in (*KINDS, "other"):
        assert f"generation.kind.{kind}" in page_texts()


def test_chinese_terms() -> None:
    """The glossary's terms and no space beside Han; former terms do not come back."""
    former = "残字|词片|切得最整|落选|最近者|读不出|文种|续训|见到|处理器|未采用|系统提示(?!词)"
    for key, texts in page_texts().items():
        assert not re.search(former, texts["zh-Hans"]), key
        filled = re.sub(r"\{\w+\}", "0", texts["zh-Hans"])
        assert spaced(filled) == [], f"{key}: a space between Han and figures or Latin"
        assert re.search("[\u4e00-\u9fff]", texts["zh-Hans"]) or key.endswith(
            (".separator", ".colon", ".comma", "column.id")
        ), key
        assert not re.search("[\u4e00-\u9fff]", texts["en"].replace(MOJIBAKE, "")), key


def test_traditional_texts_are_edited() -> None:
    """No character and no word of the other script; terms as Taiwan and Hong Kong write them."""
    opencc = pytest.importorskip("opencc")
    to_traditional, to_simplified = opencc.OpenCC("s2t"), opencc.OpenCC("t2s")
    # Mainland terms, and what word-by-word conversion makes of 用户名单, 参数, 得分区间 and 显存.
    mainland = "默認|軟件|數據|信息|網絡|內存|質量|程序|視頻|用戶|字符|比特|字節|置信|推理|詞表|“|使用者名稱單|引數|分割槽|視訊記憶體"
    for key, texts in page_texts().items():
        traditional = texts["zh-Hant"].replace(MOJIBAKE, "")
        wrong = [c for c in traditional if to_traditional.convert(c) != c]
        assert wrong == [], key
        simplified = texts["zh-Hans"]
        assert [c for c in simplified if to_simplified.convert(c) != c] == [], key
        assert not re.search(mainland, traditional), key
        assert spaced(re.sub(r"\{\w+\}", "0", traditional)) == [], key


def test_values_are_escaped() -> None:
    assert "<b>" not in text("judging.rate", name="<b>") and "&lt;b&gt;" in text("judging.rate", name="<b>")
    assert label("generation.reason", "<b>") == "&lt;b&gt;"
    with pytest.raises(KeyError):
        text("training.no_such_text")


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (-3, -1), (1e-9, 2e-9), (5, 5), (0, 1e12), (0.1, 0.3), (-1e5, 1e-5)]
)
def test_axes_enclose_their_values(low: float, high: float) -> None:
    values = round_values(low, high)
    assert values[0] <= low and values[-1] >= high and 2 <= len(values) <= 8
    chart = line_chart([Curve("", [(0, low), (10, high)], 0)])
    labels = [tick.label for tick in chart.y_ticks]
    assert len(set(labels)) == len(labels) and all(len(label) < 12 for label in labels)
    assert all(
        0 <= y <= 1000 for path in chart.paths for _, y in (map(float, p.split(",")) for p in path.split())
    )


def test_a_chart_falls_where_its_values_fall_and_leaves_out_nan() -> None:
    points = [(0, 7.9), (1, float("nan")), (2, 5.2), (3, float("inf"))]
    chart = line_chart([Curve("", points, 0)])
    assert "nan" not in chart.paths[0] and "inf" not in chart.paths[0]
    ys = [float(point.split(",")[1]) for point in chart.paths[0].split()]
    assert len(ys) == 2 and ys[0] < ys[1], "the vertical axis of SVG points down"
    line = [(float(n), 2.0 * n + 1) for n in range(400)]
    assert [y for _, y in smoothed(line)] == pytest.approx([y for _, y in line]), "a line has no lag"
    assert smoothed([]) == []


def opened(browser: Any, file: Path, width: int, scheme: str, locale: str) -> tuple[Any, list[str]]:
    view = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, locale=locale
    ).new_page()
    said: list[str] = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.goto(file.as_uri())
    return view, said


SCREENS = (
    (390, "light", "zh-CN", "zh-Hans"), (390, "light", "zh-TW", "zh-Hant"), (390, "dark", "en-US", "en"),
    (1280, "dark", "en-US", "en"), (1280, "light", "zh-CN", "zh-Hans"),
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name != "review"]
)  # tests/test_review_page.py serves it
def test_pages_fit_the_screen(browser: Any, files: dict[str, Path], name: str) -> None:
    backgrounds = set()
    for width, scheme, locale, language in SCREENS:
        view, said = opened(browser, files[name], width, scheme, locale)
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        # Nothing scrolls sideways inside the page either.
        wide = "[...document.querySelectorAll('.scroller')].filter(e => !e.querySelector('td.text') && e.scrollWidth > e.clientWidth + 1).length"
        assert view.evaluate(wide) == 0
        small = "Math.min(...[...document.querySelectorAll('main *')].filter(e => e.getClientRects().length && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => parseFloat(getComputedStyle(e).fontSize) * (e.closest('svg') ? e.closest('svg').getBoundingClientRect().width / e.closest('svg').viewBox.baseVal.width : 1)))"
        assert view.evaluate(small) >= 11.9  # as it is shown, the labels of drawings too
        # No figure of a legend, and at 1280 no short head of a table, is cut in two.
        cut = "[...document.querySelectorAll(`.legend strong${innerWidth > 1000 ? ', .wide thead th' : ''}`)].filter(e => /^[^/]{1,6}$/.test(e.innerText) && (r => { r.selectNodeContents(e); return new Set([...r.getClientRects()].filter(b => b.width).map(b => Math.round(b.top))).size > 1; })(document.createRange())).map(e => e.innerText)"
        assert view.evaluate(cut) == []
        contrasts = {
            k: v for k, v in view.evaluate(CONTRASTS).items() if not k.startswith(("text.", "title."))
        }
        assert min(contrasts.values()) >= 4.5, min(contrasts.items(), key=lambda item: item[1])
        backgrounds.add(view.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert view.evaluate("document.documentElement.lang") == language
        assert said == []
        view.context.close()
    assert len(backgrounds) == 2


def test_the_visitor_chooses_language_and_theme(browser: Any, files: dict[str, Path]) -> None:
    view, said = opened(browser, files["training"], 1280, "light", "zh-CN")
    assert view.locator("#summary dt").first.inner_text() == "总步数"
    assert view.locator("#language").inner_text() == "繁體中文"
    view.click("#language")
    assert view.locator("#summary dt").nth(3).inner_text() == "可訓練參數"
    assert (
        view.locator("#language").inner_text() == "English" and view.locator("#theme").inner_text() == "深色"
    )
    view.click("#language")
    view.click("#theme")
    for _ in range(2):
        assert view.locator("#summary dt").first.inner_text() == "Steps"
        assert (
            view.locator("#language").inner_text() == "简体中文"
            and view.locator("#theme").inner_text() == "Light"
        )
        assert view.evaluate("document.documentElement.dataset.theme") == "dark"
        view.reload()
    assert said == []


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("zh-TW", "zh-Hant"), ("zh-HK", "zh-Hant"), ("zh-Hant-HK", "zh-Hant"), ("zh-MO", "zh-Hant"),
        ("zh-SG", "zh-Hans"), ("zh-Hans-HK", "zh-Hans"), ("zh", "zh-Hans"), ("fr-FR", "en"),
    ],
)  # fmt: skip
def test_other_browsers_get_the_nearest_language(
    browser: Any, files: dict[str, Path], locale: str, language: str
) -> None:
    view, _ = opened(browser, files["advice"], 390, "light", locale)
    assert view.evaluate("document.documentElement.lang") == language


def test_a_page_without_scripts_is_readable(browser: Any, files: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False, color_scheme="dark")
    view = context.new_page()
    view.goto(files["cleaning"].as_uri())
    assert "保留" in view.locator("#summary").inner_text() and not view.locator("#theme").is_visible()
    context.close()


def test_a_template_names_what_it_lacks() -> None:
    with pytest.raises(Exception, match="undefined"):
        render("training", title="x")
