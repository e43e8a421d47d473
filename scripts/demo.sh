#!/bin/sh
# Launch the demo run and follow it: in the app on a terminal, else as plain lines.
set -eu
run=$("$BIN/mla-tui" launch -p cpu_demo)
if [ -t 0 ] && [ -t 1 ]; then
    exec "$BIN/mla-tui" attach "$run"
fi
"$BIN/mla-tui" watch "$run"
echo "sample text:"
"$BIN/mla-tui" sample "models/$run" --prompt "def " --tokens 80
