"""`pvcd` that kills itself (-9) right after its n-th effect (PVC_TEST_KILL_AFTER): an append, a hypervisor call, or a
key that was destroyed."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from typing import Any

from pvc.daemon import compose
from pvc.daemon.config import Config
from pvc.daemon.main import main
from pvc.drivers.hypervisor import Hypervisor
from pvc.keyring.base import Keyring, PersonKey
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
real_open_log, real_open_hypervisor, real_open_keyring = (
    compose.open_log,
    compose.open_hypervisor,
    compose.open_keyring,
)


class MortalKeyring:
    """Passes everything on; an end of a key is an effect."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def find(self, principal: str) -> PersonKey | None:
        return await self._keyring.find(principal)

    async def make(self, key: PersonKey) -> PersonKey:
        made = await self._keyring.make(key)
        life.effect("make key")
        return made

    async def read(self, ids: Collection[str]) -> dict[str, PersonKey]:
        return await self._keyring.read(ids)

    async def ids(self) -> list[str]:
        return await self._keyring.ids()

    async def destroy(self, key_id: str) -> None:
        await self._keyring.destroy(key_id)
        life.effect("destroy key")

    async def close(self) -> None:
        await self._keyring.close()


async def open_log(*parts: Any, **options: Any) -> Log:
    return MortalLog(await real_open_log(*parts, **options), life, LogFaults())


async def open_hypervisor(config: Config) -> Hypervisor:
    return MortalHypervisor(await real_open_hypervisor(config), life)


async def open_keyring(config: Config) -> Keyring:
    return MortalKeyring(await real_open_keyring(config))


compose.open_log = open_log
compose.open_keyring = open_keyring
compose.open_hypervisor = open_hypervisor

if __name__ == "__main__":
    main()
