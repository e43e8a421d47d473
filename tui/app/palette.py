"""The command palette: the actions of the screen it was opened on, found by name."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui.app import actions
from tui.app.base import AppScreen


class ActionProvider(Provider):
    """Offers every action of the registry that the screen below answers to here."""

    def _offered(self) -> Iterator[actions.Action]:
        screen = self.screen
        offered = screen.app.offered(getattr(screen, "place", actions.APP)) if isinstance(screen, AppScreen) else []
        return (a for a in offered if not a.natural and a.id != "palette")

    def _run(self, action: actions.Action) -> partial[Coroutine[Any, Any, bool]]:
        namespace = self.app if actions.APP in action.screens else self.screen
        return partial(self.app.run_action, action.call, namespace)

    async def discover(self) -> Hits:
        for action in self._offered():
            yield DiscoveryHit(_label(action), self._run(action), action.title, action.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._offered():
            score = matcher.match(f"{action.title} {action.help}")
            if score > 0:
                yield Hit(score, matcher.highlight(_label(action)), self._run(action), action.title, action.help)


def _label(action: actions.Action) -> str:
    return f"{action.title}  ({action.key_names})"
