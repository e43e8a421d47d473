"""Imports asyncio without OpenSSL, which takes 4 MB and which sockets of this machine do not use.

Import it before anything that imports asyncio, in a program that keeps running. asyncio works without ssl where Python
was built without it; ssl itself can be imported afterwards, by a library that needs it.
"""

from __future__ import annotations

import sys

if "asyncio" not in sys.modules and "ssl" not in sys.modules:
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
