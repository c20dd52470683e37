"""A node that fences itself: when its lease is over it ends its VMs, and a watchdog ends the machine where that fails.

The watchdog is petted only while the lease holds, or once no VM runs any more. So whatever happens to this process, no
VM of this node runs later than two time-outs of the watchdog after the lease has ended; that is what the node promises.
A watchdog that cannot be armed, or fails, takes the promise with it, but not the ending of the VMs: until the log knows
of it, others count on it. Only for nodes without a fence agent: the price is that losing ZooKeeper's majority for
longer ends their VMs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pvc.drivers.hypervisor import DomainState, Hypervisor, OffReason
from pvc.drivers.watchdog import Watchdog
from pvc.errors import PvcError
from pvc.presence.base import Presence

logger = logging.getLogger(__name__)

PETS_PER_TIMEOUT = 5
"""Late by a few on a busy machine, and still in time."""

PROMISE_MARGIN_S = 2
"""On top of two of the watchdog's time-outs in what is promised: some devices count in steps."""

ARM_AGAIN_S = 4.0
"""Between two tries to arm a watchdog that is not there, or is somebody else's."""


class SelfFence:
    """Runs until cancelled, and then leaves the watchdog armed: it is the next daemon's to pet. `changed` is called
    whenever `promise_s` has become another."""

    def __init__(
        self,
        presence: Presence,
        hypervisor: Hypervisor,
        watchdog: Watchdog,
        timeout_s: int,
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._presence = presence
        self._hypervisor = hypervisor
        self._watchdog = watchdog
        self._timeout_s = timeout_s
        self._changed = changed
        self._trouble = ""
        self._arm_at_s = 0.0
        self.known = False
        """Whether it was tried: before, it cannot be said what this node promises."""
        self.armed = False
        """Whether the promise holds."""

    @property
    def promise_s(self) -> int:
        """Within so many seconds after the lease has ended no VM of this node runs; 0: nothing is promised.

        Two time-outs: a daemon that stands still after it has seen the lease may pet once more, just before it bites.
        """
        return 2 * self._timeout_s + PROMISE_MARGIN_S if self.armed else 0

    async def run(self) -> None:
        """Pet the watchdog while all is well; end the VMs when the lease is over.

        A daemon that is started anew neither pets nor ends anything before it has a lease of its own: its VMs have
        just the time that its predecessor's last pet has left them. A machine that outlives that has no watchdog.
        """
        tick_s = self._timeout_s / PETS_PER_TIMEOUT
        waited_s = 0.0
        while self._presence.lease_left_s() <= 0:
            if waited_s > self._timeout_s:
                await self._ended_all()
            await asyncio.sleep(tick_s)
            waited_s += tick_s
        while True:
            if not self.armed and now_s() >= self._arm_at_s:
                self._arm()
            if self._presence.lease_left_s() > 0 or await self._ended_all():
                self._pet()
            await asyncio.sleep(tick_s)

    def _arm(self) -> None:
        self._arm_at_s = now_s() + ARM_AGAIN_S
        try:
            self._watchdog.arm(self._timeout_s)
        except PvcError as error:
            self._note(False, error.message)
        else:
            self._note(True)

    def _pet(self) -> None:
        """Also one that did not take its time: it counts all the same."""
        try:
            self._watchdog.pet()
        except PvcError as error:
            if self.armed:
                self._note(False, error.message)

    def _note(self, armed: bool, trouble: str = "") -> None:
        if trouble and trouble != self._trouble:
            logger.error(
                "self-fence: no watchdog, so nothing is promised, and this node counts as unguarded: %s", trouble
            )
        self._trouble = trouble
        if (self.known, self.armed) != (True, armed):
            self.known, self.armed = True, armed
            self._changed()

    async def _ended_all(self) -> bool:
        """End every VM here; whether none runs any more."""
        try:
            # One that was just created stands still and counts as off; whoever created it may yet let it run.
            domains = [
                domain
                for domain in await self._hypervisor.list_domains()
                if domain.state is not DomainState.OFF or domain.reason is OffReason.NEVER_RAN
            ]
            if domains:
                logger.error("self-fence: the lease is over, ending %d VMs", len(domains))
            await asyncio.gather(*(self._hypervisor.destroy(domain.vm) for domain in domains))
        except PvcError as error:
            logger.error("self-fence: cannot end the VMs, the watchdog will end the machine error=%s", error)
            return False
        return True


def now_s() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()
