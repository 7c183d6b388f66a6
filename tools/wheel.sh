#!/usr/bin/env bash
# The wheel and the sdist, built, checked, and tried from an empty environment in an empty folder: tools/wheel.sh [wheel|sdist]…
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

rm -rf dist
python3 -m venv "$work/build"
"$work/build/bin/pip" install -q -c constraints.txt build twine
"$work/build/bin/python" -m build -q .
"$work/build/bin/twine" check --strict dist/*

for kind in "${@:-wheel}"; do
  case $kind in
    wheel) file=(dist/*.whl) ;;
    sdist) file=(dist/*.tar.gz) ;;
    *) echo "tools/wheel.sh: $kind is neither wheel nor sdist" >&2; exit 2 ;;
  esac
  echo "== $(basename "${file[0]}") in an empty environment"
  python3 -m venv "$work/$kind"
  "$work/$kind/bin/pip" install -q -c constraints.txt "$root/${file[0]}"
  mkdir "$work/empty-$kind"
  (
    cd "$work/empty-$kind"
    bin=$work/$kind/bin
    "$bin/iga" --version
    "$bin/python" - <<'PYTHON'
import sys

import iga

heavy = {"torch", "numba", "triton", "matplotlib", "hypothesis"} & set(sys.modules)
assert not heavy, f"import iga loads {heavy}"
PYTHON
    "$bin/iga" verify
    "$bin/iga" bounds >bounds.txt
    "$bin/iga" bench --quick >bench.txt
  )
done
