"""Replaces the key bindings of a live screen or of the app.

Textual's own keymap is applied only after a focused text field was asked which keys are letters to it, so a letter the
user has set would run its action while they type. Textual has no public way to replace the bindings of a node: so
``_merged_bindings`` (those of the class) and ``_bindings`` (those of the instance), used here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping

from textual.dom import DOMNode


def rebind(node: DOMNode, keys: Mapping[str, tuple[str, ...]]) -> None:
    """Give ``node`` the bindings of its class, with ``keys`` (by binding id) in place of their keys."""
    if (merged := type(node)._merged_bindings) is not None:
        node._bindings = merged.copy()
        node._bindings.apply_keymap({id: ",".join(own) for id, own in keys.items()})
