"""A client of the log in simulation: a process with the real `ZookeeperLog`, which appends, follows, and is checked.

It believes nothing of what it is told: each answer is held against the truth (`LogTruth`) in the moment it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from pvc.errors import Conflict, LogDamaged, OutcomeUnknown, Unavailable
from pvc.events.record import EMPTY, Actor, CommandRef, Entry, Head, Record, check_follows, seal, unseal
from pvc.log.zookeeper import Seen, ZookeeperLog
from pvc.log.zookeeper_layout import SegmentLimits
from pvc.sim.cluster_process import Process
from pvc.sim.log_archive import SimArchive
from pvc.sim.log_truth import LogTruth
from pvc.zookeeper.port import OpenSession

CLUSTER = "sim"
ACTOR = Actor(principal="sim", method="node")
PAUSE_S = 0.3
"""Before something that failed is tried again."""


FOLD_S = 0.02
"""Before it is tried to append again, where others have appended what was not folded here yet."""


class Account(msgspec.Struct, kw_only=True):
    """How appends ended."""

    acknowledged: int = 0
    conflicts: int = 0
    unavailable: int = 0
    unknown: int = 0
    followed: int = 0
    archived: int = 0
    lives: int = 0


class LogClient:
    """One machine's client: it may be killed and started again, and remembers what it has seen."""

    def __init__(
        self,
        name: str,
        bridge: OpenSession,
        truth: LogTruth,
        archive: SimArchive,
        account: Account,
        *,
        limits: SegmentLimits,
        breaks: Callable[[str], None],
        note: Callable[[str], object],
        may_be_damaged: Callable[[], bool],
    ) -> None:
        self.name = name
        self.process: Process | None = None
        self.log: ZookeeperLog | None = None
        self.found_out = ""
        """Why this client holds the log for damaged; it does nothing any more."""
        self.replica: list[Entry] = []
        """What it has followed so far, kept on its disk."""
        self.refused: list[Entry] = []
        """What must never be in the log."""
        self._known = EMPTY
        """The last record that was acknowledged to this client or followed by it."""
        self._wanted: list[int] = []
        """Appends that it is asked for, each of so many records; 0: a look at what is to be archived."""
        self._bridge = bridge
        self._truth = truth
        self._archive = archive
        self._limits = limits
        self._account = account
        self._breaks = breaks
        self._note = note
        self._may_be_damaged = may_be_damaged
        self._seen: Seen | None = None
        self._made = 0
        self._wake = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether it has done all that it was asked to, and has followed the log to its end."""
        if self.found_out:
            return True
        # After a loss its session may be one that no server takes any more, until it gives that up.
        connected = self.log is not None and self.log._view.bridge.connected
        return connected and not self._wanted and self.replica[-1:] == self._truth.entries[-1:]

    @property
    def known(self) -> Head:
        """The last record that it has heard of."""
        return self._known

    def start(self) -> None:
        """Start the process."""
        if self.process is not None:
            return
        self._account.lives += 1
        self._known = self._seen.head if self._seen is not None else EMPTY  # the rest died with the last process
        self.process = Process(f"{self.name}.{self._account.lives}")
        task = self.process.run(self._run(), self.name)
        task.add_done_callback(self._ended)

    def kill(self) -> None:
        """End it. What it asked for last may be done or not."""
        if self.process is not None:
            self.process.kill()
            self.process, self.log = None, None
            self._wanted.clear()

    def wipe(self) -> None:
        """End it, and take its disk away."""
        self.kill()
        self.replica, self._seen = [], None

    def archive(self) -> None:
        """Archive what is sealed, and take it out of ZooKeeper, when it comes to it."""
        self._wanted.append(0)
        self._wake.set()

    def append(self, entries: int) -> None:
        """Append so many records at once, when it comes to it."""
        self._wanted.append(entries)
        self._wake.set()

    # -- Within ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while self.log is None:
                try:
                    self.log = await ZookeeperLog.open(
                        "sim",
                        CLUSTER,
                        seen=self._seen,
                        source=self._archive,
                        limits=self._limits,
                        bridge=self._bridge,
                    )
                except Unavailable:
                    await asyncio.sleep(PAUSE_S)
            self._wake = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(self.log))
                group.create_task(self._append_wanted(self.log))
        except* LogDamaged as group:
            self._finds_out(group)

    def _finds_out(self, group: BaseExceptionGroup[LogDamaged]) -> None:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, LogDamaged)
        self._note(f"{self.name} finds the log damaged: {error.code}")
        self.found_out = error.code
        if not self._may_be_damaged():
            self._breaks(f"{self.name} takes the log for damaged: {error.message}")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._breaks(f"{self.name} ended: {task.exception()!r}")

    async def _follow(self, log: ZookeeperLog) -> None:
        head = self.replica[-1].head if self.replica else EMPTY
        async for batch in log.follow(head.position):
            self._account.followed += len(batch)
            for data in batch:
                entry = unseal(data)
                if entry.position != head.position + 1:
                    self._breaks(f"{self.name} followed record {entry.position} after {head.position}")
                head = entry.head
                if entry.position <= len(self.replica):
                    continue  # its own, of which it was told before
                # As the fold does it: what does not continue the own copy is damage.
                check_follows(entry, self.replica[-1].head if self.replica else EMPTY)
                if not self._truth.holds(entry) and entry.hash not in self._truth.lost:
                    self._breaks(f"{self.name} followed record {entry.position}, which is not in the log")
                self.replica.append(entry)
                self._learns(entry.head)
            self._seen = log.seen

    async def _append_wanted(self, log: ZookeeperLog) -> None:
        while True:
            while self._wanted:
                entries = self._wanted[0]
                if await (self._append_once(log, entries) if entries else self._archive_once(log)) and self._wanted:
                    self._wanted.pop(0)
            self._wake.clear()
            await self._wake.wait()

    async def _archive_once(self, log: ZookeeperLog) -> bool:
        try:
            await self._archive.take_over(log, self.replica, self.name)
        except Unavailable:
            await asyncio.sleep(PAUSE_S)
            return False
        self._account.archived += 1
        return True

    async def _append_once(self, log: ZookeeperLog, count: int) -> bool:
        """One try; False: somebody else was faster, or nobody answers."""
        entries: list[Entry] = []
        try:
            told = await log.head()
            if told.position < self._known.position:
                self._breaks(f"{self.name} is told of position {told.position} after {self._known.position}")
            if len(self.replica) < told.position:
                await asyncio.sleep(FOLD_S)  # it decides against what it has folded
            after = self.replica[-1].head if self.replica else EMPTY
            for _ in range(count):
                entries.append(self._entry(entries[-1].head if entries else after))
            self._truth.begins(entries)
            head = await log.append(entries, after=after)
        except Conflict:
            self._account.conflicts += 1
            self._refuse(entries, "a conflict")
            return False
        except Unavailable:
            self._account.unavailable += 1
            self._refuse(entries, "unavailable")
            await asyncio.sleep(PAUSE_S)
            return False
        except OutcomeUnknown:
            self._account.unknown += 1
            return True
        self._account.acknowledged += 1
        self._note(f"{self.name} appended up to {head.position}")
        for entry in entries:
            if not self._truth.holds(entry) and entry.hash not in self._truth.lost:
                self._breaks(f"record {entry.position} was acknowledged to {self.name}, and is not in the log")
        if head != entries[-1].head:
            self._breaks(f"{self.name} appended up to {entries[-1].position}, and is told {head.position}")
        self._learns(entries[-1].head)
        if len(self.replica) == after.position:
            self.replica += entries
            self._seen = log.seen
        return True

    def _learns(self, head: Head) -> None:
        """It was told that this is in the log: then so must be all that it was told before."""
        known, truth = self._known, self._truth
        if not truth.same_at(known) and not (known.hash in truth.lost and head.hash in truth.lost):
            self._breaks(f"{self.name} goes on at {head.position}, and has not noticed that the log was set back")
        if head.position > self._known.position:
            self._known = head

    def _refuse(self, entries: list[Entry], why: str) -> None:
        for entry in entries:
            if self._truth.holds(entry):
                self._breaks(f"record {entry.position} was refused to {self.name} ({why}), and is in the log")
        self.refused += entries

    def _entry(self, after: Head) -> Entry:
        self._made += 1
        number = f"{self.name}-{self._account.lives}-{self._made}"
        return seal(
            Record(
                position=after.position + 1,
                prev=after.hash,
                id=number,
                time_us=self._made,
                actor=ACTOR,
                origin=self.name,
                command=CommandRef(id=number, name="sim.write"),
                events=(),
            )
        )
