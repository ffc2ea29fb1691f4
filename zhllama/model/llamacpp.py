"""llama.cpp in this process, by the package xllamacpp: a GGUF file is loaded, and its HTTP server answers this process alone."""

import json
import os
import re
import secrets
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from zhllama.errors import InputError, MissingPackage
from zhllama.io.json import parse_json

QUIET = -1  # llama.cpp's verbosity
# What xllamacpp raises says nothing, and llama.cpp writes why to the process's own stderr, so another process loads the file.
# A server that ends before its loop has begun waits for it forever, so the process that has loaded the file ends at once.
LOADING = """
import os, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.verbosity, params.warmup, params.n_ctx, params.fit_params = sys.argv[1], 1, False, 64, False
server = xllamacpp.Server(params)
os._exit(0)
"""


class LlamaCpp:
    """llama.cpp with one model file; `server` is xllamacpp's own object."""

    def __init__(
        self,
        path: Path,
        template: str | None = None,
        context: int = 0,
        threads: int | None = None,
        exact: bool = False,
        slots: Path | None = None,
    ) -> None:
        """Load the file; `template` in place of its own, `context` tokens or as many as the model was made for.

        `exact`, for comparisons: keys and values cached in float32, and attention not computed in blocks, since f16 states
        reverse near ties. `slots`: the folder in which its address `/slots` saves keys and values.
        Errors: InputError for a file that is missing or that llama.cpp does not load; MissingPackage.
        """
        if not path.is_file():
            raise InputError(path, "no such file", "Check the path")
        try:
            import xllamacpp
        except ImportError:
            raise MissingPackage(str(path), "xllamacpp", "llamacpp") from None
        params = xllamacpp.CommonParams()
        params.model.path, params.n_parallel = str(path), 1
        params.n_ctx = context
        if threads is not None:
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        if slots is not None:
            params.slot_save_path = f"{slots}/"
        if exact:
            params.warmup = False
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # The server counts tokens for this process; a random key keeps out other clients.
        self._key = secrets.token_hex(32)
        params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [self._key]
        params.verbosity, params.ui = QUIET, False
        if template is not None:
            params.chat_template, params.use_jinja = template, True
        try:
            self.server = xllamacpp.Server(params)
        except Exception as error:  # xllamacpp raises plain RuntimeErrors
            reason = loading_fault(path) or " ".join(str(error).split())[:200]
            raise InputError(
                path, f"cannot be loaded by llama.cpp ({reason})", "Export it again by zhllama export --gguf"
            ) from error
        self._address = str(self.server.listening_address)

    def call(self, path: str, body: dict[str, Any] | None = None, timeout: float = 60) -> Any:
        """The reply of one of the server's addresses, waiting `timeout` seconds. Errors: InputError for a request that it refuses."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(self._address + path, data, headers)
        try:
            # A proxy from the environment must not be used for this process's own server.
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                request, timeout=timeout
            ) as reply:
                return parse_json(reply.read(), "llama.cpp", "Start it again", any_number=True)
        except OSError as error:
            reason = error.read().decode()[:200] if hasattr(error, "read") else str(error)
            raise InputError("llama.cpp", f"refuses this conversation ({reason})", "Try /reset") from error


def loading_fault(path: Path) -> str | None:
    """Why llama.cpp does not load a file, in its own words; None where it says nothing, and where it loads it.

    An assertion of llama.cpp ends the process that loads the file.
    """
    command = [sys.executable, "-c", LOADING, str(path)]
    quiet = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # else it starts a debugger
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=quiet)
    told = done.stderr.decode(errors="replace")
    found = re.search(r"error loading model: (.+)" if done.returncode >= 0 else r"(GGML_ASSERT.+)", told)
    if found is None:
        return None if done.returncode >= 0 else f"it ends by signal {-done.returncode}"
    return " ".join(found[1].split())[:200]
