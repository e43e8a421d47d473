#!/usr/bin/env bash
# The measurements that need a GPU, in four calls that each end within nine minutes and print their tables last; they are
# also written to $OUT (default: out).
#   tests/gpu/run.sh A|B|C|D [--wheels FOLDER] [--dry-run]
# A: the tests, compile and DeepSpeed, the matmul peak, the longest kernels. B: what each fusion gains. C: speed under a cap
# of 16 GiB. D: peaks beside their forecast, and the longest context.
# Needs python3 with torch (CUDA), numpy, safetensors, psutil, msgspec, nvidia-ml-py, tokenizers and pytest; torchao and
# deepspeed for the rows with 8-bit states and offload. --wheels: a folder of wheels of what is missing, for a machine
# without a network. --dry-run: small, on a machine without a card.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=${1:-} dry='' wheels='' out=${OUT:-out}
usage() { echo "run.sh: $1; use tests/gpu/run.sh A|B|C|D [--wheels FOLDER] [--dry-run]" >&2; exit 2; }
[[ $what == [ABCD] ]] || usage "'$what' is not one of A, B, C, D"
shift
while (($#)); do
  case $1 in
    --dry-run) dry=$1 ;;
    --wheels) wheels=${2:-}; [[ -d $wheels ]] || usage "'$wheels' is not a folder of wheels"; shift ;;
    *) usage "'$1' is not an option" ;;
  esac
  shift
done
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
if [[ -n $wheels ]]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
  export PYTHONPATH=$PYTHONPATH:$site
fi
mkdir -p "$out"
# The measurements limit their own time; this is for a hang. A dry run takes what a loaded machine needs.
limit() { timeout -k 5 "$([[ -n $dry ]] && echo 3600 || echo "$1")" "${@:2}"; }
failed=0 left=530
if [[ $what == A ]]; then
  limit 240 python3 -m pytest -q -rs -p no:cacheprovider ${dry:+-k bf16_learns} tests/gpu | tee "$out/gpu-tests.txt" || failed=1
  left=290
fi
limit $left python3 tests/gpu/measure.py "$what" "$out" ${dry:+"$dry"} || failed=1
exit $failed
