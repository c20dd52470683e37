"""Says where this node's log is: in ZooKeeper, in archives, on the other nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from pvc.daemon.config import Config
from pvc.daemon.logs import LogCopies
from pvc.errors import PvcError
from pvc.log.base import Log
from pvc.log.history import HistoryIndex
from pvc.log.segments import Chained
from pvc.node.archivist import ArchiveParts
from pvc.presence.base import Presence
from pvc.presence.hello import read_hello
from pvc.projections.state import ClusterState
from pvc.runtime.log_care import ArchiveInfo, FetchedInfo, LogStatus, NodeCopy, SegmentInfo, SegmentState
from pvc.runtime.shelves import Shelf
from pvc.runtime.world import World

if TYPE_CHECKING:
    from pvc.log.zookeeper import ZookeeperLog


async def log_status(
    config: Config,
    world: World,
    log: Log,
    history: HistoryIndex,
    copies: LogCopies,
    presence: Presence,
    parts: ArchiveParts | None,
) -> LogStatus:
    """Ask everybody. Raises Unavailable, LogDamaged where ZooKeeper's part cannot be read."""
    common = LogStatus(
        kind=config.log.kind,
        position=world.position,
        replica_position=history.position,
        replica_bytes=_size_of(config),
        fetched=tuple(
            FetchedInfo(title=title, segments=one.segments, size_bytes=one.size_bytes)
            for title, one in copies.all.fetched.items()
        ),
        damage=tuple(copies.all.damage),
        mended=tuple(parts.mended) if parts is not None else (),
        waits_for=", ".join(parts.waits_for) if parts is not None else "",
        nodes=await _nodes(world.state, presence),
    )
    if config.log.kind != "zookeeper":
        return common
    from pvc.log.quota import MIB
    from pvc.log.zookeeper import ZookeeperLog

    assert isinstance(log, ZookeeperLog), "opened so"
    await log.head()
    manifests = await log.segments.manifests(0)
    segments = await _segments(log, manifests[-1].manifest.last if manifests else 0)
    return msgspec.structs.replace(
        common,
        incarnation=log.incarnation,
        quota_records=config.log.quota_records,
        quota_bytes=config.log.quota_mib * MIB,
        held_by=log.held_by,
        segments=segments,
        archived_segments=len(manifests),
        archived_position=manifests[-1].manifest.last if manifests else 0,
        removed_position=segments[0].first - 1 if segments else 0,
        archives=tuple([await _archive(shelf, manifests) for shelf in (copies.own, *copies.shared)]),
    )


async def _segments(log: ZookeeperLog, described: int) -> tuple[SegmentInfo, ...]:
    sealed = [
        SegmentInfo(
            first=one.first,
            last=one.last,
            size_bytes=one.size_bytes,
            state=SegmentState.DESCRIBED if one.last <= described else SegmentState.SEALED,
        )
        for one in await log.segments.sealed()
    ]
    first, last, size_bytes = log.active_segment
    return (*sealed, SegmentInfo(first=first, last=last, size_bytes=size_bytes, state=SegmentState.ACTIVE))


async def _archive(shelf: Shelf, manifests: Sequence[Chained]) -> ArchiveInfo:
    try:
        spans = await shelf.spans()
    except PvcError as error:
        return ArchiveInfo(title=shelf.title, segments=0, missing=len(manifests), problem=error.message)
    found = sum((one.manifest.first, one.manifest.last) in spans for one in manifests)
    return ArchiveInfo(title=shelf.title, segments=found, missing=len(manifests) - found)


async def _nodes(state: ClusterState, presence: Presence) -> tuple[NodeCopy, ...]:
    try:
        members = await presence.members()
    except PvcError:
        return ()
    copies = []
    for name, member in sorted(members.items()):
        hello, node = read_hello(member.hello), state.nodes.get(name)
        if hello is not None:
            coordinator = node is not None and node.coordinator
            copies.append(
                NodeCopy(node=name, position=hello.position, archived=hello.archived, coordinator=coordinator)
            )
    return tuple(copies)


def _size_of(config: Config) -> int:
    size_bytes = 0
    for suffix in ("", "-wal"):
        with contextlib.suppress(OSError):
            size_bytes += (config.data_dir / f"history.db{suffix}").stat().st_size
    return size_bytes
