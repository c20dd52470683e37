"""Opens the configured log with all its copies, and sees when a damaged one can be used again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import msgspec

from pvc.archive.base import Archive
from pvc.daemon.archives import make_archives
from pvc.daemon.config import Config
from pvc.errors import LogDamaged, PvcError
from pvc.log.base import Log
from pvc.log.history import HistoryIndex
from pvc.node.archivist import ArchiveParts
from pvc.peers.client import Peers
from pvc.peers.copies import PeerCopies
from pvc.runtime.shelves import AllCopies, Shelf
from pvc.runtime.snapshots import check_same_log, newest_seen
from pvc.runtime.world import World

if TYPE_CHECKING:
    from pvc.log.zookeeper import ZookeeperLog

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks whether a damaged log was repaired."""


class LogCopies(msgspec.Struct, frozen=True, kw_only=True):
    """Where copies of archived segments are."""

    archives: tuple[Archive, ...]
    own: Shelf
    shared: tuple[Shelf, ...]
    all: AllCopies


def make_copies(config: Config, peers: Peers | None = None) -> LogCopies:
    """The node's own archive, those of the others, and what all share. Nothing is opened yet, so nothing can fail."""
    archives = make_archives(config)
    own, *shared = map(Shelf, archives)
    others = (PeerCopies(peers),) if peers is not None else ()
    return LogCopies(archives=archives, own=own, shared=tuple(shared), all=AllCopies((own, *others, *shared)))


async def open_log(config: Config, copies: LogCopies, *, may_found: bool) -> Log:
    """The configured log. A ZooKeeper log is opened even when it is damaged: the node tells what is wrong with it."""
    match config.log.kind:
        case "sqlite":
            from pvc.log.sqlite import SqliteLog

            return await SqliteLog.open(config.data_dir / "log.db")
        case "zookeeper":
            return await open_zookeeper_log(config, copies, may_found=may_found, even_damaged=True)
        case "memory":
            from pvc.log.memory import MemoryLog

            return MemoryLog()


def open_zookeeper_log(
    config: Config, copies: LogCopies, *, may_found: bool = False, even_damaged: bool = False, holder: str = ""
) -> Awaitable[ZookeeperLog]:
    """A client of the configured log in ZooKeeper."""
    from pvc.daemon.zookeeper_access import zookeeper_access, zookeeper_hosts
    from pvc.log.quota import MIB, Quota
    from pvc.log.zookeeper import ZookeeperLog
    from pvc.log.zookeeper_layout import SegmentLimits

    access = zookeeper_access(config.log)
    return ZookeeperLog.open(
        zookeeper_hosts(config),
        config.log.cluster,
        credentials=access.credentials,
        archivist=access.archivist,
        tls=access.tls,
        source=copies.all,
        limits=SegmentLimits(records=config.log.segment_records),
        quota=Quota(records=config.log.quota_records, size_bytes=config.log.quota_mib * MIB),
        holder=holder,
        may_found=may_found,
        even_damaged=even_damaged,
    )


def archive_parts(config: Config, log: Log, history: HistoryIndex, copies: LogCopies) -> ArchiveParts | None:
    """What the archivist works with; None where the log has no segments."""
    if config.log.kind != "zookeeper":
        return None
    from pvc.log.zookeeper import ZookeeperLog

    assert isinstance(log, ZookeeperLog), "opened above"
    return ArchiveParts(
        segments=log.segments,
        history=history,
        own=copies.own,
        shared=copies.shared,
        source=copies.all,
        hot_segments=config.log.hot_segments,
        pause_s=config.archive.pause_s,
        incarnation=lambda: log.incarnation,
    )


def incarnation_of(log: Log) -> str:
    """Which log this is; empty where it is a file of this node's, which nobody can exchange for another."""
    incarnation: str = getattr(log, "incarnation", "")
    return incarnation


OPERATIONS_FILE = "operations.db"


def remove_replica(config: Config) -> None:
    """Delete the replica, and what is made of it. Raises OSError."""
    for name in ("history.db", OPERATIONS_FILE):
        for suffix in ("", "-wal", "-shm"):
            (config.data_dir / f"{name}{suffix}").unlink(missing_ok=True)


async def await_whole_log(
    config: Config, copies: LogCopies, world: World, history: HistoryIndex, whole: asyncio.Event
) -> None:
    """Set `whole` once a log that has stopped the fold goes on where this node's replica ends, and nobody holds it."""
    if config.log.kind != "zookeeper":
        return
    while True:
        await asyncio.sleep(LOOK_S)
        if not isinstance(world.fault, LogDamaged):
            continue
        try:
            if await _is_whole(config, copies, world, history):
                logger.info("log: it can be used again, beginning anew")
                whole.set()
        except PvcError as error:
            logger.info("log: still not usable code=%s error=%s", error.code, error.message)


async def _is_whole(config: Config, copies: LogCopies, world: World, history: HistoryIndex) -> bool:
    log = await open_zookeeper_log(config, copies)
    try:
        await check_same_log(await newest_seen(world, history), log)
        return not log.held_by
    finally:
        await log.close()
