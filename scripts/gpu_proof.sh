#!/usr/bin/env bash
# Tests and measures zhllama on a GPU in under eight minutes, and writes one table as JSON and as Markdown into $OUT, or
# into runs/gpu-proof. It needs torch, transformers, peft, accelerate and Triton, and no network: the wheels that
# scripts/gpu_proof_wheels.sh fetched into .whl are installed for this run alone. Without a GPU it runs at toy size.
#   bash scripts/gpu_proof.sh                          # --help names the options
#   bash scripts/gpu_proof.sh --legs tests stage2/ours
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
wheels="${ZHLLAMA_WHEELS:-$root/.whl}"
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
if compgen -G "$wheels/*.whl" >/dev/null; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check \
        --root-user-action=ignore --target "$site" "$wheels"/*.whl
fi
export PYTHONPATH="$site:$root:$root/scripts${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1 ZHLLAMA_CACHE="$site/cache"
"$python" "$root/scripts/gpu_proof.py" "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
wait "$child" || code=$?
# A signal ends the first wait at once; the second waits until the results are written.
wait "$child" 2>/dev/null || true
exit "${code:-0}"
