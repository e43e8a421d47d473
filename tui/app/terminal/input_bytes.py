"""Keeps the app alive if the terminal sends bytes that are not UTF-8, as a Latin-1 terminal does for é.

Textual decodes its input strictly and has no setting for it: the first such byte would end its input thread and the
app. So the decoder that its driver creates is replaced here, and nowhere else, by one that turns the byte into �.
"""

from __future__ import annotations

import codecs
from functools import partial

from textual.drivers import linux_driver  # of macOS too


def _replacing_decoder(encoding: str) -> partial[codecs.IncrementalDecoder]:
    return partial(codecs.getincrementaldecoder(encoding), errors="replace")


def accept_any_bytes() -> None:
    """Decode what the terminal sends with replacement characters, from the next start of an app on."""
    linux_driver.__dict__["getincrementaldecoder"] = _replacing_decoder
