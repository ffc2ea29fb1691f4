"""The review page in a real browser: decisions by keyboard, a reload, SIGKILL, an export; lists of any length; hostile rows."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.model_toys import line
from tests.review_toys import (
    HOSTILE,
    Reviewing,
    in_thread,
    opened_session,
    served_session,
    task,
    write_generated,
    write_rows,
)
from tests.serve_toys import port_of, raw, request
from tests.test_report_page import CONTRASTS, browser
from zhllama.review.decisions import JOURNAL
from zhllama.review.row_index import RowIndex
from zhllama.review.sources import find_sources

__all__ = ["browser"]


class Page:
    """The page in a browser; notes every complaint and every request to another host."""

    def __init__(self, browser: Any, url: str, width: int = 1280, height: int = 800, locale: str = "zh-CN", scheme: str = "light") -> None:  # fmt: skip
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, locale=locale, color_scheme=scheme
        )
        self.page, self.url, self.said = self.context.new_page(), url, list[str]()
        self.page.set_default_timeout(60_000)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((url.partition("#")[0], "data:"))
                else self.said.append(asked.url)
            ),
        )
        self.page.goto(url)
        self.page.wait_for_selector("#row .row-head")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def place(self) -> str:
        """The place in the file of the row that is shown."""
        return str(self.page.locator("#row .where").inner_text()).rpartition(":")[2]

    def at(self, row: int) -> None:
        """Wait until the row of this line is shown."""
        self.page.wait_for_function(
            "line => document.querySelector('#row .where')?.textContent.endsWith(`:${line}`)", arg=str(row)
        )

    def shows(self, selector: str, text: str) -> None:
        self.page.locator(selector).filter(has_text=text).first.wait_for()


def journal(folder: Path, reviewer: str = "甲") -> list[dict[str, Any]]:
    path = folder / reviewer / JOURNAL
    return [json.loads(row) for row in path.read_text(encoding="utf-8").split("\n") if row]


def test_thirty_decisions_a_reload_a_kill_and_an_export(browser: Any, tmp_path: Path) -> None:
    write_generated(tmp_path / "run", 36)
    started = Reviewing(tmp_path, "run", "--reviewer", "甲", "--port", 0)
    try:
        shown = Page(browser, started["page"])
        verdicts = ["drop" if n % 3 == 1 else "keep" for n in range(30)]
        for number, verdict in enumerate(verdicts):  # faster than the server answers: none is lost
            if number == 15:
                shown.at(16)
                shown.press("c")
                shown.page.keyboard.type("很好")
                shown.press("Enter")
            if number == 20:
                shown.at(21)
                shown.press("e")
                shown.page.locator("textarea").last.fill("这是改过的回答。")
                shown.press("Control+Enter")
                shown.shows("#row .verdict", "保留")
                shown.press("j")
                continue
            shown.press("a" if verdict == "keep" else "d")
        shown.at(31)
        told = journal(tmp_path / "run.review")
        latest = {one["row"]: one for one in told}
        assert [latest[n]["verdict"] for n in range(30)] == verdicts
        assert latest[15]["comment"] == "很好" and latest[20]["edit"] == {"output": "这是改过的回答。"}
        shown.press("k")
        shown.at(30)
        shown.press("u")  # the last is taken back
        shown.shows("#row .verdict", "未审")
        shown.page.reload()
        shown.at(30)
        assert shown.page.locator("#row .verdict").inner_text() == "未审"
        shown.press("k")
        shown.at(29)
        assert shown.page.locator("#row .verdict").inner_text() == "舍弃"
        assert shown.said == []

        started.process.send_signal(signal.SIGKILL)
        started.process.wait(10)
        shown.press("a")
        shown.shows("#notices", "没有保存")
        assert shown.place() == "29", "what was not saved is not passed over"
        port = port_of(started["page"])
        started = Reviewing(tmp_path, "run", "--reviewer", "甲", "--port", port)
        shown.page.reload()
        shown.at(29)
        assert shown.page.locator("#row .verdict").inner_text() == "舍弃"
        shown.press("n")  # the first row without a decision after this one
        shown.at(30)
        shown.press("a")
        shown.at(31)
        before = {n: one for n, one in latest.items() if n != 29}
        now = {one["row"]: one for one in journal(tmp_path / "run.review")}
        assert {n: one for n, one in now.items() if n != 29} == before and now[29]["verdict"] == "keep"

        started.process.send_signal(signal.SIGINT)
        assert started.process.wait(20) == 130 and started.process.stderr is not None
        assert started.process.stderr.read() == "zhllama: stopped. Finished results are kept.\n"
    finally:
        started.process.kill()
    told_line = line(
        tmp_path, "review", "run", "--export", "--out", "out", "--undecided", "leave-out", "--json"
    )
    figures = json.loads(told_line.out)
    assert (figures["kept"], figures["reasons"]["dropped"], figures["reasons"]["not reviewed"]) == (20, 10, 6)
    rows = [
        json.loads(row)
        for row in (tmp_path / "out" / "reviewed.jsonl").read_text(encoding="utf-8").split("\n")
        if row
    ]
    assert [row["id"] for row in rows if row["output"] == "这是改过的回答。"] == ["0.20.0"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("zhllama-review-")]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A page on rows of all forms, some of which mean harm, with the decisions of a second reviewer."""
    folder = tmp_path_factory.mktemp("mixed")
    hostile = {"instruction": HOSTILE, "input": HOSTILE, "output": HOSTILE, "category": HOSTILE, "model": HOSTILE, HOSTILE: HOSTILE, "flags": [HOSTILE]}  # fmt: skip
    rows: list[Any] = [
        hostile, {"conversations": [{"from": HOSTILE, "value": HOSTILE}, {"from": "gpt", "value": HOSTILE}]},
        {"prompt": HOSTILE, "chosen": HOSTILE, "rejected": "坏"},
        {"id": "1", "left": HOSTILE, "right": "b", "result": "tie", "orders": [{"said": HOSTILE}]},
        {"text": HOSTILE}, [HOSTILE], {"instruction": "𠮷野家😀电话13812345678，邮箱a@b.cn", "output": "a" * 150_000},
        {"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！", "reasoning_content": "想一想"}]},
    ]  # fmt: skip
    data = write_rows(folder / "mixed.jsonl", rows)
    with data.open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    with opened_session(data, "甲") as ours, opened_session(data, "乙", ours.index) as theirs:
        for number in (0, 7):
            theirs.decide(number, theirs.row(number)["key"], "drop", {}, HOSTILE)
        with served_session(ours, HOSTILE) as url:
            yield f"{url}/", folder


