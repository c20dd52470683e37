"""The archivist: keeps a node's copies of the log's sealed segments, and takes out of ZooKeeper what is safe elsewhere.

One pass: describe what was sealed (any coordinator, in order), keep what is described in the own archive (every
coordinator) and in the shared one (the primary), remove from ZooKeeper what all have (the primary). Every step is found
done or not done by looking, so that it does not matter where the last pass was broken off, or who else does the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from pvc.errors import LogDamaged, PvcError, Unavailable
from pvc.log.archived import SegmentSource
from pvc.log.history import HistoryIndex
from pvc.log.manifest import Manifest, check_records, describe
from pvc.log.segments import Chained, Sealed, Segments, check_chain
from pvc.presence.base import Member, Presence
from pvc.presence.hello import read_hello
from pvc.projections.state import ClusterState
from pvc.runtime.shelves import Shelf
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two passes: a segment takes a busy cluster a minute, and is in no hurry."""

RETRY_S = 30.0
"""After something did not work."""

KEPT_PER_PASS = 64
"""Segments written into an archive in one pass; a coordinator that comes late has thousands to fetch."""


class ArchiveParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the archivist needs besides the node's own."""

    segments: Segments
    history: HistoryIndex
    own: Shelf
    shared: tuple[Shelf, ...]
    source: SegmentSource
    hot_segments: int
    incarnation: Callable[[], str]
    mended: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=20))
    """What was replaced by good copies, in words, the newest last."""


async def unsigned(size: int, root: bytes) -> str:
    """The signature of a node that has no key."""
    return ""


