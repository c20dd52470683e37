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
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from pvc.errors import LogDamaged, PvcError, Unavailable
from pvc.events.record import ZERO_HASH
from pvc.log.archived import SegmentSource
from pvc.log.history import HistoryIndex
from pvc.log.manifest import Manifest, check_records, describe
from pvc.log.segments import Chained, Sealed, Segments, check_chain
from pvc.node.removal import removal
from pvc.node.scrub import Scrub, records_of
from pvc.presence.base import Presence
from pvc.presence.hello import read_hello
from pvc.proof.merkle import EMPTY_ROOT, Frontier
from pvc.proof.scan import scan, split_hashes
from pvc.runtime.shelves import Shelf
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two passes: a segment takes a busy cluster a minute, and is in no hurry."""

RETRY_PAUSES = 6
"""So many pauses after something did not work."""

REPLICA_DEADLINE_S = 60.0
"""How long a repair waits for this node's replica to have what it has appended."""

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
    pause_s: float = LOOK_S
    waits_for: list[str] = msgspec.field(default_factory=list)
    """What keeps old segments in ZooKeeper, as the primary saw it last; empty: nothing."""
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
        self._scrub = Scrub(parts.history, parts.own, parts.source, parts.mended)
        self._frontier: Frontier | None = None
        """The tree at the last manifest's end, where this node has made that."""
        self._kept = 0
        """So many of them are in the own archive."""

    @property
    def archived(self) -> int:
        """The last position up to which everything is in this node's own archive."""
        return self._chain[self._kept - 1].manifest.last if self._kept else 0

    async def run(self) -> None:
        """Look, act, wait."""
        while True:
            pause_s = self._parts.pause_s
            if self._world.fault is None and self._world.state.cluster is not None:
                busy = await self._try(self._look_if_coordinator)
                # What keeps the one from going on may be what the other mends.
                mended = await self._try(self._scrub_one)
                pause_s *= RETRY_PAUSES if busy is None or mended is None else 0 if busy else 1
            await asyncio.sleep(pause_s)

    async def _look_if_coordinator(self) -> bool:
        return self._is_coordinator() and await self.look()

    async def _scrub_one(self) -> bool:
        await self._learn_manifests()
        shared = self._parts.shared if self._epoch() is not None else ()
        await self._scrub.step(self._chain, archives=self._is_coordinator(), shared=shared)
        return True

    async def _try(self, work: Callable[[], Awaitable[bool]]) -> bool | None:
        """What the work says; None where it could not be done."""
        try:
            return await work()
        except LogDamaged as error:
            logger.critical("archive: stopped code=%s error=%s", error.code, error.message)
        except PvcError as error:
            logger.warning("archive: cannot go on yet error=%s", error.message)
        return None

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

    async def look_alone(self) -> None:
        """One pass while the log is filled by a repair or a restore, and no other node can fold it: what is in the own
        archive leaves ZooKeeper, which cannot hold a long log. Raises PvcError."""
        sealed = await self._parts.segments.sealed()
        await self._learn_manifests()
        if sealed and len(sealed) > 2 * self._parts.hot_segments:
            await self._parts.history.reach(sealed[-self._parts.hot_segments].last, REPLICA_DEADLINE_S)
        await self._describe(sealed)
        while await self._keep_own():
            pass
        for segment in sealed[: max(0, len(sealed) - self._parts.hot_segments)]:
            if segment.last <= self.archived:
                await self._parts.segments.remove(segment)

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
            records = await records_of(self._parts.history, segment.first, segment.last)
            if len(records) < segment.last - segment.first + 1:
                raise _not_there(segment.first + len(records))
            frontier = await self._grown(before, segment, records)
            root = frontier.root()
            manifest = describe(
                segment.first,
                records,
                incarnation=self._parts.incarnation(),
                root=root,
                previous=before.hash if before else b"",
                sealed_by=self._node,
                note=await self._sign(segment.last, root),
            )
            self._chain.append(await self._parts.segments.publish(manifest))
            self._frontier = frontier

    async def _grown(self, before: Chained | None, segment: Sealed, records: Sequence[bytes]) -> Frontier:
        """The tree at the segment's end: from the last manifest's and these records, which are seen to be ZooKeeper's
        by the chain that ends at its head. So a damaged replica cannot get into a manifest."""
        portion = await asyncio.to_thread(scan, segment.first, records)
        frontier, self._frontier = self._frontier, None
        if frontier is None or frontier.size != segment.first - 1:
            frontier = await self._parts.history.frontier(segment.first - 1)
        if (
            portion.findings
            or portion.before != (before.manifest.hash if before else ZERO_HASH)
            or portion.head != segment.head.hash
            or frontier.root() != (before.manifest.root if before else EMPTY_ROOT)
        ):
            raise LogDamaged(
                f"this node's replica of the records up to {segment.last} is not what ZooKeeper holds",
                code="log.replica_differs",
                hint="`pvc log verify` on this node names the record; the replica mends itself from the archive",
            )
        for leaf in split_hashes(portion.leaves):
            frontier.append(leaf)
        return frontier

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
            records = await records_of(self._parts.history, manifest.first, manifest.last)
            try:
                check_records(records, manifest)
            except LogDamaged as error:
                logger.error("archive: the replica is damaged, taking a copy error=%s", error.message)
            else:
                return records
        return await self._parts.source.fetch(manifest)

    async def _remove(self, sealed: Sequence[Sealed]) -> None:
        """Take out of ZooKeeper what is old enough and safe elsewhere."""
        old = sealed[: max(0, len(sealed) - self._parts.hot_segments)]
        self._parts.waits_for.clear()
        if not old:
            return
        members = await self._presence.members()
        hellos = {name: read_hello(member.hello) for name, member in members.items()}
        may = removal(self._world.state, hellos, self._node, self.archived, shared=bool(self._parts.shared))
        for segment in old:
            if segment.last > may.position:
                self._parts.waits_for.append(may.waits_for)
                return
            await self._parts.segments.remove(segment)

    def _is_coordinator(self) -> bool:
        own = self._world.state.nodes.get(self._node)
        return own is not None and own.coordinator


def _not_there(position: int) -> Unavailable:
    return Unavailable(
        f"record {position} is not in this node's replica",
        code="history.behind",
        hint="it is filled again from the log by itself",
    )


def _span(manifest: Manifest) -> tuple[int, int]:
    return manifest.first, manifest.last
