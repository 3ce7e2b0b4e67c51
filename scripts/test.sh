#!/usr/bin/env bash
# Sets up, then runs linters, formatter, type checker and the quick tests, these in two processes.
# Arguments go to pytest instead (-m slow, -k NAME, ...), which then runs in one process.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
bin="${ERR_SEG_VENV:-.venv}/bin"
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/lint-imports" --no-logo --no-cache
if [ $# -eq 0 ]; then
    set -- -n 2 --dist worksteal -m "not slow"
fi
"$bin/python" -m pytest "$@"
