#!/usr/bin/env bash
# Runs everything that needs a GPU, in calls of at most ten minutes; writes tables and numbers to $OUT (default: out).
#   tests/gpu/run.sh tests|matmul|ablation|memory|forecast|longctx|all [--dry-run]
# "all" divides ten minutes among them and reports what it had no time for; a single one measures more.
# Needs python3 with torch (CUDA), numpy, safetensors, psutil, nvidia-ml-py and pytest, and torchao for the rows with
# 8-bit states; the package is imported from this tree. --dry-run: small, on a machine without a card.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=${1:-} dry=${2:-} out=${OUT:-out}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
[[ -z $dry || $dry == --dry-run ]] || { echo "run.sh: $dry is not --dry-run" >&2; exit 2; }

tests() { mkdir -p "$out"; timeout -k 5 "$1" python3 -m pytest -q -rs -p no:cacheprovider tests/gpu | tee "$out/gpu-tests.txt"; }
# The script limits its own time; timeout is for a hang.
measure() { timeout -k 5 "$(($2 + 15))" python3 tests/gpu/measure.py "$1" "$out" --seconds "$2" ${dry:+"$dry"}; }

case $what in
  tests) tests 580 ;;
  matmul | ablation | memory | forecast | longctx) measure "$what" 560 ;;
  all)
    failed=0
    for part in "tests 60" "matmul 40" "ablation 140" "memory 120" "forecast 110" "longctx 100"; do
      echo "== $part s"
      read -r name seconds <<<"$part"
      if [[ $name == tests ]]; then tests "$seconds"; else measure "$name" "$((seconds - 15))"; fi || failed=1
    done
    exit $failed
    ;;
  *) echo "run.sh: '$what' is not one of tests, matmul, ablation, memory, forecast, longctx, all" >&2; exit 2 ;;
esac
