"""Where a daemon's state comes from at its start: its own snapshot, another node's, or the log from its beginning."""

from __future__ import annotations

import asyncio
import logging
import time

from pvc.errors import LogDamaged, PvcError
from pvc.log.base import Log
from pvc.peers.client import Peers
from pvc.projections.snapshot import PROJECTION_VERSION, restore
from pvc.projections.state import ClusterState
from pvc.runtime.snapshots import SnapshotFile, check_same_log

logger = logging.getLogger(__name__)

WORTH_RECORDS = 20_000
"""A log that is shorter is folded in a second, which is no more than it takes to ask."""

DEADLINE_S = 60.0
"""For all of it; then the log is folded from its beginning."""


async def first_state(snapshots: SnapshotFile, log: Log, peers: Peers | None) -> ClusterState | None:
    """A state to go on from; None where the log has to be folded from its beginning. Never raises PvcError."""
    own = await asyncio.to_thread(snapshots.load)
    if own is not None or peers is None:
        return own
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await _from_another(log, peers)
    except (PvcError, TimeoutError) as error:
        logger.info("start: no other node's snapshot can be had, folding the log from its beginning error=%s", error)
        return None


async def _from_another(log: Log, peers: Peers) -> ClusterState | None:
    if (await log.head()).position < WORTH_RECORDS:
        return None
    began = time.monotonic()
    found = await peers.snapshot(after=0, version=PROJECTION_VERSION)
    state = await asyncio.to_thread(restore, found.data)
    try:
        await check_same_log(state.head, log)
    except LogDamaged as error:
        logger.warning("start: the snapshot of node %s is not of this log error=%s", found.node, error.message)
        return None
    logger.info(
        "start: going on from the snapshot of node %s position=%d bytes=%d seconds=%.1f",
        found.node,
        state.position,
        len(found.data),
        time.monotonic() - began,
    )
    return state
