#!/usr/bin/env bash
# Everything that needs a GPU, in calls of at most ten minutes: tests/gpu/run.sh [tests|memory|bench] [OUT]
# Needs python3 with torch (CUDA), numpy, safetensors, psutil and pytest; the package itself is taken from this tree.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=${1:-tests}
out=${2:-${OUT:-.}}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
case $what in
  tests) exec timeout 580 python3 -m pytest -q -rs -p no:cacheprovider tests/gpu ;;
  memory) exec timeout 580 python3 tests/gpu/memory.py "$out/gpu-memory.md" ;;
  bench) exec timeout 580 python3 tests/gpu/bench.py "$out/gpu-bench.md" ;;
  *) echo "run.sh: $what is not one of tests, memory, bench" >&2; exit 2 ;;
esac
