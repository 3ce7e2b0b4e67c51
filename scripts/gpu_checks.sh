#!/usr/bin/env bash
# Checks on a GPU what cannot be checked without one, within half an hour, and writes a page with the card's name:
#   bash scripts/gpu_checks.sh
#   bash scripts/gpu_checks.sh --device cpu      a rehearsal
# Arguments go to tests/gpu/run.py. Python is that of .venv (or $ERR_SEG_VENV) where scripts/setup.sh made one, else
# $PYTHON (python3), which needs pytest.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${ERR_SEG_VENV:-$root/.venv}/bin/python"
[ -x "$python" ] || python="${PYTHON:-python3}"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" "$root/tests/gpu/run.py" "$@"
