# Sourced by demo.sh and test.sh: creates .venv in the checkout and provides `install_into_venv EXTRAS`.
# uv resolves dependencies in seconds where pip takes minutes. torch is installed first, separately and with pip: the default
# `torch` wheel pulls in gigabytes of CUDA, and pip also finds a wheel that is already on the machine.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
python="$venv/bin/python"

make_venv() {
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$venv"
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip -q
    [ -x "$venv/bin/uv" ] || "$python" -m pip install -q --disable-pip-version-check uv 2>&1 | { grep -v '^WARNING: Location' || true; }
}

install_into_venv() { # "EXTRAS" [PACKAGE...]
    local extras="$1"
    shift
    make_venv
    # Skip the installation if the extras, pyproject.toml and the constraints have not changed since the last call.
    local wanted
    wanted="$extras $* $(cat "$root/pyproject.toml" "$root/scripts/constraints.txt" | cksum)"
    [ "$(cat "$venv/.installed" 2>/dev/null)" = "$wanted" ] && return
    if [[ "$extras" == *all* || "$extras" == *train* ]]; then
        "$python" -m pip install -q --disable-pip-version-check "$(grep '^torch==' "$root/scripts/constraints.txt")" 2>&1 |
            { grep -v '^WARNING: Location' || true; }
    fi
    "$venv/bin/uv" pip install -q --python "$python" -c "$root/scripts/constraints.txt" -e "$root[$extras]"
    if [ $# -gt 0 ]; then
        "$venv/bin/uv" pip install -q --python "$python" -c "$root/scripts/constraints.txt" --no-deps "$@"
    fi
    echo "$wanted" >"$venv/.installed"
}
