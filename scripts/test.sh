#!/usr/bin/env bash
# Sets up, then runs linters, formatter, type checker and the quick tests; arguments go to pytest (-m slow, -k NAME, ...).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
bin="${ERR_SEG_VENV:-.venv}/bin"
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/lint-imports" --no-logo --no-cache
if [ $# -eq 0 ]; then
    set -- -m "not slow"
fi
"$bin/python" -m pytest "$@"
