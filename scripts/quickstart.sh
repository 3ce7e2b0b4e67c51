#!/usr/bin/env bash
# From a fresh checkout to a trained network, a table and an image, with nothing downloaded but Python packages:
#   bash scripts/quickstart.sh                  minutes on 2 CPU cores
#   bash scripts/quickstart.sh --from-scratch   pre-trains the tiny CLIP as well
# Arguments go to tools/mini_world.py.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
"${ERR_SEG_VENV:-.venv}/bin/python" tools/mini_world.py all "$@"
