"""Provides the command palette with the actions of the screen on which it was opened."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui.app.actions.action import Action
from tui.app.base import AppScreen


class ActionProvider(Provider):
    """Offers every action of the screen below, except the keys of its lists and texts."""

    def _offered(self) -> Iterator[Action]:
        screen = self.screen
        if isinstance(screen, AppScreen):
            described = {action.id for action in screen.actions.described}
            for action in screen.app.offered(screen.actions):
                if action.id not in described and action.id != "palette":
                    yield action

    def _run(self, action: Action) -> partial[Coroutine[Any, Any, bool]]:
        return partial(self.app.run_action, action.call, self.screen)

    async def discover(self) -> Hits:
        for action in self._offered():
            yield DiscoveryHit(_label(action), self._run(action), action.title, action.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._offered():
            score = matcher.match(f"{action.title} {action.help}")
            if score > 0:
                yield Hit(score, matcher.highlight(_label(action)), self._run(action), action.title, action.help)


def _label(action: Action) -> str:
    return f"{action.title}  ({action.key_names})"
