#!/usr/bin/env bash
# Runs mutmut on the modules, with the tests, that [tool.mutmut] in pyproject.toml names; it continues where it stopped.
# Arguments, such as names of mutants, go to "mutmut run".
set -euo pipefail
cd "$(dirname "$0")/.."
python="${ERR_SEG_VENV:-.venv}/bin/python"
site=build/mutmut
[ -d "$site" ] || "$python" -m pip install --quiet --target "$site" "mutmut==3.8.1"
export OMP_NUM_THREADS=1 PYTHONPATH="$site"
"$python" "$site/bin/mutmut" run "$@"
"$python" "$site/bin/mutmut" results
