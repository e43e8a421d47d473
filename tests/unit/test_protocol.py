"""docs/protocol.md, the reference of the log and the socket, is what the types say."""

from __future__ import annotations

from scripts.protocol import PAGE, page


def test_the_page_is_as_the_types_are() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make protocol"
