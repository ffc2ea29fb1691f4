"""gen-zh's report in a real browser: the sunburst is drawn, nothing is fetched, and what a model wrote stays text."""

from pathlib import Path
from typing import Any

import pytest

from tests.test_report_page import CONTRASTS, HOSTILE, browser
from zhllama.generation.task_pool import AcceptedTask, TaskOrigin
from zhllama.generation.tasks import Task
from zhllama.pages.generation import generation_page
from zhllama.pages.render import static

__all__ = ["browser"]
VERBS, NOUNS = ("写", "解释", "翻译", "比较", "总结"), ("故事", "诗歌", "概念", "句子", "文章", "观点")


def kept(number: int, instruction: str, given: str = "", output: str = "好的。") -> AcceptedTask:
    return AcceptedTask(Task(instruction, given, output), TaskOrigin(0, number, 0, HOSTILE))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose texts, model, reasons and title all mean harm."""
    made = [kept(n, f"{v}一篇关于春天的{o}") for n, (v, o) in enumerate((v, o) for v in VERBS for o in NOUNS)]
    made[:10] = [kept(100 + n, f"写一个{HOSTILE}故事", HOSTILE, HOSTILE * (n + 1)) for n in range(10)]
    figures = {
        "wanted": 40, "kept": len(made), "rejected": 3, "candidates": 33, "reasons": {"format": 2, HOSTILE: 1},
        "flags": {"was Traditional": 1}, "replies": 4, "prompt_tokens": 5, "completion_tokens": 6, "cost": 0.5,
        "models": {HOSTILE: 4},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(generation_page(HOSTILE, figures, made, [0.1, 0.65, 1.0], seed=0), encoding="utf-8")
    return path


def opened(browser: Any, file: Path, width: int = 1280, scheme: str = "light") -> tuple[Any, list[str]]:
    """The page, and all that it complains of or asks for."""
    view = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    said: list[str] = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda asked: said.append(asked.url) if asked.url != file.as_uri() else None)
    view.goto(file.as_uri(), wait_until="networkidle")
    return view, said


def test_the_sunburst_is_drawn(browser: Any, file: Path) -> None:
    view, said = opened(browser, file)
    box = view.locator("svg.sunburst").bounding_box()
    assert min(box["width"], box["height"]) > 250
    boxes = [part.bounding_box() for part in view.locator("svg.sunburst path").all()]
    assert len(boxes) > len(VERBS) and all(part["width"] > 2 and part["height"] > 2 for part in boxes)
    labels = set(view.locator("svg.sunburst text").all_text_contents())
    assert {"翻译", "诗歌"} <= labels
    assert min(view.evaluate(SLICES)) >= 4.5
    # The inner ring is whole: all round, a point in its middle lies on a slice.
    on_slices = view.evaluate("""() => {
      const svg = document.querySelector('svg.sunburst');
      svg.scrollIntoView({block: 'center'});
      const box = svg.getBoundingClientRect(), scale = box.width / 560;
      let hits = 0;
      for (let turn = 0; turn < 360; turn++) {
        const angle = (turn + .5) * Math.PI / 180;
        const x = box.x + box.width / 2 + 118 * scale * Math.sin(angle), y = box.y + box.height / 2 - 118 * scale * Math.cos(angle);
        hits += document.elementFromPoint(x, y)?.closest('svg.sunburst g') ? 1 : 0;
      }
      return hits;
    }""")
    assert on_slices == 360
    assert said == []


def test_model_output_is_escaped(browser: Any, file: Path) -> None:
    view, said = opened(browser, file)
    assert view.evaluate("window.hit") is None
    assert view.locator("img").count() == 0
    assert view.locator("script").all_text_contents() == [static("switch.js")]
    shown = HOSTILE.split("\u2028")[0]
    assert shown in view.locator("h1").inner_text() and shown in view.title()
    examples = view.locator("article").all_inner_texts()
    assert len(examples) == 20 and any(shown in text for text in examples)
    assert shown in view.locator("dl").inner_text()
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_is_readable(browser: Any, file: Path, width: int, scheme: str) -> None:
    view, said = opened(browser, file, width, scheme)
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    contrasts = {k: v for k, v in view.evaluate(CONTRASTS).items() if not k.startswith(("text.", "title."))}
    assert len(contrasts) > 50 and min(contrasts.values()) >= 4.5, min(
        contrasts.items(), key=lambda item: item[1]
    )
    assert said == []


# WCAG 2's contrast of each label with its slice.
SLICES = """() => {
  const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  return [...document.querySelectorAll('svg.sunburst g:has(text)')].map(slice => {
    const [a, b] = ['path', 'text'].map(name => light(getComputedStyle(slice.querySelector(name)).fill)).sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  });
}"""