def test_hostile_rows_stay_text(browser: Any, mixed: tuple[str, Path]) -> None:
    shown = Page(browser, mixed[0])
    for number in range(1, 10):
        shown.at(number)
        shown.press("d")
        if number < 9:
            shown.at(number + 1)
    for key in ("s", "Escape", "?", "Escape"):
        shown.press(key)
    shown.page.locator("#row").get_by_text("无法解析").wait_for()
    shown.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    shown.page.locator("#search").fill(HOSTILE.split("\u2028")[0].strip())
    shown.press("Enter")
    shown.shows("#progress", "9行中的6行")
    shown.page.locator("#row mark").first.wait_for()
    assert shown.page.evaluate("window.hit") is None
    assert (
        shown.page.locator("main img, main script").count() == 0
        and shown.page.locator("#row mark").count() > 0
    )
    assert shown.said == []


def test_personal_data_others_and_whole_texts(browser: Any, mixed: tuple[str, Path]) -> None:
    shown = Page(browser, f"{mixed[0]}#row=6", locale="en-US")
    shown.at(7)
    assert shown.page.locator("#row mark.personal").all_inner_texts() == ["13812345678", "a@b.cn"]
    assert len(shown.page.locator("#row .part.output .text").inner_text()) == 100_000
    shown.page.get_by_text("Show 50,000 more characters").click()
    shown.page.wait_for_function(
        "() => document.querySelector('#row .part.output .text').textContent.length === 150000"
    )
    shown.press("j")
    shown.at(8)
    shown.press("u")  # another test decided it
    shown.page.get_by_text("1 more decided this row; shown once you have.").wait_for()
    shown.press("a", "k")
    shown.shows("#row .others", "乙")
    shown.press("s")
    shown.shows("#agreement", "Cohen’s κ")
    assert shown.said == []


