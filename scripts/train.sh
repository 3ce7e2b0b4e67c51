#!/usr/bin/env bash
# Trains and evaluates. After a kill, however it came about, the same command goes on where it was.
# Python is that of .venv (or $ERR_SEG_VENV) where scripts/setup.sh made one, else $PYTHON (python3).
set -euo pipefail

if [[ $# -lt 2 || ! -f $1 || ! $2 =~ ^[1-9][0-9]*$ ]]; then
    cat >&2 <<'USAGE'
usage: bash scripts/train.sh CONFIG_FILE NUM_GPUS [OPTION ...] [KEY VALUE ...]
  e.g. bash scripts/train.sh configs/err_seg_convnext_b.yaml 4 OUTPUT_DIR output/b
CONFIG_FILE is a YAML file that exists; NUM_GPUS the processes on this machine; options are those of tools/train_net.py,
keys those of err_seg/config/defaults.py.
USAGE
    exit 2
fi
config="$1" gpus="$2"
shift 2

root="$(dirname "$0")/.."
python="${ERR_SEG_VENV:-$root/.venv}/bin/python"
[ -x "$python" ] || python="${PYTHON:-python3}"
exec "$python" "$root/tools/train_net.py" --config-file "$config" --num-gpus "$gpus" --resume "$@"
