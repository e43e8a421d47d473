"""Says where a run goes on when its data is not that of its checkpoint: other shards, sources or weights."""

from __future__ import annotations

from data.cursor import Cursor, Place
from data.fingerprint import Fingerprint


def continued(cursor: Cursor, before: Fingerprint, after: Fingerprint) -> Cursor:
    """Return the cursor in the data ``after`` of a run that was at ``cursor`` in the data ``before``: a new segment.

    A source of a mixture whose shards are the same as before goes on where it was, whatever its weight and name are.
    All else starts an epoch that nothing has been read of; so does a phase alone, whose cursor could not say which
    epochs of other sources are read.
    """
    fresh = cursor.fresh_epoch
    places = cursor.sources or (Place("", cursor.epoch, cursor.position),)
    if not after.weights:
        return cursor.at_places(cursor.context, fresh, 0, ())
    read = dict(zip(before.sources("train").values(), places, strict=True))
    found = []
    for name, shards in after.sources("train").items():
        place = read.get(shards, Place("", fresh))
        found.append(Place(name, place.epoch, place.position))
    return cursor.at_places(cursor.context, fresh, 0, tuple(found))
