"""Looks after the copies of the log: one segment at a time, replica and archives, round and round.

A disk may give back other bytes than were written, and an archive may still have those of a log that was given up.
Nobody would notice before the copy is needed, and it may then be the last one; so each is compared with its manifest
while there are others to mend it from.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import MutableSequence, Sequence

from pvc.archive.base import DamagedCopy
from pvc.errors import LogDamaged, NotFound, Unavailable
from pvc.log.archived import SegmentSource
from pvc.log.history import HistoryIndex
from pvc.log.manifest import Manifest, check_records
from pvc.log.segments import Chained
from pvc.runtime.shelves import Shelf

logger = logging.getLogger(__name__)

NAMED = 5
"""Records that are named, of those that were damaged in one segment."""


class Scrub:
    """Where it is in its round."""

    def __init__(self, history: HistoryIndex, own: Shelf, source: SegmentSource, told: MutableSequence[str]) -> None:
        """`told`: what was mended is added there, in words."""
        self._history = history
        self._own = own
        self._source = source
        self._told = told
        self._next = 0
        self._clean = True
        """Nothing was mended in this round."""
        self._suspected = False
        """The tree did not fit at the end of the last round."""
        self._made_anew: set[int] = set()
        """Ends of the manifests for whose sake the replica was made anew: it helps once, or not at all."""

    async def step(self, manifests: Sequence[Chained], *, archives: bool, shared: Sequence[Shelf] = ()) -> None:
        """Look at the next segment; `archives`: whether this node has an archive, `shared`: those of all nodes that it
        is to look after. Raises Unavailable."""
        if not manifests:
            return
        if self._next >= len(manifests):
            self._next, clean = 0, self._clean
            self._clean = True
            if clean:
                await self._look_at_tree(manifests[-1].manifest)
        manifest = manifests[self._next].manifest
        if archives:
            await self._look_at_archive(self._own, manifest)
        if self._history.position >= manifest.last:
            await self._look_at_replica(manifest)
        for shelf in shared:
            with contextlib.suppress(Unavailable):  # Ceph may be down for long; the next round looks again
                await self._look_at_archive(shelf, manifest)
        self._next += 1

    async def _look_at_archive(self, shelf: Shelf, manifest: Manifest) -> None:
        try:
            await shelf.fetch(manifest)
        except NotFound:
            return  # the archivist brings it
        except (DamagedCopy, LogDamaged) as error:
            logger.error("scrub: damaged copy where=%r error=%s", shelf.title, error.message)
            good = await self._source.fetch(manifest) if not await self._replica_is_good(manifest) else None
            records = good if good is not None else await records_of(self._history, manifest.first, manifest.last)
            await shelf.discard(manifest)
            await shelf.keep(manifest, records)
            self._tell(f"records {manifest.first} to {manifest.last} in the {shelf.title}")

    async def _replica_is_good(self, manifest: Manifest) -> bool:
        if self._history.position < manifest.last:
            return False
        try:
            check_records(await records_of(self._history, manifest.first, manifest.last), manifest)
        except LogDamaged:
            return False
        return True

    async def _look_at_replica(self, manifest: Manifest) -> None:
        if not await self._replica_is_good(manifest):
            logger.error("scrub: damaged replica first=%d last=%d", manifest.first, manifest.last)
            good = await self._source.fetch(manifest)
            mended = await self._history.mend(manifest.first, good)
            named = ", ".join(map(str, mended[:NAMED])) + (" and more" if len(mended) > NAMED else "")
            self._tell(f"record {named} of this node's replica")

    async def _look_at_tree(self, manifest: Manifest) -> None:
        """At the end of a round in which all records were good, the tree over them must be the manifest's."""
        if self._history.position < manifest.last or await self._history.root(manifest.last) == manifest.root:
            self._suspected = False
            return
        if manifest.last in self._made_anew:
            raise LogDamaged(
                f"the manifest of the records {manifest.first} to {manifest.last}, by {manifest.sealed_by}, "
                "has another tree than this node's replica, which was made anew from the log",
                code="log.manifest_differs",
                hint="compare with `pvc log verify` on each node, and with an anchored checkpoint",
            )
        if not self._suspected:  # a record may have been damaged behind this round; the next one would find it
            self._suspected = True
            return
        logger.error("scrub: the replica's tree is damaged size=%d", manifest.last)
        self._suspected = False
        self._made_anew.add(manifest.last)
        self._history.begin_anew()
        self._tell(f"the tree over the first {manifest.last} records of this node's replica, which is filled anew")

    def _tell(self, what: str) -> None:
        self._clean = self._suspected = False
        logger.warning("scrub: mended %s", what)
        self._told.append(what)


async def records_of(history: HistoryIndex, first: int, last: int) -> list[bytes]:
    """The replica's records; fewer where some are missing. Raises Unavailable."""
    records: list[bytes] = []
    while len(records) < last - first + 1:
        found = await history.read(first + len(records), last - first + 1 - len(records))
        if not found:
            break
        records += found
    return records
