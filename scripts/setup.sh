#!/usr/bin/env bash
# Makes the virtual environment (.venv, or $ERR_SEG_VENV) with everything ERR-Seg needs. Running it again is harmless.
# $PYTHON names the interpreter to use (python3).
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
venv="${ERR_SEG_VENV:-.venv}"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "error: ERR-Seg needs Python 3.10 or newer; '$python' is $("$python" --version 2>&1). Set PYTHON to another." >&2
    exit 1
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

# setuptools warns of every editable installation that the folder may be imported instead of it: that is the intention
export PYTHONWARNINGS="ignore:Editable installation"
wanted="$(cat requirements.txt pyproject.toml | cksum)"
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing ERR-Seg's requirements into $venv (several GB with PyTorch; only this once)"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    "$venv/bin/python" -m pip install --quiet -r requirements.txt
    "$venv/bin/python" -m pip install --quiet -e '.[dev]'
    echo "$wanted" > "$venv/.installed"
fi
# an environment that several clones share runs the clone that set it up last
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e .
echo "ERR-Seg is ready: source $venv/bin/activate"
