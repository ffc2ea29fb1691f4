# Sourced by demo.sh and test.sh: makes .venv in the checkout and gives `install_into_venv EXTRAS`.
# uv resolves in seconds what takes pip minutes. torch goes first, through pip and alone: a bare `torch` brings
# gigabytes of CUDA, and pip also finds a wheel that lies on the machine.

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
    # What is installed already is kept from one call to the next as long as what it was made from is the same.
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
