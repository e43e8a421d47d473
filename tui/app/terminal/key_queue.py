"""Keys typed faster than they are answered go to where the earlier ones lead.

Textual hands a key to the widget that has the focus when the key arrives. A slow line delivers several at once: of
``/`` and the words of a search, the words would be commands to the screen below the field.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import App
from textual.events import Event
from textual.message_pump import MessagePump

_PATIENCE = 1.0  # seconds for which the next key waits for the one before; a stuck widget must not lock the keyboard


class KeyQueue:
    """Hands events of the keyboard on by ``hand``, each when the one before it has been answered."""

    def __init__(self, app: App[Any], hand: Callable[[Event], Awaitable[None]]) -> None:
        self._app = app
        self._hand = hand
        self._waiting: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        self._waiting.put_nowait(event)

    async def hand_on(self) -> None:
        """As long as the app stands."""
        while True:
            event = await self._waiting.get()
            target = self._app.focused or self._app.screen
            await self._hand(event)
            if not self._waiting.empty():
                await self._answered(target)

    async def _answered(self, target: MessagePump) -> None:
        """Wait until what ``target`` was handed is done with: by it, by whom it rises to, and by a screen it opened."""
        app = self._app
        try:
            async with asyncio.timeout(_PATIENCE):
                for node in getattr(target, "ancestors_with_self", ()):
                    await _passed(node)
                # A new screen is composed, asks the app for the focus, and is given it.
                for node in (app.screen, app, app.screen):
                    await _passed(node)
        except TimeoutError:
            pass


async def _passed(node: MessagePump) -> None:
    """Wait until ``node`` has been through what lies before it now."""
    done = asyncio.Event()
    if node.call_later(done.set):
        await done.wait()
