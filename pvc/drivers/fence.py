"""The Fence protocol: how it is made certain that a lost node runs nothing. Twins: Debian's fence agents, simulated.

What counts is not that an order was given, but that the device afterwards says "off": only then may the node's VMs be
started elsewhere.
"""

from __future__ import annotations

from typing import Protocol

from pvc.events.fence import FenceSettings


class Fence(Protocol):
    """Switches the power of nodes; every call is idempotent.

    Raises DriverError: `fence.failed` (the device refuses, is not reached, or does not say what was asked for),
    `fence.timeout`, `fence.agent_missing`, `fence.password_unreadable`.
    """

    async def off(self, node: str, settings: FenceSettings) -> str:
        """Cut the node's power and verify it. Returns the evidence, one line for the log without any secret.

        A node whose power is off already is verified likewise.
        """
        ...

    async def on(self, node: str, settings: FenceSettings) -> None:
        """Give the node power again."""
        ...

    async def is_on(self, node: str, settings: FenceSettings) -> bool:
        """Whether the device says that the node has power."""
        ...
