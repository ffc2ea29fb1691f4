"""The child process that renders foreign chat templates with transformers' own function: one request and one reply a line.

Started by its path, without the package: it costs one import of jinja2 and numpy. The system ends it where a rendering takes
more processor time or memory than its limits, whatever code a template keeps busy.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

SECONDS = 2.0  # of processor time for one conversation; public templates take milliseconds
PATIENCE = 60.0  # seconds by the clock, for a machine that is very busy
MEMORY = 768 << 20  # bytes beyond what the process takes when it begins
REPLY = 1 << 16  # characters of text that a template may write by itself
TIMES = 16  # and so many for each character of the conversation


def load() -> Any:
    """transformers' function that renders, without the rest of its package, which takes seconds to import."""
    spec = find_spec("transformers")
    assert spec is not None and spec.origin is not None
    home = Path(spec.origin).parent
    for name, folder in (("transformers", home), ("transformers.utils", home / "utils")):
        sys.modules[name] = module = ModuleType(name)
        module.__path__ = [str(folder)]
    try:
        from transformers.utils.chat_template_utils import render_jinja_template
    except (ImportError, AttributeError):  # another layout of another version
        for name in [m for m in sys.modules if m.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        from transformers.utils.chat_template_utils import render_jinja_template
    return render_jinja_template


def bound_memory() -> None:
    """Let this process take no more memory than it has now and MEMORY."""
    taken = 1 << 30
    with contextlib.suppress(OSError):  # no such file where there is no Linux
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def answer(render: Any, asked: dict[str, Any]) -> dict[str, str]:
    """`text`, or `fails` with what the template raised, or `exceeds` with the bound that it crossed."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # the default action of both signals ends the process
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        (text,), _ = render(
            conversations=[asked["messages"]], chat_template=asked["template"],
            add_generation_prompt=asked["opened"], **asked["specials"],
        )  # fmt: skip
        most = REPLY + TIMES * sum(len(m["content"]) for m in asked["messages"])
        if len(text) > most:
            return {"exceeds": f"writes {len(text):,} characters, and {most:,} are the most"}
    except MemoryError:
        return {"exceeds": "takes more memory than is allowed"}
    except RecursionError:
        return {"exceeds": "calls itself too often"}
    except BaseException as error:
        return {"fails": " ".join(str(error)[:2000].split())[:160] or type(error).__name__}
    else:
        return {"text": text}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Answer until the other side closes its end."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever a library prints is no reply
    sys.path.extend(json.loads(sys.stdin.readline()))
    render = load()
    bound_memory()
    for line in sys.stdin:
        replies.write(json.dumps(answer(render, json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
