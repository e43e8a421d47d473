"""Delivers keys one at a time, each after the previous one has taken effect.

Textual sends a key to the widget that has the focus when the key arrives. A slow connection delivers several keys at
once: of ``/`` and the words of a search, the words would act as commands of the screen instead of reaching the field
that ``/`` opens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import App
from textual.events import Event
from textual.message_pump import MessagePump

_TIMEOUT = 1.0  # seconds the next key waits for the previous one; a stuck widget must not lock the keyboard


class KeyQueue:
    """Passes keyboard events to ``handler``, each after the previous one has been handled."""

    def __init__(self, app: App[Any], handler: Callable[[Event], Awaitable[None]]) -> None:
        self._app = app
        self._handler = handler
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        self._queue.put_nowait(event)

    async def deliver(self) -> None:
        """Deliver events until the app ends."""
        while True:
            event = await self._queue.get()
            target = self._app.focused or self._app.screen
            await self._handler(event)
            if not self._queue.empty():
                await self._wait_until_handled(target)

    async def _wait_until_handled(self, target: MessagePump) -> None:
        """Wait until ``target``, its ancestors and a screen opened by the event have processed their messages."""
        app = self._app
        try:
            async with asyncio.timeout(_TIMEOUT):
                for node in getattr(target, "ancestors_with_self", ()):
                    await _drained(node)
                # A new screen is composed, asks the app for the focus, and receives it.
                for node in (app.screen, app, app.screen):
                    await _drained(node)
        except TimeoutError:
            pass


async def _drained(node: MessagePump) -> None:
    """Wait until ``node`` has processed the messages that are in its queue now."""
    done = asyncio.Event()
    if node.call_later(done.set):
        await done.wait()
