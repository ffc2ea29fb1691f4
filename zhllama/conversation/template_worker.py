"""The worker process that renders foreign chat templates with transformers' function: one JSON request and reply per line.

It is started by its path without importing zhllama, and imports only jinja2 and numpy. The operating system ends it when a
template exceeds the limits on CPU time or memory.
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

SECONDS = 2.0  # of CPU time per conversation; public templates take milliseconds
PATIENCE = 60.0  # wall-clock seconds, for a very busy machine
MEMORY = 768 << 20  # bytes in addition to the process's size at its start
REPLY = 1 << 16  # characters that a template may write in addition to the conversation
TIMES = 16  # times the length of the conversation


def load() -> Any:
    """transformers' rendering function, imported without the rest of the package, which takes seconds."""
    spec = find_spec("transformers")
    assert spec is not None and spec.origin is not None
    home = Path(spec.origin).parent
    for name, folder in (("transformers", home), ("transformers.utils", home / "utils")):
        sys.modules[name] = module = ModuleType(name)
        module.__path__ = [str(folder)]
    try:
        from transformers.utils.chat_template_utils import render_jinja_template
    except (ImportError, AttributeError):  # another version may have another layout
        for name in [m for m in sys.modules if m.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        from transformers.utils.chat_template_utils import render_jinja_template
    return render_jinja_template


def bound_memory() -> None:
    """Limit this process to MEMORY in addition to its current size."""
    size = 1 << 30
    with contextlib.suppress(OSError):  # the file exists only on Linux
        size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


def answer(render: Any, request: dict[str, Any]) -> dict[str, str]:
    """The reply: `text`, or `fails` with the template's error, or `exceeds` with the limit that it broke."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # the default action of both signals ends the process
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        (text,), _ = render(
            conversations=[request["messages"]], chat_template=request["template"],
            add_generation_prompt=request["opened"], tools=request["tools"], **request["specials"],
        )  # fmt: skip
        size = sum(
            len(str(value)) for m in request["messages"] for name, value in m.items() if name != "role"
        )
        most = REPLY + TIMES * (size + len(str(request["tools"] or "")))
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
    """Answer requests until the input is closed."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # keep a library's prints out of the replies
    sys.path.extend(json.loads(sys.stdin.readline()))
    render = load()
    bound_memory()
    for line in sys.stdin:
        replies.write(json.dumps(answer(render, json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
