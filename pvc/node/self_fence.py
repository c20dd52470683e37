"""A node that fences itself: when its lease is over it ends its VMs, and a watchdog ends the machine where that fails.

The watchdog is petted only while the lease holds, or once no VM runs any more. So whatever happens to this process, no
VM of this node runs later than two time-outs of the watchdog after the lease has ended; that is what the node promises.
Only for nodes without a fence agent: the price is that losing ZooKeeper's majority for longer ends their VMs.
"""

from __future__ import annotations

import asyncio
import logging

from pvc.drivers.hypervisor import DomainState, Hypervisor, OffReason
from pvc.drivers.watchdog import Watchdog
from pvc.errors import PvcError
from pvc.presence.base import Presence

logger = logging.getLogger(__name__)

PETS_PER_TIMEOUT = 5
"""Late by a few on a busy machine, and still in time."""

PROMISE_MARGIN_S = 2
"""On top of two of the watchdog's time-outs in what is promised: some devices count in steps."""

ARM_AGAIN_S = 5.0
"""Between two tries to arm a watchdog that is not there, or is somebody else's."""


class SelfFence:
    """Runs until cancelled, and then leaves the watchdog armed: it is the next daemon's to pet."""

    def __init__(self, presence: Presence, hypervisor: Hypervisor, watchdog: Watchdog, timeout_s: int) -> None:
        self._presence = presence
        self._hypervisor = hypervisor
        self._watchdog = watchdog
        self._timeout_s = timeout_s
        self.armed = False
        """Whether the promise holds: before, it must not be given."""

    @property
    def promise_s(self) -> int:
        """Within so many seconds after the lease has ended no VM of this node runs.

        Two time-outs: a daemon that stands still after it has seen the lease may pet once more, just before it bites.
        """
        return 2 * self._timeout_s + PROMISE_MARGIN_S

    async def run(self) -> None:
        """Pet the watchdog while all is well; end the VMs when the lease is over.

        A daemon that is started anew neither pets nor ends anything before it has a lease of its own: its VMs have
        just the time that its predecessor's last pet has left them.
        """
        while self._presence.lease_left_s() <= 0:  # noqa: ASYNC110 - nothing tells when there is one
            await asyncio.sleep(self._timeout_s / PETS_PER_TIMEOUT)
        while not self._arm():  # noqa: ASYNC110 - nor when a device comes
            await asyncio.sleep(ARM_AGAIN_S)
        while True:
            if self._presence.lease_left_s() > 0 or await self._ended_all():
                self._watchdog.pet()
            await asyncio.sleep(self._timeout_s / PETS_PER_TIMEOUT)

    def _arm(self) -> bool:
        try:
            self._watchdog.arm(self._timeout_s)
        except PvcError as error:
            logger.error("self-fence: no watchdog, so this node takes no VMs error=%s", error)
            return False
        self.armed = True
        return True

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
