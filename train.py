"""Trains in the foreground, as ``mla-tui train`` does, under the file name and flags that launchers expect."""

import sys

from tui.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
