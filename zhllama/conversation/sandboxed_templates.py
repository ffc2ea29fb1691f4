"""Renders foreign chat templates in a worker process with limits on time and memory."""

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, Any, cast

from zhllama.conversation.template_worker import SECONDS

WORKER = Path(__file__).parent / "template_worker.py"
WORDS = "我们 said: 3 + 4 = 7, <b>\n"
# Test conversations: the usual forms, a long turn, many turns, and content that parses as a large number.
TRIALS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", WORDS),),
    (("user", WORDS), ("assistant", WORDS)),
    (("system", WORDS), ("user", WORDS), ("assistant", WORDS)),
    (("user", "999999999"), ("assistant", "999999999"), ("user", "999999999")),
    (("user", WORDS * 400), ("assistant", WORDS * 400)),
    (("user", WORDS), ("assistant", WORDS)) * 12,
)
Message = Mapping[str, Any]


class Fails(Exception):
    """The template raised an error on this conversation."""


class Exceeds(Exception):
    """The template exceeded the limit on time, memory or text."""


class Renderer:
    """One worker process, started on demand and restarted after it ended; safe across threads and forks."""

    def __init__(self) -> None:
        self._lock, self._worker, self._owner = Lock(), cast("subprocess.Popen[str] | None", None), 0

    def render(
        self, jinja: str, messages: Sequence[Message], specials: Mapping[str, Any], opened: bool,
        tools: Sequence[Any] | None = None,
    ) -> str:  # fmt: skip
        """The text of a conversation, as transformers renders it. Errors: Fails, Exceeds."""
        request = {
            "template": jinja, "messages": messages, "specials": specials, "opened": opened, "tools": tools
        }  # fmt: skip
        if (
            self._owner != os.getpid()
        ):  # after a fork: a lock that another thread had acquired is never released
            self._lock, self._worker, self._owner = Lock(), None, os.getpid()
        with self._lock:
            worker = self._running_worker()
            try:
                print(json.dumps(request, default=str), file=worker.stdin, flush=True)
                line = cast("IO[str]", worker.stdout).readline()
            except BrokenPipeError:
                line = ""
            if not line.endswith("\n"):
                self._worker = None
                raise _fault_of(_end(worker))
        reply = json.loads(line)
        if "exceeds" in reply:
            raise Exceeds(reply["exceeds"])
        if "fails" in reply:
            raise Fails(reply["fails"])
        return cast(str, reply["text"])

    def close(self) -> None:
        """End the worker process."""
        if self._worker is not None and self._owner == os.getpid():
            _end(self._worker)
            self._worker = None

    def _running_worker(self) -> "subprocess.Popen[str]":
        if self._worker is None:
            single_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._worker = subprocess.Popen(
                [sys.executable, "-I", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, encoding="utf-8", env={**os.environ, **single_thread},
                start_new_session=True,  # so that Ctrl-C reaches only this process
            )  # fmt: skip
            print(json.dumps([p for p in sys.path if p]), file=self._worker.stdin, flush=True)
        return self._worker


def _end(worker: "subprocess.Popen[str]") -> int:
    worker.kill()
    code = worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        with suppress(BrokenPipeError):  # the request that it did not read
            cast("IO[str]", pipe).close()
    return code


def _fault_of(code: int) -> Exception:
    if code >= 0:
        return Fails(f"the process that renders it ended with {code}")
    if code in (-signal.SIGPROF, -signal.SIGALRM):
        return Exceeds(f"takes more than {SECONDS:.0f} s on a conversation")
    return Exceeds("takes more memory than is allowed, or crashes")


renderer = Renderer()
atexit.register(renderer.close)


def try_out(jinja: str, specials: Mapping[str, Any]) -> None:
    """Render test conversations, once for each template. Errors: Exceeds; a conversation that the template refuses is ignored."""
    fault = _fault(jinja, json.dumps(specials, default=str, sort_keys=True))
    if fault is not None:
        raise Exceeds(fault)


@cache
def _fault(jinja: str, specials: str) -> str | None:
    for turns in TRIALS:
        for opened in (False, True):
            messages = [{"role": role, "content": content} for role, content in turns]
            try:
                renderer.render(jinja, messages, json.loads(specials), opened)
            except Fails:
                continue
            except Exceeds as error:
                return str(error)
    return None
