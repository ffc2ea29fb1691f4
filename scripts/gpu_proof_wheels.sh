#!/usr/bin/env bash
# Downloads the packages that scripts/gpu_proof.sh needs beside torch, transformers, peft, accelerate and Triton, as wheels,
# for a machine with a GPU and without a network. gpu_proof.sh installs what lies in the folder.
#   scripts/gpu_proof_wheels.sh [FOLDER] [PYTHON-VERSION]      # by default .whl and 3.12, for Linux on x86-64
set -euo pipefail
folder="${1:-$(dirname "${BASH_SOURCE[0]}")/../.whl}"
version="${2:-3.12}"
limit=60000000 # bytes

# Each without its own dependencies: those that are not named here come with torch or transformers.
packages=(
    annotated-types typing-inspection                        # for pydantic, which is fetched with its core
    liger-kernel                                             # the fused loss, and a peer
    bitsandbytes                                             # layers in 4 bits
    trl datasets dill multiprocess xxhash                    # a peer
    opencc rapidfuzz rouge-score ftfy wcwidth                # imported by parts of zhllama that the tests use
)
platforms=()
for name in manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${name}_x86_64")
done
mkdir -p "$folder"
fetch() {
    python3 -m pip download --quiet --only-binary=:all: --python-version "$version" --implementation cp "${platforms[@]}" \
        --dest "$folder" "$@"
}
fetch pydantic # reads options and metadata; its core must have one exact version
for package in "${packages[@]}"; do
    fetch --no-deps "$package" ||
        echo "$package: no wheel; what needs it is left out there" >&2
done
size=$(cat "$folder"/*.whl | wc -c)
echo "$folder: $(find "$folder" -name '*.whl' | wc -l) wheels, $((size / 1000000)) MB"
if ((size > limit)); then
    echo "$folder: more than $((limit / 1000000)) MB; remove the largest that you can do without" >&2
    exit 1
fi
