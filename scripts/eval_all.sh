#!/usr/bin/env bash
# Evaluates one network on all benchmarks, and prints the paper's Table II with what was measured beside it:
#   bash scripts/eval_all.sh b                        the released base model (l: the large one), downloaded once
#   bash scripts/eval_all.sh b output/model_final.safetensors DATASETS.ROOT /data
# Further arguments are options of tools/sweep.py (such as --num-gpus 4) and KEY VALUE overrides. It may be stopped at
# any moment: the same command goes on where it was.
# Python is that of .venv (or $ERR_SEG_VENV) where scripts/setup.sh made one, else $PYTHON (python3).
set -euo pipefail
root="$(dirname "$0")/.."
case "${1:-}" in
    b) row="ConvNeXt-B, both towers" ;;
    l) row="ConvNeXt-L, both towers" ;;
    *) echo "usage: bash scripts/eval_all.sh b|l [WEIGHTS] [options of tools/sweep.py] [KEY VALUE ...]" >&2; exit 2 ;;
esac
weights="err-seg-$1"
shift
if [[ "${1:-}" =~ \.(safetensors|pth)$ ]]; then
    if [ ! -f "$1" ]; then
        echo "error: there are no weights $1" >&2
        exit 1
    fi
    weights="$1"
    shift
fi
python="${ERR_SEG_VENV:-$root/.venv}/bin/python"
[ -x "$python" ] || python="${PYTHON:-python3}"
table="$root/configs/ablations/table_ii.yaml"
exec "$python" "$root/tools/sweep.py" "$table" "$@" --weights "$weights" --variants "$row"
