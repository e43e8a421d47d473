"""Settings for all tests."""

import os

from hypothesis import settings

# What a test starts buffers its output as it does for a user; a test that wants another way says so.
os.environ.pop("PYTHONUNBUFFERED", None)

# A busy machine is no failure: how long an example takes is measured in tests/bench, never asserted.
settings.register_profile("no deadline", deadline=None)
# What CI says of a commit depends on the commit alone; new examples are drawn by make test and make faults.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("no deadline")