def test_the_better_answer_by_keyboard(browser: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"问题{n}", "chosen": "好的回答", "rejected": "坏的回答"} for n in range(6)]
    with (
        opened_session(write_rows(tmp_path / "pairs.jsonl", rows)) as session,
        served_session(session) as url,
    ):
        shown = Page(browser, f"{url}/")
        for number in range(5):
            shown.at(number + 1)
            good = shown.page.locator("#row .answer-box .text").all_inner_texts().index("好的回答")
            assert shown.page.locator("#row").get_by_text("数据中排第一").count() == 0, "it would sway"
            shown.press("a", "0" if number == 4 else str(good + 1))
        shown.at(6)
        assert [one["verdict"] for one in journal(tmp_path / "pairs.jsonl.review")] == ["1"] * 4 + ["tie"]
        shown.press("k", "k")
        shown.at(4)
        shown.shows("#row .answer-box.chosen", "好的回答")
        shown.shows("#row .answer-box.chosen", "数据中排第一")
        assert shown.said == []


def test_filters_and_search(browser: Any, tmp_path: Path) -> None:
    with opened_session(write_generated(tmp_path / "run")) as session, served_session(session) as url:
        shown = Page(browser, f"{url}/", locale="en-US")
        shown.press("/")
        shown.page.keyboard.type("第13次")
        shown.press("Enter")
        shown.at(14)
        assert shown.page.locator("#progress").inner_text().startswith("1 of 43 rows")
        assert shown.page.locator("#list mark").inner_text() == "第13次"
        shown.page.locator("#search").fill("")
        shown.press("Enter")
        shown.page.get_by_text("More filters").click()
        shown.page.get_by_label("Reason").select_option("too short")
        shown.shows("#row .note", "Rejected: too short · an output of 1 characters")
        assert "rejected.jsonl:2" in shown.page.locator("#row .where").inner_text()
        shown.page.reload()
        shown.shows("#filters summary", "More filters (1)")
        shown.page.get_by_text("More filters (1)").click()
        shown.page.get_by_role("button", name="Clear filters").click()
        shown.page.get_by_label("Similar to an earlier row").select_option("0.9")
        shown.page.locator("[data-filter=group]").select_option("rejected")
        shown.shows("#row", "Similar to row 2, ROUGE-L 1")
        shown.page.get_by_text("Similar to row 2").click()  # which the filters leave out
        shown.at(2)
        assert shown.page.locator("#progress").inner_text().startswith("43 rows")
        assert shown.said == []


