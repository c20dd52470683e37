"""The simulated twin: power switches in the mind, on whatever event loop (and so on whatever time) there is.

The object stands for all the cluster's devices. Whoever simulates the nodes hears of each switch by `switched`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pvc.errors import DriverError
from pvc.events.fence import FenceSettings


class SimulatedFence:
    """Devices that do as they are told, unless told otherwise.

    A node is on until it is switched off. `delay_s` makes every call slow; `fails` names the nodes whose device does
    not answer, `stuck` those whose device says that it obeys, and does not. `switched` is called with a node and
    whether it is on now, only when that changed, before the caller learns of it.
    """

    def __init__(self, *, delay_s: float = 0.0, switched: Callable[[str, bool], None] | None = None) -> None:
        self.delay_s = delay_s
        self.switched = switched
        self.fails: set[str] = set()
        self.stuck: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        """Every (action, node) that reached a device, in order."""
        self._off: set[str] = set()

    async def off(self, node: str, settings: FenceSettings) -> str:
        """Switch the node off."""
        await self._switch(node, settings, "off")
        return f"{settings.agent} (simulated): status OFF"

    async def on(self, node: str, settings: FenceSettings) -> None:
        """Switch the node on."""
        await self._switch(node, settings, "on")

    async def is_on(self, node: str, settings: FenceSettings) -> bool:
        """Whether the node is on."""
        await self._reach(node, settings, "status")
        return node not in self._off

    def power(self, node: str) -> bool:
        """Whether the node is on, asked from outside the simulated world."""
        return node not in self._off

    def press(self, node: str, *, on: bool) -> None:
        """Somebody presses the node's power button."""
        if on == (node not in self._off):
            return
        (self._off.discard if on else self._off.add)(node)
        if self.switched:
            self.switched(node, on)

    async def _switch(self, node: str, settings: FenceSettings, action: str) -> None:
        await self._reach(node, settings, action)
        if node in self.stuck:
            raise _failed(node, settings, action, "the device did not obey")
        self.press(node, on=action == "on")

    async def _reach(self, node: str, settings: FenceSettings, action: str) -> None:
        if self.delay_s > settings.timeout_s:
            await asyncio.sleep(settings.timeout_s)
            raise DriverError(
                f"{settings.agent} did not finish `{action}` for node {node} within {settings.timeout_s} s",
                code="fence.timeout",
            )
        await asyncio.sleep(self.delay_s)
        if node in self.fails:
            raise _failed(node, settings, action, "the device does not answer")
        self.calls.append((action, node))


def _failed(node: str, settings: FenceSettings, action: str, why: str) -> DriverError:
    return DriverError(f"{settings.agent} could not do `{action}` for node {node}: {why}", code="fence.failed")
