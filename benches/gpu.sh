#!/usr/bin/env bash
# The whole GPU round in one call of at most 9 minutes: benches/gpu.sh FOLDER. Results, logs and a summary of the steps
# go to FOLDER; a step that fails or runs out of time is recorded, and the next one begins.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: benches/gpu.sh FOLDER [--device cpu --dry-run]" >&2; exit 2; }
cd "$(dirname "$0")/.."
folder=$(realpath -m "$1")
shift
python=${PYTHON:-python}
if [ -x .venv/bin/python ] && [ -z "${PYTHON:-}" ]; then python=.venv/bin/python; fi
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "$python" benches/gpu_round.py "$folder" "$@"
