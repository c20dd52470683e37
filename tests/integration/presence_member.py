"""A process that joins and says again and again until when its lease lasts, for tests that stop it in mid-step.

Usage: presence_member HOSTS CLUSTER NAME MACHINE TIMEOUT_S. Each line on its output is a time on CLOCK_BOOTTIME.
"""

from __future__ import annotations

import asyncio
import sys

from pvc.clock import BootClock
from pvc.presence.zookeeper import ZookeeperPresence

SAMPLE_S = 0.005


async def main(hosts: str, cluster: str, name: str, machine: str, timeout_s: float) -> None:
    clock = BootClock()
    presence = await ZookeeperPresence.open(hosts, cluster, machine=machine, session_timeout_s=timeout_s)
    await presence.join(name, b"")
    while True:
        now = clock.monotonic()
        if (left_s := presence.lease_left_s()) > 0:
            print(now + left_s, flush=True)
        await asyncio.sleep(SAMPLE_S)


if __name__ == "__main__":
    hosts, cluster, name, machine, timeout_s = sys.argv[1:]
    asyncio.run(main(hosts, cluster, name, machine, float(timeout_s)))
