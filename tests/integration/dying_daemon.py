"""`pvcd` that kills itself (-9) right after its n-th effect (PVC_TEST_KILL_AFTER): an append or a hypervisor call."""

from __future__ import annotations

import os
import signal

from pvc.daemon import compose
from pvc.daemon.config import Config
from pvc.daemon.main import main
from pvc.drivers.hypervisor import Hypervisor
from pvc.log.base import Log
from pvc.sim.mortal import Life, LogFaults, MortalHypervisor, MortalLog

count = 0


def strikes(effect: str) -> bool:
    global count
    count += 1
    if count == int(os.environ["PVC_TEST_KILL_AFTER"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return False


life = Life(strikes)
real_open_log, real_open_hypervisor = compose.open_log, compose.open_hypervisor


async def open_log(config: Config) -> Log:
    return MortalLog(await real_open_log(config), life, LogFaults())


async def open_hypervisor(config: Config) -> Hypervisor:
    return MortalHypervisor(await real_open_hypervisor(config), life)


compose.open_log = open_log
compose.open_hypervisor = open_hypervisor

if __name__ == "__main__":
    main()
