"""A fuse on the log in ZooKeeper: so many records and bytes, and no more, however fast somebody writes.

ZooKeeper keeps everything in memory, on every server. A writer that runs wild, or an archive that is away for weeks,
would end in an ensemble that is out of memory and cannot start again. The quota is on the segments alone: what makes
room again (manifests, deletions) must still be possible when it is reached.

ZooKeeper enforces it from 3.7 on, where its configuration has `enforceQuota=true`; else it only warns, in its own
log.
"""

from __future__ import annotations

import logging
import re

import msgspec

from pvc.log.zookeeper_layout import Layout
from pvc.zookeeper.port import ZookeeperSession
from pvc.zookeeper.types import CREATE, DELETE, READ, WRITE, Create, NodeExists, NotAllowed, SetData

logger = logging.getLogger(__name__)

MIB = 1024 * 1024

_TRIES = 3
"""Other nodes that start at the same time set the same."""

_NUMBER = re.compile(r"(countHardLimit|byteHardLimit)=(-?\d+)")


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What the segments may hold in ZooKeeper."""

    records: int
    """Znodes, to be exact: each record is one, and each segment another."""
    size_bytes: int
    """Of the znodes' data. A znode takes some 350 bytes of memory besides."""


async def set_quota(bridge: ZookeeperSession, layout: Layout, quota: Quota) -> None:
    """Let ZooKeeper refuse what goes beyond `quota`. May be repeated; changes nothing where it is set already.

    Raises what the bridge raises when the connection breaks: try again. An identity that may not set quotas is only
    worth a warning: the log does not depend on it.
    """
    for _ in range(_TRIES):
        try:
            await _set(bridge, layout, quota)
        except NodeExists:
            continue
        except NotAllowed as error:
            logger.warning("log: no quota path=%s error=%s", layout.segments, error.message)
        return


async def read_quota(bridge: ZookeeperSession, layout: Layout) -> Quota | None:
    """The quota that is set; None where there is none."""
    [limits] = await bridge.find_many([_limits(layout)])
    if limits is None:
        return None
    found = {name: int(value) for name, value in _NUMBER.findall(limits.data.decode(errors="replace"))}
    return Quota(records=found.get("countHardLimit", -1), size_bytes=found.get("byteHardLimit", -1))


async def _set(bridge: ZookeeperSession, layout: Layout, quota: Quota) -> None:
    wanted = _encode(quota)
    [limits] = await bridge.find_many([_limits(layout)])
    if limits is not None:
        if limits.data != wanted:
            await bridge.multi([SetData(_limits(layout), wanted, limits.version)])
        return
    above = [f"/zookeeper/quota{layout.segments[:end]}" for end in _ends(layout.segments)]
    missing = [Create(path, b"", READ | CREATE) for path in above if not await bridge.exists(path)]
    # ZooKeeper begins to count when the second of the two appears, and then counts what is there already.
    await bridge.multi(
        [
            *missing,
            Create(_limits(layout), wanted, READ | WRITE | DELETE),
            Create(f"/zookeeper/quota{layout.segments}/zookeeper_stats", b"count=0,bytes=0", READ | WRITE | DELETE),
        ]
    )


def _limits(layout: Layout) -> str:
    return f"/zookeeper/quota{layout.segments}/zookeeper_limits"


def _ends(path: str) -> list[int]:
    """Where the path's parts end, the first one first."""
    return [at for at, letter in enumerate(path) if letter == "/" and at] + [len(path)]


def _encode(quota: Quota) -> bytes:
    """As ZooKeeper writes it itself: first the limits that only warn, which we do without."""
    return f"count=-1,bytes=-1=;byteHardLimit={quota.size_bytes};countHardLimit={quota.records}".encode()
