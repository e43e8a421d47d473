"""``python -m tui.cli``: the ``mla-tui`` command."""

import sys

from tui.cli.main import main

sys.exit(main())
