"""The report's page in a real browser: no errors, nothing fetched, cuts equal to SentencePiece's, hostile text harmless."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.report_toys import base, merged
from zhllama.efficiency.measure import MeasuredVocabulary
from zhllama.efficiency.report import LabelledText, Report, report
from zhllama.pages.report import page_data, page_of, report_page
from zhllama.resources import shipped
from zhllama.vocab.any_tokenizer import JsonTokenizer, SentencePieceTokenizer
from zhllama.vocab.fuzz import fuzzed
from zhllama.vocab.piece_filter import read_exclude_list

HOSTILE = "</script><script>window.hit=1</script><img src=x onerror=window.hit=1><!-- ${hit} \u2028"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

CUTS = """text => {
  const box = document.getElementById('typed');
  box.value = text;
  box.dispatchEvent(new Event('input'));
  return [...document.querySelectorAll('#cuts .cut')].map(cut =>
    cut.querySelector('.tokens') && [...cut.querySelectorAll('.t')].map(t => Number(t.dataset.id)));
}"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The base, both recipes, a byte-level tokenizer, and a text and labels that mean harm."""
    from tests.test_load import tiny_json

    folder = tmp_path_factory.mktemp("page")
    (folder / "tokenizer.json").write_text(tiny_json(), encoding="utf-8")
    (folder / "a.txt").write_text(f"好人一生平安，{HOSTILE}。\n學習軟體。\nPeople.\n", encoding="utf-8")
    vocabularies = [
        MeasuredVocabulary("LLaMA", "", SentencePieceTokenizer(base())),
        MeasuredVocabulary("published", "", SentencePieceTokenizer(merged("chinese-llama"))),
        MeasuredVocabulary("safe", "", SentencePieceTokenizer(merged("safe"))),
        MeasuredVocabulary(HOSTILE, HOSTILE, JsonTokenizer(folder / "tokenizer.json")),
    ]
    sample = sorted(shipped("corpora", "sample").glob("zh_*.txt"))
    return report(
        vocabularies,
        [LabelledText(HOSTILE, [folder / "a.txt"]), LabelledText("sample", sample)],
        sentences=[HOSTILE],
    )


