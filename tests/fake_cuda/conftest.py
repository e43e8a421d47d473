"""These tests need the fake card in every process: ``make fake-cuda``. Elsewhere none of them is collected."""

import sys

if "tests.fake_cuda.driver" not in sys.modules:
    collect_ignore_glob = ["test_*.py"]
