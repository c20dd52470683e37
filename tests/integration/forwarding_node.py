"""A node that reports notes without end, stands for election, and takes in the others' reports while it is the primary.

python -m tests.integration.forwarding_node HOSTS CLUSTER NAME FIRST-NUMBER

Prints "note N" when it is told that its note N is in the log. A line on its input ends its notes; it then prints how
many it has forwarded, and goes on as the primary, if it is, until its input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Sequence

from pvc.clock import SystemClock, SystemRng
from pvc.commands.facts import REPORTS
from pvc.commands.facts_cluster import ReportPrimary
from pvc.errors import PvcError
from pvc.events.cluster import PrimaryElected
from pvc.events.record import Actor
from pvc.log.inbox import Forwarded
from pvc.log.inbox_zookeeper import ZookeeperInbox
from pvc.log.zookeeper import ZookeeperLog
from pvc.presence.zookeeper import ZookeeperPresence
from pvc.runtime.appender import Appender, Request
from pvc.runtime.drainer import Drainer
from pvc.runtime.forwarder import Forwarder
from pvc.runtime.world import World, catch_up, follow
from tests.support.writers_house import NOTE, Note, note, notes_forwardable

SESSION_S = 2.0
AT_ONCE = 3
"""Notes under way."""
PAUSE_S = 0.05
CLAIM_S = 0.2


class CountingInbox(ZookeeperInbox):
    """Counts what it lays in."""

    laid_in = 0

    async def put(self, reports: Sequence[Forwarded]) -> None:
        await super().put(reports)
        self.laid_in += len(reports)


class Reporter:
    def __init__(self, name: str, first: int, log: ZookeeperLog, inbox: CountingInbox) -> None:
        self.name = name
        self.log = log
        self.world = World()
        self.appender = Appender(self.world, log, origin=name, clock=SystemClock(), rng=SystemRng(), inbox=inbox)
        common = self.world, self.appender, inbox
        self.forwarder = Forwarder(name, *common, SystemClock(), SystemRng())
        self.drainer = Drainer(*common, epoch=lambda: self.epoch)
        self.epoch: int | None = None
        self.numbers = itertools.count(first)
        self.ended = False
        self.actor = Actor(principal=f"node/{name}", method="node")

    async def note_on(self) -> None:
        while not self.ended:
            number = next(self.numbers)
            report = Note(node=self.name, number=number)
            with contextlib.suppress(PvcError):
                outcome = await self.forwarder.submit(Request(name=NOTE, command=report, decide=note, actor=self.actor))
                assert outcome.entry is not None, f"note {number} is said to be no news"
                print(f"note {number}", flush=True)
            await asyncio.sleep(PAUSE_S)

    async def stand_for_election(self, presence: ZookeeperPresence) -> None:
        name, decide = REPORTS[ReportPrimary]
        while True:
            with contextlib.suppress(PvcError):
                if not presence.joined:
                    await presence.join(self.name, b"")
                if not await presence.claim_primary(self.name):
                    self.epoch = None
                elif self.epoch is None:
                    report = ReportPrimary(node=self.name)
                    outcome = await self.appender.submit(
                        Request(name=name, command=report, decide=decide, actor=self.actor)
                    )
                    (elected,) = [event for event in outcome.decision.events if isinstance(event, PrimaryElected)]
                    self.epoch = elected.epoch
            await asyncio.sleep(CLAIM_S)


async def main(hosts: str, cluster: str, name: str, first: str) -> None:
    log = await ZookeeperLog.open(hosts, cluster, session_timeout_s=SESSION_S)
    inbox = await CountingInbox.open(hosts, cluster, log, session_timeout_s=SESSION_S)
    presence = await ZookeeperPresence.open(hosts, cluster, machine=name, session_timeout_s=SESSION_S)
    reporter = Reporter(name, int(first), log, inbox)
    await reporter.forwarder.clear()
    await catch_up(reporter.world, log)
    work = (
        reporter.appender.run(),
        follow(reporter.world, log),
        reporter.forwarder.run(),
        reporter.drainer.run(),
        reporter.stand_for_election(presence),
    )
    tasks = [asyncio.create_task(each) for each in work]
    notes = [asyncio.create_task(reporter.note_on()) for _ in range(AT_ONCE)]
    await asyncio.to_thread(sys.stdin.readline)
    reporter.ended = True
    await asyncio.gather(*notes)
    print(f"forwarded {inbox.laid_in}", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks:
        task.cancel()
    for port in (presence, inbox, log):
        await port.close()


if __name__ == "__main__":
    with notes_forwardable():
        asyncio.run(main(*sys.argv[1:5]))
