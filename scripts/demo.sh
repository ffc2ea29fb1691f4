#!/usr/bin/env bash
# Runs the whole pipeline at toy size on embedded data: no model file, no network except the package index. A second run resumes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

say "installing into $venv" "安装到${venv}"
# An existing environment with all extras already includes what the demo needs, so it is not reinstalled.
grep -q '^all' "$venv/.installed" 2>/dev/null || install_into_venv demo,train

cd "$root"
exec "$venv/bin/zhllama" demo --out "${1:-runs/demo}"