def test_the_screen_fits_in_both_themes_and_languages(browser: Any, mixed: tuple[str, Path]) -> None:
    backgrounds = set()
    for width, scheme, locale in ((390, "light", "zh-CN"), (390, "dark", "en-US"), (1280, "dark", "en-US"), (1280, "light", "zh-CN")):  # fmt: skip
        shown = Page(browser, f"{mixed[0]}#row=0", width, 844, locale, scheme)
        views = ("#row", "#list") if width == 390 else ("#row",)
        for view in views:
            if view == "#list":
                shown.page.click("#open-list")
                shown.page.locator("#list .item.chosen").wait_for()
            assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
            assert shown.page.evaluate("document.documentElement.scrollHeight") <= 844
            wide = f"[...document.querySelectorAll('{view}, {view} .part')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
            assert shown.page.evaluate(wide) == 0
            contrasts = shown.page.evaluate(CONTRASTS)
            assert min(contrasts.values()) >= 4.5, min(contrasts.items(), key=lambda item: item[1])
        if width == 390:
            shown.page.locator("#list .item").nth(1).click()
            shown.at(2)
            for button in shown.page.locator("#row .actions button:visible").all():
                box = button.bounding_box()
                assert box["height"] >= 40 and box["y"] + box["height"] <= 844, "within reach of a thumb"
        shown.press("?")
        shown.page.locator("#keys").wait_for()
        keys = shown.page.locator("#keys dt")
        assert keys.count() > 10 and all(key.inner_text().strip() for key in keys.all()), "what to press"
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
        shown.press("Escape")
        backgrounds.add(shown.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        shown.page.click("#language")
        shown.shows("#filters summary", "更多篩選" if locale == "zh-CN" else "更多筛选")
        assert shown.said == []
        shown.context.close()
    assert len(backgrounds) == 2


def test_a_long_list_draws_what_is_in_view(browser: Any, tmp_path: Path) -> None:
    """Rows appear while the file is read; the end of a list beyond a browser's height is reached."""
    data = write_rows(tmp_path / "long.jsonl", [task(n) for n in range(6000)])
    index = RowIndex(find_sources(data))
    reading = in_thread(index)
    with opened_session(data, index=index) as session, served_session(session) as url:
        shown = Page(browser, f"{url}/")
        reading.join(60)
        shown.shows("#progress", "6,000行")
        assert shown.page.locator("#list .item").count() < 30
        shown.page.evaluate("document.getElementById('list').scrollTop = 3000 * 72")
        shown.shows("#list .item .under", "3,001")
        shown.page.evaluate("document.getElementById('list').scrollTop = 1e9")
        shown.shows("#list .item .under", "6,000")
        shown.page.locator("#list .item").last.click()
        shown.at(6000)
        shown.press("j", "a")
        shown.shows("#row .verdict", "保留")
        assert shown.place() == "6000" and shown.said == []


def test_a_track_higher_than_a_browser_draws(browser: Any, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", [task(n) for n in range(300)])
    with opened_session(data) as session, served_session(session) as url:
        shown = Page(browser, f"{url}/")
        shown.page.route(
            "**/api/select*",
            lambda route: route.fulfill(json={"version": 1, "total": 5_000_000, "position": 0}),
        )
        shown.page.route(
            "**/api/rows*", lambda route: route.fulfill(json={"start": 0, "rows": rows_of(route.request.url)})
        )
        shown.page.reload()
        shown.page.wait_for_selector("#row .row-head")
        for share, number in ((1, 5_000_000), (0.5, 2_500_000), (0, 1)):
            shown.page.evaluate(
                "share => { const list = document.getElementById('list'); list.scrollTop = share * (list.scrollHeight - list.clientHeight) }",
                share,
            )
            shown.page.wait_for_function(
                "number => [...document.querySelectorAll('#list .under span:first-child')].some(e => Math.abs(Number(e.textContent.replaceAll(',', '')) - number) < 12)",
                arg=number,
            )


def rows_of(url: str) -> list[dict[str, Any]]:
    start = int(url.partition("&start=")[2].partition("&")[0])
    return [{"number": start + n, "where": "1", "group": "accepted", "kind": "task", "text": "问", "answer": "", "characters": 1,
             "flags": [], "reason": "", "verdict": None, "edited": False, "commented": False} for n in range(50)]  # fmt: skip


# ---- requests that the page does not send


def test_only_the_page_itself_may_decide(mixed: tuple[str, Path]) -> None:
    url, folder = mixed
    own = f"127.0.0.1:{port_of(url)}"
    row = json.loads(raw(url, request("GET", "/api/row?row=4", host=own)).body)
    body = json.dumps({"row": 4, "key": row["key"], "verdict": "keep", "edit": {}, "comment": ""}).encode()
    before = (
        len(journal(folder / "mixed.jsonl.review")) if (folder / "mixed.jsonl.review" / "甲").is_dir() else 0
    )
    for headers, status in (
        ({"host": own, "origin": "http://evil.example"}, 403),
        ({"host": own, "origin": "null"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
        ({"host": own, "content_type": "text/plain"}, 415),
    ):
        assert raw(url, request("POST", "/api/decide", body, **headers)).status == status, headers
    for wrong in (b"", b"[]", b"{", b'{"row": -1}', body.replace(b'"keep"', b'"maybe"'), body.replace(b"4", b"400", 1), body[:-1] + b', "x": 1}',
                  body.replace(row["key"].encode(), b"0" * 16)):  # fmt: skip
        assert raw(url, request("POST", "/api/decide", wrong, host=own)).status in (400, 404, 409), wrong
    for path in (
        "/api/rows?start=-1",
        "/api/rows?count=100000",
        "/api/select?kind=x&status=odd",
        "/api/select?none=1",
        "/api/row?row=x",
        "/api/select?near=7",
    ):
        assert raw(url, request("GET", path, host=own)).status == 400, path
    for method, path in (
        ("GET", "/docs"),
        ("POST", "/"),
        ("PUT", "/api/decide"),
        ("GET", "/api/decide"),
        ("GET", "/api/row/../../etc/passwd"),
    ):
        assert raw(url, request(method, path, host=own)).status == 404, path
    assert raw(url, request("GET", "/api/row?row=4000", host=own)).status == 404
    assert len(journal(folder / "mixed.jsonl.review")) == before if before else True
    page = raw(url, request("GET", "/", host=own)).body.decode()
    assert HOSTILE not in page and "default-src 'none'" in page and "connect-src 'self'" in page


def test_a_full_disk_is_told_and_the_row_stays(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zhllama.errors import OutputError
    from zhllama.review.decisions import OwnJournal

    def full(self: OwnJournal, _: Any) -> None:
        raise OutputError(self.path, "cannot be written (No space left on device)", "Free some room")

    with (
        opened_session(write_rows(tmp_path / "a.jsonl", [task(0), task(1)])) as session,
        served_session(session) as url,
    ):
        shown = Page(browser, f"{url}/", locale="en-US")
        monkeypatch.setattr(OwnJournal, "append", full)
        shown.press("a")
        shown.shows("#notices", "No space left on device")
        assert shown.place() == "1"
        monkeypatch.undo()
        shown.press("a")
        shown.at(2)
        assert shown.page.locator("#notices").inner_text() == ""


def test_one_row_is_edited_and_nothing_else_of_it(browser: Any, tmp_path: Path) -> None:
    row = {"instruction": "第一行\r\n第二行", "input": "\ud800孤", "output": "旧"}
    with opened_session(write_rows(tmp_path / "a.jsonl", [row])) as session, served_session(session) as url:
        shown = Page(browser, f"{url}/")
        shown.press("j", "k", "n", "l", "l", "l", "d")
        shown.shows("#row .verdict", "舍弃")
        shown.press("e")
        shown.page.locator("textarea").last.fill("新")
        shown.press("Escape")
        assert shown.page.locator("textarea").count() == 0
        shown.press("e")
        shown.page.locator("textarea").last.fill("新")
        shown.press("Control+Enter")
        shown.shows("#row .verdict", "保留")
        assert [one["edit"] for one in journal(tmp_path / "a.jsonl.review")] == [{}, {"output": "新"}]
        shown.page.get_by_label("状态").select_option("drop")
        shown.shows("#row", "没有符合条件的行")
        shown.press("Escape")
        shown.press("a", "d", "e", "c", "u", "n", "1")  # nothing to decide on
        shown.page.get_by_text("更多筛选").click()
        shown.page.get_by_role("button", name="清除筛选").click()
        shown.shows("#row .verdict", "保留")
        assert shown.said == [] and shown.page.locator("#notices").inner_text() == ""


@pytest.mark.slow
def test_a_hundred_thousand_rows_scroll(browser: Any, tmp_path: Path) -> None:
    """Prints the seconds to the first row, to all rows, and of a page at a random place."""
    data = write_rows(tmp_path / "big.jsonl", [task(n, input="背景材料。" * 40) for n in range(100_000)])
    begun = time.monotonic()
    started = Reviewing(tmp_path, data, "--port", 0)
    try:
        listening = time.monotonic() - begun
        shown = Page(browser, started["page"])
        first = time.monotonic() - begun
        shown.page.set_default_timeout(300_000)
        shown.page.wait_for_function(
            "() => document.getElementById('progress').textContent.startsWith('100,000行 ·') && !document.getElementById('progress').textContent.includes('读取')"
        )
        whole = time.monotonic() - begun
        seconds = shown.page.evaluate(
            """async () => {
                const list = document.getElementById('list'), seconds = [];
                for (let n = 1; n <= 40; n++) {
                    const begun = performance.now();
                    list.scrollTop = ((n * 0.381966) % 1) * list.scrollHeight;
                    do await new Promise(requestAnimationFrame); while (list.querySelector('.waiting') || !list.querySelector('.item'));
                    seconds.push((performance.now() - begun) / 1000);
                }
                return seconds.sort((a, b) => a - b);
            }"""
        )
        status = Path(f"/proc/{started.process.pid}/status").read_text(encoding="utf-8")
        memory = int(status.partition("VmHWM:")[2].split()[0]) >> 10
        print(f"listening {listening:.1f} s, first row {first:.1f} s, all rows {whole:.1f} s, page at a random place "
              f"median {seconds[20] * 1000:.0f} ms, longest {seconds[-1] * 1000:.0f} ms, peak memory {memory} MB")  # fmt: skip
        assert first < 15 and seconds[20] < 0.5 and memory < 600
    finally:
        started.process.kill()
        started.process.wait()
