"""Follows the lab's log straight from ZooKeeper, folds it, and hears what the nodes say of their own folds.

It runs in a thread with an event loop of its own; what it has gathered may be read from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable

import msgspec

from pvc.archive.directory import DirectoryArchive
from pvc.errors import PvcError, Unavailable
from pvc.events.record import Entry, unseal
from pvc.events.registry import Event
from pvc.lab.chaos.journal import Journal
from pvc.lab.lab import Lab
from pvc.lab.plan import CLUSTER
from pvc.log.zookeeper import ZookeeperLog
from pvc.presence.zookeeper import ZookeeperPresence
from pvc.projections.fold import fold
from pvc.projections.state import ClusterState
from pvc.runtime.shelves import AllCopies, Shelf

HELLOS_S = 1.0
_AGAIN_S = 0.5
_OPEN_TIMEOUT_S = 30.0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it arrived here."""

    entry: Entry
    events: tuple[Event, ...]
    arrived_s: float

    @property
    def sentence(self) -> str:
        """For a person."""
        record = self.entry.record
        words = "; ".join(f"{event.TYPE} {_words(event)}" for event in self.events)
        return f"#{record.position} {record.origin} {record.command.name}: {words}"


class Said(msgspec.Struct, frozen=True):
    """What a node says of its fold."""

    position: int
    state_hash: str


class Logbook:
    """Follows until stopped."""

    def __init__(self, lab: Lab, journal: Journal) -> None:
        self.told: list[Told] = []
        self.hashes: dict[int, str] = {}
        """Position -> hash of our own fold there."""
        self.said: dict[tuple[str, int], str] = {}
        """Node and position -> hash of its fold."""
        self.latest: dict[str, Said] = {}
        self.heard_s = 0.0
        """When the nodes were last heard of."""
        self.state = ClusterState()
        """Folded by us; a frozen object of it may be looked at any time."""
        self.broken = ""
        self._lab = lab
        self._plan = lab.plan
        self._journal = journal
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="logbook", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(lambda: self._main.cancel() if self._main else None)
            self._thread.join()

    @property
    def position(self) -> int:
        """The last record folded."""
        return len(self.told)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._all())
        self._loop.close()

    async def _all(self) -> None:
        self._main = asyncio.current_task()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._insist(self._follow))
            group.create_task(self._insist(self._listen))

    async def _insist(self, do: Callable[[], Awaitable[None]]) -> None:
        while not self.broken:
            try:
                await do()
            except Unavailable as error:
                self._journal.note("log", f"not reached: {error}")
            except PvcError as error:
                self.broken = f"{error.code}: {error}"
                self._journal.violation(f"the log cannot be followed from outside: {self.broken}")
            await asyncio.sleep(_AGAIN_S)

    async def _follow(self) -> None:
        log = await _open(self._lab)
        try:
            async for batch in log.follow(self.position):
                for data in batch:
                    self._take(data)
        finally:
            await log.close()

    def _take(self, data: bytes) -> None:
        entry = unseal(data)
        events = fold(self.state, entry)
        self.hashes[entry.position] = self.state.state_hash()
        self.told.append(Told(entry=entry, events=events, arrived_s=time.time()))

    async def _listen(self) -> None:
        presence = await ZookeeperPresence.open(self._plan.zookeeper_hosts, CLUSTER, machine="chaos")
        try:
            while True:
                members = await presence.members()
                self.latest = {name: msgspec.json.decode(one.hello, type=Said) for name, one in members.items()}
                for name, said in self.latest.items():
                    self.said[name, said.position] = said.state_hash
                self.heard_s = time.time()
                await asyncio.sleep(HELLOS_S)
        finally:
            await presence.close(expire=False)


async def read_all(lab: Lab) -> list[bytes]:
    """The whole log, as ZooKeeper and the hosts' archives have it now."""
    log = await _open(lab)
    try:
        head = await log.head()
        found: list[bytes] = []
        while len(found) < head.position:
            found += await log.read(len(found) + 1, head.position - len(found))
        return found
    finally:
        await log.close()


def _open(lab: Lab) -> Awaitable[ZookeeperLog]:
    archives = [Shelf(DirectoryArchive(host.home / "pvc-lib/archive")) for host in lab.hosts]
    return ZookeeperLog.open(
        lab.plan.zookeeper_hosts, CLUSTER, source=AllCopies(archives, mends=False), deadline_s=_OPEN_TIMEOUT_S
    )


def _words(event: Event) -> str:
    values = msgspec.structs.asdict(event)
    return " ".join(f"{key}={value}" for key, value in values.items() if key not in ("spec", "why") and value != "")
