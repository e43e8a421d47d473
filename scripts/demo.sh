#!/bin/sh
# Launch the demo run and show it: in the app where there is a terminal, as plain lines where there is none.
set -eu
run=$("$BIN/mla-tui" launch -p cpu_demo)
if [ -t 0 ] && [ -t 1 ]; then
    exec "$BIN/mla-tui" attach "$run"
fi
"$BIN/mla-tui" watch "$run"
echo "a sample of what it writes:"
"$BIN/mla-tui" sample "models/$run" --prompt "def " --tokens 80
