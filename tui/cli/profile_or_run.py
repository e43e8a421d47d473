"""Finds what an argument names: a profile, or a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.errors import SpecError, UserError

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from profiles.spec import RunSpec


def find_profile_or_run(what: str) -> tuple[RunSpec, RunDir | None]:
    """Return the spec of the profile ``what``, or of the run if there is no such profile. Raises ``UserError``."""
    from engine.runs.store import RunStore
    from profiles import registry

    if what in registry.names() or what.endswith(".toml"):
        return registry.load(what), None
    try:
        run = RunStore().find(what)
    except UserError as error:
        raise SpecError(f"{what!r}: not a profile ({', '.join(registry.names())}), nor a run: {error}") from None
    return run.spec(), run
