"""Vouches for the log: every coordinator keeps a key, the primary signs checkpoints, every node compares them.

A node compares with the tree in its replica, which it made from the records as they came. A checkpoint that does not
fit means that one of the two was rewritten or is damaged: it is recorded as a fault, and every reader of the cluster's
health sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from pvc.clock import Clock
from pvc.commands.facts_log import ReportCheckpoint, ReportLogDiffers, may_sign
from pvc.errors import PvcError, Rejected
from pvc.events.cluster import LogCheckpointed
from pvc.events.record import Entry
from pvc.events.registry import Event
from pvc.log.history import HistoryIndex
from pvc.node.primary import Submit
from pvc.node.signing import KeyFiles, KeyKeeper, Signer
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

EVERY_RECORDS = 256
"""Records that nobody has vouched for, at most, as far as the replica can follow."""

EVERY_S = 60.0
"""How long any record waits for a checkpoint."""

TICK_S = 1.0
"""Between two looks, where no record comes."""

RETRY_S = 5.0
"""After something did not work."""

MAX_WAITING = 10_000
"""Checkpoints that wait to be compared; past that the oldest are passed over: newer ones cover the same records."""


class VouchingParts(msgspec.Struct, frozen=True, kw_only=True):
    """What vouching needs besides the node's own."""

    history: HistoryIndex
    keys: KeyFiles


class Vouching:
    """One node's part; `run` until cancelled."""

    def __init__(
        self,
        node: str,
        world: World,
        parts: VouchingParts,
        submit: Submit,
        clock: Clock,
        *,
        epoch: Callable[[], int | None],
        may_speak: Callable[[], bool],
        anchored: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`epoch`: of the term in which this node acts for the cluster, None outside of one; `may_speak`: whether it is
        one of the cluster now; `anchored`: how far each anchor has what was signed."""
        self._node = node
        self._world = world
        self._history = parts.history
        self._submit = submit
        self._clock = clock
        self._epoch = epoch
        self._may_speak = may_speak
        self._anchored = anchored
        self._keeper = KeyKeeper(node, world, parts.keys, submit)
        self._moved = asyncio.Event()
        self._waiting: deque[LogCheckpointed] = deque(maxlen=MAX_WAITING)
        self._agreed = 0
        self._unvouched: tuple[int, float] | None = None
        """Size of the checkpoint that the oldest unvouched record came after, and since when it has been waiting."""

    async def sign(self, size: int, root: bytes) -> str:
        """A signed note that the log had this root at this size; empty where this node has no key that counts yet."""
        signer = await self._keeper.signer() if self._may_speak() else None
        return signer.sign(size, root) if signer is not None else ""

    async def run(self) -> None:
        """Look, act, wait."""
        self._note_newest()
        with self._world.listening(self._note):
            while True:
                self._moved.clear()
                try:
                    await self._look()
                except PvcError as error:
                    logger.warning("log: cannot vouch for it yet error=%s", error)
                    await asyncio.sleep(RETRY_S)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._moved.wait()

    def _note(self, entry: Entry, events: tuple[Event, ...]) -> None:
        for event in events:
            if isinstance(event, LogCheckpointed) and event.size < entry.position:
                self._waiting.append(event)
            elif isinstance(event, LogCheckpointed):
                logger.error("log: record %d vouches for %d records, more than there were", entry.position, event.size)
        self._moved.set()

    def _note_newest(self) -> None:
        """After a start, the newest one covers all before it."""
        cluster = self._world.state.cluster
        if cluster is None or cluster.log.checkpoint is None:
            return
        newest = cluster.log.checkpoint
        self._waiting.append(
            LogCheckpointed(
                node=newest.node, epoch=0, size=newest.size, root=newest.root, key_id=newest.key_id, note=newest.note
            )
        )

    async def _look(self) -> None:
        # A fault that is told before the node says that it is ready would be taken for one of its former life.
        if not self._may_speak() or self._world.fault is not None:
            return
        await self._compare()
        signer = await self._keeper.signer()
        epoch = self._epoch()
        if signer is not None and epoch is not None and may_sign(self._world.state, self._node, epoch) and self._due():
            await self._vouch(signer, epoch)

    def _due(self) -> bool:
        cluster = self._world.state.cluster
        newest = cluster.log.checkpoint if cluster is not None else None
        size = newest.size if newest is not None else 0
        # The record of the checkpoint itself is no activity: an idle cluster's log must not grow for ever.
        own = 1 if newest is not None else 0
        if self._world.position - size - own <= 0:
            self._unvouched = None
            return False
        now_s = self._clock.monotonic()
        if self._unvouched is None or self._unvouched[0] != size:
            self._unvouched = (size, now_s)
        # Counted as far as the replica has come: it has the root, and may be some records behind.
        ready = min(self._history.position, self._world.position) - size - own
        return ready >= EVERY_RECORDS or now_s - self._unvouched[1] >= EVERY_S

    async def _vouch(self, signer: Signer, epoch: int) -> None:
        size = min(self._history.position, self._world.position)
        cluster = self._world.state.cluster
        assert cluster is not None, "looked at above"
        newest = cluster.log.checkpoint
        if not size or (newest is not None and size <= newest.size + 1):
            return
        root = await self._history.root(size)
        anchored = {**(newest.anchored if newest is not None else {}), **self._anchored()}
        note = signer.sign(size, root)
        try:
            await self._submit(ReportCheckpoint(primary=self._node, epoch=epoch, note=note, anchored=anchored), "")
        except Rejected as refusal:
            logger.info("log: checkpoint refused size=%d code=%s reason=%s", size, refusal.code, refusal.message)

    async def _compare(self) -> None:
        """Compare what was vouched for with the own tree, as far as the replica has come."""
        while self._waiting and self._waiting[0].size <= self._history.position:
            checkpoint = self._waiting[0]
            root = (await self._history.root(checkpoint.size)).hex()
            if root == checkpoint.root:
                self._agreed = max(self._agreed, checkpoint.size)
            else:
                await self._tell(checkpoint, root)
            if self._waiting and self._waiting[0] is checkpoint:
                self._waiting.popleft()

    async def _tell(self, checkpoint: LogCheckpointed, root: str) -> None:
        logger.error(
            "log: DIFFERS from what %s vouched for with epoch %d: records=%d..%d root=%s expected=%s",
            checkpoint.node,
            checkpoint.epoch,
            self._agreed + 1,
            checkpoint.size,
            root,
            checkpoint.root,
        )
        report = ReportLogDiffers(
            node=self._node, size=checkpoint.size, root=root, expected=checkpoint.root, agreed=self._agreed
        )
        await self._submit(report, "")
