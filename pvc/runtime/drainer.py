"""The Drainer: where this node is the primary, it takes what other nodes have laid into the inbox into the log.

Each report is decided like this node's own, in the same batches, and leaves the inbox in the same step that its record
enters the log. What leads to no record is only taken out: its sender then decides it by itself. So the drainer may die,
freeze, or be deposed at any point; another one finds what it has not committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from pvc.commands.base import Context, Decide, Decision
from pvc.commands.facts import FORWARDABLE
from pvc.commands.vm_ref import NOTHING
from pvc.errors import Conflict, LogDamaged, OutcomeUnknown, PvcError, Unavailable
from pvc.log.inbox import Forwarded, Found, Inbox
from pvc.projections.state import ClusterState
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.request import Taken
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

TERM_S = 0.25
"""Between two looks whether this node is the primary by now: a part of what senders have patience for."""

POLL_S = 1.0
"""The inbox is looked at this often even if no watch fires."""

FOLD_S = 2.0
"""Until this node's fold is where the senders' have been; it takes milliseconds."""

PAUSE_S = 0.5
"""After a failure, so that what fails at once is not tried in a tight loop."""


class Drainer:
    """Runs on every coordinator; takes something only while `epoch` tells of a term."""

    def __init__(self, world: World, appender: Appender, inbox: Inbox, *, epoch: Callable[[], int | None]) -> None:
        self._world = world
        self._appender = appender
        self._inbox = inbox
        self._epoch = epoch

    async def run(self) -> None:
        """Take in what comes, until cancelled."""
        while True:
            epoch = self._epoch()
            if not epoch or self._world.fault is not None:
                await asyncio.sleep(TERM_S)
                continue
            try:
                if not await self.drain(epoch):
                    await self._inbox.changed(POLL_S)
            except PvcError as error:
                logger.warning("drainer: cannot take reports in error=%s", error)
                await asyncio.sleep(PAUSE_S)
            except Exception:
                # Senders would wait for a drainer that has ended at each report.
                logger.exception("drainer: unexpected error")
                await asyncio.sleep(PAUSE_S)

    async def drain(self, epoch: int) -> int:
        """Take in what is in the inbox now, in its order; returns how many left it."""
        waiting = await self._inbox.waiting()
        seen = max((found.report.seen for found in waiting if found.report is not None), default=0)
        with contextlib.suppress(Unavailable):
            await self._world.reach(seen, FOLD_S)
        requests = [(found, _request(found, epoch, self._world.position)) for found in waiting]
        answers = await asyncio.gather(
            *(self._appender.submit(request) for _, request in requests if request is not None), return_exceptions=True
        )
        answered = iter(answers)
        to_remove: list[str] = []
        stays = 0
        for found, request in requests:
            answer = next(answered) if request is not None else None
            if _stays(answer):
                stays += 1
            elif not (isinstance(answer, Outcome) and answer.entry is not None and not answer.repeated):
                to_remove.append(found.key)
        if to_remove:
            await self._inbox.remove(to_remove)
        if stays:
            await asyncio.sleep(PAUSE_S)
        return len(waiting) - stays


def _request(found: Found, epoch: int, folded: int) -> Request | None:
    """As this node's appender takes it; None for what it cannot take.

    One whose sender knew more than this node has folded might come to nothing here; or it is of a log that there is no
    more.
    """
    report = found.report
    known = FORWARDABLE.get(report.name) if report is not None and report.seen <= folded else None
    if report is None or known is None:
        logger.warning("drainer: cannot take a report key=%s", found.key)
        return None
    kind, decide = known
    try:
        command = msgspec.json.decode(report.report, type=kind)
    except msgspec.MsgspecError as error:
        logger.warning("drainer: cannot take a report key=%s error=%s", found.key, error)
        return None
    return Request(
        name=report.name,
        command=command,
        decide=_decide_as_seen(decide, report),
        actor=report.actor,
        command_id=report.id,
        cause=report.cause,
        taken=Taken(report=report, epoch=epoch),
    )


def _decide_as_seen(decide: Decide, sent: Forwarded) -> Decide:
    """Decide only while the VM is as the sender knew it. What the dead have sent may lie for long, and a VM that went
    away and came back may be in the same run on the same node: what was true of it before need not be true now."""

    def decide_as_seen(state: ClusterState, report: Any, context: Context) -> Decision:
        vm = state.vms.get(report.vm)
        if vm is not None and vm.position > sent.seen:
            return NOTHING
        return decide(state, report, context)

    return decide_as_seen


def _stays(answer: object) -> bool:
    """Whether the report is left for another try, here or by the next primary."""
    if isinstance(answer, PvcError) and answer.code == "cluster.stale_primary":
        return True
    return isinstance(answer, Conflict | Unavailable | OutcomeUnknown | LogDamaged | asyncio.CancelledError)
