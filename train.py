"""The trainer in the foreground, under the name and with the flags launchers know; the same as ``mla-tui train``."""

import sys

from tui.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
