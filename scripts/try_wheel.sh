#!/bin/sh
# Builds the wheel, installs it into an empty environment outside the clone, and does there what a newcomer does
# (first_hour.sh); then llama.cpp continues a text with the file that was exported, where node is installed.
#   sh scripts/try_wheel.sh PYTHON LLAMA      LLAMA: the folder of `make llama`
set -eu
python=$1 llama=$2
clone=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { "$work/empty/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

"$python" -m venv "$work/empty"
pip wheel --no-deps --wheel-dir "$work" "$clone"
pip install -c "$clone/constraints.txt" "$(ls "$work"/*.whl)[gguf]"
cd "$work" # not beside the source, which Python would import instead
export PATH="$work/empty/bin:$PATH" MLA_TUI_HOME="$work/state" XDG_CONFIG_HOME="$work/config"
mla-tui --version
mla-tui doctor || test $? = 1 # 1: it found something about this machine
mkdir texts
cp "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"/[a-d]*.py texts
sh "$clone/scripts/first_hour.sh" texts
if command -v node >/dev/null && [ -d "$llama/node_modules/node-llama-cpp" ]; then
  printf '{"model": "%s/mine.gguf", "greedy": [5, 6, 7], "count": 8}' "$work" | node "$clone/tests/llama/run.mjs" "$llama"
  echo ": llama.cpp continued three tokens with these eight"
else
  echo "llama.cpp did not run mine.gguf: node is not installed, or make llama has not been run"
fi
