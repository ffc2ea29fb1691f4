#!/usr/bin/env bash
# From nothing to a proved Chinese vocabulary, on what is embedded: no model file, no network but the package index.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

echo "installing into $venv ..."
install_into_venv demo

out="${1:-$root/runs/demo}"
mkdir -p "$out"
zhllama="$venv/bin/zhllama"

echo
echo "1. The published way: 20,000 pieces from jieba's word list, appended to the base at score 0."
[ -f "$out/published/manifest.json" ] || "$zhllama" merge-vocab --recipe chinese-llama --force --out "$out/published"
echo
echo "2. The same list without its harm."
[ -f "$out/safe/manifest.json" ] || "$zhllama" merge-vocab --recipe safe --force --out "$out/safe"
echo
echo "3. The proof, on the texts of corpora/sample."
"$zhllama" audit "$out/safe"
echo
echo "The tokenizer is in $out/safe. Next, on your own model and text:"
echo "  $zhllama train-vocab YOUR_TEXT --out zh"
echo "  $zhllama merge-vocab --base YOUR_MODEL --zh zh/zh.model --recipe safe --out vocab"
