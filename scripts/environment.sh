# Sourced by demo.sh and test.sh: creates .venv in the checkout and provides `install_into_venv EXTRAS`.
# uv resolves dependencies in seconds where pip takes minutes. torch is installed first and separately: its default wheel for
# Linux brings gigabytes of CUDA, so that a machine without an NVIDIA GPU takes the wheel for the CPU.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
python="$venv/bin/python"
cpu_wheels="${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}"

# Prints its first argument, or in a Chinese environment its second; the language is chosen as zhllama chooses it.
say() {
    case "${ZHLLAMA_LANG:-${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}}" in
    [zZ][hH]*) printf '%s\n' "$2" ;;
    *) printf '%s\n' "$1" ;;
    esac
}

make_venv() {
    if [ ! -x "$python" ]; then
        local given="${PYTHON:-python3}" found
        if ! "$given" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            found="$("$given" --version 2>/dev/null)" || found="$(say "no Python" "不可用的命令")"
            say "zhllama needs Python 3.11 or newer, and $given is $found: give another one, such as PYTHON=python3.12 bash $0" \
                "zhllama需要Python 3.11或更新的版本，而${given}是${found}。请指定另一个，例如PYTHON=python3.12 bash $0"
            exit 1
        fi >&2
        say "creating $venv" "正在创建${venv}"
        "$given" -m venv "$venv"
    fi
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip -q
    [ -x "$venv/bin/uv" ] || { say "installing uv, which installs the rest" "正在安装uv，其余的由它安装"; pip_install -q uv; }
}

# pip with its progress, without its advice about PATH; pip also finds a wheel that is already on the machine.
pip_install() { "$python" -m pip install --disable-pip-version-check --progress-bar on "$@" 2> >(grep -v 'WARNING: Location' >&2); }

answers() { "$python" -c "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=10)" "$1/" >/dev/null 2>&1; }

install_torch() {
    local wanted
    wanted="$(grep '^torch==' "$root/scripts/constraints.txt")"
    "$python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != sys.argv[1])" "${wanted#torch==}" 2>/dev/null && return
    if [ "$(uname -s)" != Linux ] || command -v nvidia-smi >/dev/null; then
        say "installing $wanted (with CUDA where there is a GPU: some 6 GB)" "正在安装${wanted}（有GPU时连同CUDA，约6 GB）"
        pip_install "$wanted"
    elif answers "$cpu_wheels"; then
        say "installing $wanted for the CPU, since no nvidia-smi is here (some 0.2 GB to download)" \
            "正在安装CPU版的${wanted}，因为这里没有nvidia-smi（下载约0.2 GB）"
        pip_install "$wanted" --extra-index-url "$cpu_wheels"
    else
        say "installing $wanted; $cpu_wheels does not answer, so that CUDA may come with it (TORCH_CPU_INDEX names another address)" \
            "正在安装${wanted}；${cpu_wheels}没有响应，所以可能连同CUDA一起安装（可用TORCH_CPU_INDEX指定别的地址）"
        pip_install "$wanted"
    fi
}

install_into_venv() { # "EXTRAS" [PACKAGE...]
    local extras="$1"
    shift
    make_venv
    # Skip the installation if the extras, pyproject.toml and the constraints have not changed since the last call.
    local wanted
    wanted="$extras $* $(cat "$root/pyproject.toml" "$root/scripts/constraints.txt" | cksum)"
    [ "$(cat "$venv/.installed" 2>/dev/null)" = "$wanted" ] && return
    if [[ "$extras" == *all* || "$extras" == *train* ]]; then install_torch; fi
    say "installing zhllama[$extras] and what it needs" "正在安装zhllama[$extras]及其依赖"
    "$venv/bin/uv" pip install --python "$python" -c "$root/scripts/constraints.txt" -e "$root[$extras]"
    if [ $# -gt 0 ]; then
        "$venv/bin/uv" pip install --python "$python" -c "$root/scripts/constraints.txt" --no-deps "$@"
    fi
    echo "$wanted" >"$venv/.installed"
}
