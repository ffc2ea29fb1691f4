"""The search of the built docs in a real browser: Chinese and English words find their pages."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the built docs."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_two_characters_find_their_page(site: str) -> None:
    from playwright.sync_api import TimeoutError, sync_playwright

    wanted = {
        ("zh/", "竞价"): "zh/how-to/spot-machines/",
        ("zh/", "粤语"): "zh/how-to/traditional-cantonese/",
        ("zh/", "裁剪"): "zh/how-to/prune/",
        ("zh/", "评审"): "zh/judge/",
        ("", "notebook"): "notebooks/",
        ("", "Cantonese"): "how-to/traditional-cantonese/",
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        for (place, word), target in wanted.items():
            page.goto(f"{site}/{place}")
            # The page asks its index whenever a key is let go, which a fill does not do. What is typed before its script listens is
            # lost, and results come in parts: so the key is pressed again.
            found, deadline = list[str](), time.monotonic() + 120
            page.locator(".md-search__input").click()
            page.locator(".md-search__input").fill(word)
            while not any(link.startswith(target) for link in found[:5]):
                assert time.monotonic() < deadline, (word, found)
                page.locator(".md-search__input").press("End")
                with suppress(TimeoutError):
                    page.wait_for_selector(".md-search-result__link", timeout=5_000)
                page.wait_for_timeout(200)
                links = page.eval_on_selector_all(
                    ".md-search-result__link", "all => all.map(one => one.href)"
                )
                found = [link.removeprefix(f"{site}/").partition("?")[0] for link in links]
        browser.close()


def test_the_index_has_the_words_of_the_glossary(site: str) -> None:
    """Each Chinese term of the glossary is in the index in one piece or in pieces that a reader's input is cut into, too."""
    import json
    import re
    from urllib.request import urlopen

    import jieba

    with urlopen(f"{site}/search/search_index.json") as answer:
        index = json.load(answer)
    assert {"en", "zh"} <= set(index["config"]["lang"])
    separator = re.compile(index["config"]["separator"])
    words = {
        word
        for doc in index["docs"]
        if doc["location"].startswith("zh/")
        for word in separator.split(re.sub("<[^>]+>", " ", doc["title"] + " " + doc["text"]))
    }
    rows = (ROOT / "docs" / "glossary.zh.md").read_text(encoding="utf-8").splitlines()
    terms = [row.split("|")[1].strip() for row in rows if re.match(r"\| [\u4e00-\u9fff]+ \|", row)]
    missing = [term for term in terms if not all(part in words for part in jieba.cut(term))]
    assert len(terms) > 40 and not missing, missing
