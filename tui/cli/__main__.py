"""Runs the ``mla-tui`` command: ``python -m tui.cli``."""

import sys

from mla_tui import main

sys.exit(main())
