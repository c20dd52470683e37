"""What an archivist does with a log in simulation: describe what is sealed, keep it, take it out of ZooKeeper.

Every client may do it at any time, side by side with others, and die in the midst of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pvc.errors import Unavailable
from pvc.events.record import Entry
from pvc.log.manifest import Manifest, check_records, describe
from pvc.log.segments import check_chain
from pvc.log.zookeeper import ZookeeperLog

FETCH_S = 0.02
"""What an archive takes for a segment."""


class SimArchive:
    """One archive for all, which never fails: what is tried is the log."""

    def __init__(self, note: Callable[[str], object]) -> None:
        self._kept: dict[bytes, list[bytes]] = {}
        """By the digest of the records."""
        self._note = note

    async def fetch(self, manifest: Manifest) -> list[bytes]:
        """The segment's records."""
        await asyncio.sleep(FETCH_S)
        records = self._kept.get(manifest.digest)
        if records is None:
            raise Unavailable(f"segment {manifest.first} is not in the archive", code="log.archived")
        check_records(records, manifest)
        return records

    async def take_over(self, log: ZookeeperLog, replica: Sequence[Entry], name: str) -> None:
        """One pass over the segments, as far as the replica goes. Raises Unavailable, LogDamaged."""
        chain = await log.segments.manifests(0)
        for before, chained in zip([None, *chain], chain, strict=False):
            check_chain(before, chained.manifest)
        sealed = await log.segments.sealed()
        for segment in sealed:
            if chain and segment.last <= chain[-1].manifest.last:
                continue
            if segment.last > len(replica):
                break
            records = [entry.data for entry in replica[segment.first - 1 : segment.last]]
            manifest = describe(
                segment.first,
                records,
                incarnation=log.incarnation,
                root=b"",
                previous=chain[-1].hash if chain else b"",
                sealed_by=name,
            )
            self._kept[manifest.digest] = records
            await asyncio.sleep(FETCH_S)
            chain.append(await log.segments.publish(manifest))
            self._note(f"{name} has archived {segment.first} to {segment.last}")
        described = {chained.manifest.first for chained in chain}
        for segment in sealed[:-1]:
            if segment.first in described:
                removed = await log.segments.remove(segment)
                self._note(f"{name} has removed {removed} records of segment {segment.first}")
