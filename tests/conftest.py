"""Settings for all tests."""

from hypothesis import settings

# A busy machine is no failure: how long an example takes is measured in tests/bench, never asserted.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