@pytest.fixture(scope="module")
def file(made: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("html") / "report.html"
    path.write_text(report_page(made), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        with_flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = started.chromium.launch(executable_path=BROWSER, args=with_flags)
        yield opened
        opened.close()


class Opened:
    """A page that notes every complaint and every request."""

    def __init__(
        self, browser: Any, file: Path, width: int = 1280, scheme: str = "light", locale: str = "zh-CN"
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, locale=locale
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.said.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("#cuts .cut")

    def complaints(self) -> list[str]:
        """All that was said and asked for, but the page itself and its empty icon."""
        return [said for said in self.said if not said.startswith(("file:///", "data:"))]


def test_the_page_carries_its_data(made: Report) -> None:
    html = report_page(made)
    data = html.split('id="data">')[1].split("</script>")[0]
    assert json.loads(data) == json.loads(json.dumps(page_data(made)))
    assert HOSTILE not in html and "http://" not in html and "https://" not in html
    assert html.count("<script") == html.count("</script>") == 2
    models = page_data(made)["models"]
    sizes = [len(model.pieces) for model in (base(), merged("chinese-llama"), merged("safe"))]
    # The safe list begins with the published one, and so the page holds only what comes after it.
    assert [model and model["on"] for model in models] == [None, 0, 1, None]
    held = [len(model["pieces"]) for model in models if model]
    assert held == [sizes[0], sizes[1] - sizes[0], sizes[2] - sizes[1]]


def test_cuts_are_sentencepieces(browser: Any, file: Path, made: Report) -> None:
    opened = Opened(browser, file)
    models = [base(), merged("chinese-llama"), merged("safe")]
    texts = [
        line[:300]
        for path in sorted(shipped("corpora", "sample").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()[:12]
        if line
    ]
    texts += [text for model in models[1:] for text in fuzzed(model.fuzz_pieces(), 150, 1)]
    texts += [
        "互相互",
        "相互相互相",
        "  两个  空格 ",
        "▁x",
        "中\n文\t字",
        "",
        "\U00020bb7野家",
        "a\u0300👩\u200d👩\u200d👧",
        "\ud83d",
    ]
    texts = [text for text in texts if "\r" not in text]  # a text box turns these into \n
    assert len(texts) > 450
    found = opened.page.evaluate(f"texts => texts.map({CUTS})", texts)
    for text, cuts in zip(texts, found, strict=True):
        plain = text.replace("\ud83d", "\ufffd")
        assert cuts[:3] == [model.processor.encode(plain) for model in models], text
        assert cuts[3] is None or text in {s.text for s in made.sentences}
    assert opened.complaints() == []


def test_chosen_sentences_show_what_was_precomputed(browser: Any, file: Path, made: Report) -> None:
    opened = Opened(browser, file)
    for place in (0, 1, len(made.sentences) - 1):
        opened.page.select_option("#sentence", str(place))
        shown = opened.page.evaluate(CUTS, made.sentences[place].text)
        assert shown == [[id for id, _ in cut] for cut in made.sentences[place].cuts]
        assert opened.page.input_value("#typed") == made.sentences[place].text
    assert opened.page.locator("#cuts .byte").count() > 0
    assert opened.complaints() == []


def test_hostile_text_stays_text(browser: Any, file: Path) -> None:
    opened = Opened(browser, file)
    opened.page.fill("#typed", HOSTILE)
    assert opened.page.evaluate("window.hit") is None
    assert opened.page.locator("main img, main script").count() == 0
    assert HOSTILE.split("\u2028")[0].strip() in opened.page.locator("#overview").inner_text()
    assert opened.complaints() == []


def test_added_pieces_are_searched_and_sorted(browser: Any, file: Path) -> None:
    opened = Opened(browser, file)
    rows = opened.page.locator("#piece-rows tr")
    assert rows.count() == 50
    opened.page.fill("#piece-search", "互相")
    assert rows.all_inner_texts()[0].split()[0] == "互相"
    opened.page.fill("#piece-search", "")
    opened.page.click("[data-sort=count]")
    counts = [int(text.split("\t")[-1].replace(",", "")) for text in rows.all_inner_texts()]
    assert counts == sorted(counts, reverse=True) and counts[0] > 0
    opened.page.fill("#piece-search", "没有这样的词表项")
    assert opened.page.locator("#pieces [role=status]").inner_text() == "0个"
    assert opened.complaints() == []


def test_pieces_are_marked_and_their_list_is_copied_and_saved(
    browser: Any, file: Path, tmp_path: Path
) -> None:
    opened = Opened(browser, file)
    page = opened.page
    assert page.locator(".excluded").is_hidden()
    for piece in ("互相", "相互"):
        page.fill("#piece-search", piece)
        page.locator("#piece-rows input").first.check()
    assert page.input_value("#excluded").split() == ["互相", "相互"]
    page.fill("#piece-search", "")
    page.check("#piece-marked")
    assert page.locator("#piece-rows tr").count() == 2
    page.click("#copy-excluded")
    # not wait_for_function, which the page's content policy forbids to look a second time
    page.locator(".excluded [aria-live]", has_text="已复制").wait_for(state="attached")
    with page.expect_download() as download:
        page.click("#save-excluded")
    download.value.save_as(tmp_path / "exclude.txt")
    assert download.value.suggested_filename == "exclude.txt"
    assert read_exclude_list(tmp_path / "exclude.txt") == {"互相", "相互"}
    page.locator("#piece-rows input").first.uncheck()
    assert page.input_value("#excluded").split() == ["相互"]
    page.uncheck("#piece-marked")
    page.check("#piece-suspect")
    assert all(text.split("\t")[3] for text in page.locator("#piece-rows tr").all_inner_texts())
    assert opened.complaints() == []


def test_all_languages_by_keyboard(browser: Any, file: Path) -> None:
    opened = Opened(browser, file)
    assert opened.page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert opened.page.locator("h1").inner_text() == "分词效率报告"
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.className") == "skip"
    for _ in range(12):
        opened.page.keyboard.press("Tab")
        if opened.page.evaluate("document.activeElement.id") == "language":
            break
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("h1").inner_text() == "斷詞效率報告"
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("h1").inner_text() == "Tokenizer efficiency"
    assert opened.page.evaluate("[document.documentElement.lang, document.activeElement.id]") == [
        "en",
        "language",
    ]
    opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    opened.page.focus("#charts select")
    opened.page.select_option("#charts select", "byte_share")
    assert "%" in opened.page.locator("#charts .value").first.inner_text()
    assert opened.page.evaluate("document.activeElement.tagName") == "SELECT"
    assert Opened(browser, file, locale="en-US").page.locator("h1").inner_text() == "Tokenizer efficiency"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_is_readable(browser: Any, file: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, file, width, scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    contrasts = opened.page.evaluate(CONTRASTS)
    assert len(contrasts) > 100 and min(contrasts.values()) >= 4.5, min(
        contrasts.items(), key=lambda item: item[1]
    )
    assert opened.complaints() == []


# WCAG 2's contrast of every text with the opaque ground behind it.
CONTRASTS = """() => {
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = colour => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); return [...pen.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255]; };
  const found = {};
  for (const e of document.querySelectorAll('main *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (['OPTION', 'TEXTAREA'].includes(e.tagName)) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    found[`${e.tagName}.${e.className} ${e.textContent.slice(0, 20)} ${Object.keys(found).length}`] = (a + .05) / (b + .05);
  }
  return found;
}"""


def test_the_example_is_of_the_template_of_today() -> None:
    """All of docs/examples/report.html but its data."""
    page = (ROOT / "docs" / "examples" / "report.html").read_text(encoding="utf-8")
    opened = '<script type="application/json" id="data">'
    data = json.loads(page.split(opened)[1].split("</script>")[0])
    assert page_of(data) == page, "write docs/examples/report.html anew by page_of, with its own data"