class Archivist:
    """One coordinator's part; `run` until cancelled."""

    def __init__(
        self,
        node: str,
        world: World,
        parts: ArchiveParts,
        presence: Presence,
        *,
        epoch: Callable[[], int | None],
        sign: Callable[[int, bytes], Awaitable[str]],
    ) -> None:
        """`epoch`: of the term in which this node acts for the cluster, None outside of one; `sign`: a signed
        checkpoint of a root at a size, empty where this node has no key."""
        self._node = node
        self._world = world
        self._parts = parts
        self._presence = presence
        self._epoch = epoch
        self._sign = sign
        self._chain: list[Chained] = []
        """All manifests, checked one against the next."""
        self._kept = 0
        """So many of them are in the own archive."""

    @property
    def archived(self) -> int:
        """The last position up to which everything is in this node's own archive."""
        return self._chain[self._kept - 1].manifest.last if self._kept else 0

    @property
    def manifests(self) -> Sequence[Chained]:
        """Those known, from the first on."""
        return self._chain

    async def run(self) -> None:
        """Look, act, wait."""
        while True:
            pause_s = LOOK_S
            if self._is_coordinator() and self._world.fault is None:
                try:
                    if await self.look():
                        pause_s = 0.0  # there is more of it
                except LogDamaged as error:
                    logger.critical("archive: stopped code=%s error=%s", error.code, error.message)
                    pause_s = RETRY_S
                except PvcError as error:
                    logger.warning("archive: cannot go on yet error=%s", error.message)
                    pause_s = RETRY_S
            await asyncio.sleep(pause_s)

    async def look(self) -> bool:
        """One pass; whether there is more to do at once. Raises PvcError."""
        sealed = await self._parts.segments.sealed()
        await self._learn_manifests()
        await self._describe(sealed)
        busy = await self._keep_own()
        if self._epoch() is not None:
            for shelf in self._parts.shared:
                with contextlib.suppress(Unavailable):  # Ceph may be down, and its VMs be started by this very cluster
                    busy |= await self._keep_shared(shelf)
            await self._remove(sealed)
        return busy

    async def _learn_manifests(self) -> None:
        known = self._chain[-1].manifest.last if self._chain else 0
        for chained in await self._parts.segments.manifests(known):
            check_chain(self._chain[-1] if self._chain else None, chained.manifest)
            self._chain.append(chained)

    async def _describe(self, sealed: Sequence[Sealed]) -> None:
        """Publish the manifests of what was sealed since."""
        for segment in sealed:
            before = self._chain[-1] if self._chain else None
            first = before.manifest.last + 1 if before else 1
            if segment.first < first:
                continue
            if segment.first != first:
                raise LogDamaged(
                    f"the records {first} to {segment.first - 1} are neither in ZooKeeper nor in a manifest",
                    code="log.gap",
                    hint="restore the log from a node's replica: `pvc log repair`",
                )
            if self._parts.history.position < segment.last:
                return  # the next pass will find it there
            records = await self._from_replica(segment.first, segment.last)
            root = await self._parts.history.root(segment.last)
            manifest = describe(
                segment.first,
                records,
                incarnation=self._parts.incarnation(),
                root=root,
                previous=before.hash if before else b"",
                sealed_by=self._node,
                note=await self._sign(segment.last, root),
            )
            if manifest.head != segment.head or (before and manifest.before != before.manifest.hash):
                raise LogDamaged(
                    f"this node's replica of the records {segment.first} to {segment.last} is not what ZooKeeper holds",
                    code="log.replica_differs",
                    hint="`pvc log verify` on this node names the record; the replica mends itself from the archive",
                )
            self._chain.append(await self._parts.segments.publish(manifest))

    async def _keep_own(self) -> bool:
        """Keep what is described and not yet in the own archive, in order; whether there is more."""
        spans = await self._parts.own.spans()
        self._kept = 0  # a copy that was found damaged has been set aside
        for _ in range(KEPT_PER_PASS):
            while self._kept < len(self._chain) and _span(self._chain[self._kept].manifest) in spans:
                self._kept += 1
            if self._kept == len(self._chain):
                return False
            manifest = self._chain[self._kept].manifest
            await self._parts.own.keep(manifest, await self.records_of(manifest))
            self._kept += 1
        return True

    async def _keep_shared(self, shelf: Shelf) -> bool:
        spans = await shelf.spans()
        missing = [one.manifest for one in self._chain[: self._kept] if _span(one.manifest) not in spans]
        for manifest in missing[:KEPT_PER_PASS]:
            await shelf.keep(manifest, await self.records_of(manifest))
        return len(missing) > KEPT_PER_PASS

    async def records_of(self, manifest: Manifest) -> list[bytes]:
        """The records of a segment, from the replica or whoever else has them; checked. Raises Unavailable."""
        if self._parts.history.position >= manifest.last:
            records = await self._from_replica(manifest.first, manifest.last)
            try:
                check_records(records, manifest)
            except LogDamaged as error:
                logger.error("archive: the replica is damaged, taking a copy error=%s", error.message)
            else:
                return records
        return await self._parts.source.fetch(manifest)

    async def _from_replica(self, first: int, last: int) -> list[bytes]:
        records: list[bytes] = []
        while len(records) < last - first + 1:
            found = await self._parts.history.records(first + len(records), last - first + 1 - len(records))
            if not found:
                raise Unavailable(
                    f"record {first + len(records)} is not in this node's replica",
                    code="history.behind",
                    hint="it is filled again from the log by itself",
                )
            records += found
        return records

    async def _remove(self, sealed: Sequence[Sealed]) -> None:
        """Take out of ZooKeeper what is old enough and safe elsewhere."""
        old = sealed[: max(0, len(sealed) - self._parts.hot_segments)]
        if not old:
            return
        safe = safe_position(self._world.state, await self._presence.members(), self._node, self.archived)
        for segment in old:
            if segment.last <= safe:
                await self._parts.segments.remove(segment)

    def _is_coordinator(self) -> bool:
        own = self._world.state.nodes.get(self._node)
        return own is not None and own.coordinator


def safe_position(state: ClusterState, members: Mapping[str, Member], own_name: str, own_archived: int) -> int:
    """Up to which position records may leave ZooKeeper: every node that is there has folded them, every coordinator
    that is there has them in its archive, and these are a majority of the coordinators. 0: none. Pure."""
    coordinators = {node.name for node in state.nodes.values() if node.coordinator}
    hellos = {name: read_hello(member.hello) for name, member in members.items()}
    present = [name for name in coordinators if hellos.get(name) is not None]
    if len(present) * 2 <= len(coordinators):
        return 0
    positions: list[int] = []
    for name, hello in hellos.items():
        if hello is None:  # of another version, that cannot say
            return 0
        positions.append(hello.position)
        if name in coordinators:
            positions.append(own_archived if name == own_name else hello.archived)
    return min(positions, default=0)


def _span(manifest: Manifest) -> tuple[int, int]:
    return manifest.first, manifest.last
