"""Data to review, and a review of it in this process or as users start it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from zhllama.inference.http_guard import Guard, host_names
from zhllama.inference.http_server import bind_socket, serve_app
from zhllama.io.files import json_lines
from zhllama.pages.review import review_page
from zhllama.review.app import page_needs, review_app
from zhllama.review.decisions import OwnJournal
from zhllama.review.row_index import RowIndex
from zhllama.review.session import ReviewSession
from zhllama.review.sources import find_sources

HOSTILE = "</script><script>window.hit=1</script><img src=x onerror=window.hit=1><!-- ${hit} {{ 7*7 }} \u2028"


def task(number: int, **more: Any) -> dict[str, Any]:
    topics = ("春天的诗歌", "光合作用", "围棋规则", "城市交通", "量子力学", "红烧肉的做法", "唐代历史")
    return {"instruction": f"请介绍{topics[number % 7]}，第{number}次。", "input": "", "output": f"这是第{number}个回答，内容完整。", **more}  # fmt: skip


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_lines(rows), encoding="utf-8")
    return path


def write_generated(folder: Path, rows: int = 40) -> Path:
    """A folder as a gen-zh run leaves it: accepted rows with flags and models, and rejects with reasons."""
    accepted = [
        {"id": f"0.{n}.0", **task(n), "flags": ["was Traditional"] if n % 10 == 3 else [],
         "from": {"round": 0, "request": n, "place": 0, "model": ("qwen3", "deepseek-chat")[n % 2]}}
        for n in range(rows)
    ]  # fmt: skip
    accepted[5]["output"] += "请拨打13812345678，或写信到 someone@example.com。"
    accepted[6]["instruction"] = HOSTILE
    rejected = [
        {"id": "1.0.0", "reason": "near duplicate", "detail": "0.923 to 0.1.0", **task(1), "model": "qwen3"},
        {"id": "1.0.1", "reason": "too short", "detail": "an output of 1 characters", **task(2, output="是"), "model": "qwen3"},
        {"id": "1.0.2", "reason": "format", "detail": "", "text": "任务：没有编号", "model": "qwen3"},
    ]  # fmt: skip
    write_rows(folder / "instructions.jsonl", accepted)
    write_rows(folder / "rejected.jsonl", rejected)
    (folder / "config.yaml").write_text("command: gen-zh\n", encoding="utf-8")
    return folder


@contextmanager
def opened_index(data: Path) -> Iterator[RowIndex]:
    with closing(RowIndex(find_sources(data))) as index:
        index.build()
        yield index


@contextmanager
def opened_session(
    data: Path, reviewer: str = "甲", index: RowIndex | None = None
) -> Iterator[ReviewSession]:
    folder = data.with_name(f"{data.name}.review")
    with ExitStack() as opened:
        rows = index or opened.enter_context(opened_index(data))
        journal = opened.enter_context(OwnJournal(folder, reviewer))
        yield opened.enter_context(closing(ReviewSession(rows, folder, reviewer, journal)))


@contextmanager
def served_session(session: ReviewSession, title: str = "toy") -> Iterator[str]:
    """The page over a session, guarded as `zhllama review` guards it; gives its URL."""
    with bind_socket("port", "127.0.0.1", 0) as taken:
        app = Guard(
            review_app(session, review_page(title)), host_names("127.0.0.1", "127.0.0.1", []), page_needs
        )
        with serve_app(app, taken) as url:
            yield url


class Reviewing:
    """`zhllama review` as users start it, and what it told."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        words = [sys.executable, "-m", "zhllama", "review", *map(str, arguments), "--json"]
        self.process = subprocess.Popen(
            words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            env={**os.environ, "TMPDIR": str(folder)}, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None and self.process.stderr is not None
        self.told = self.process.stdout.readline()
        assert self.told, self.process.stderr.read()

    def __getitem__(self, name: str) -> str:
        return str(json.loads(self.told)[name])


def in_thread(index: RowIndex) -> Thread:
    thread = Thread(target=index.build, daemon=True)
    thread.start()
    return thread
