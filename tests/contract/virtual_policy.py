"""Test loops with virtual time, for contract suites that run on the simulated twins."""

from __future__ import annotations

import asyncio

from pvc.sim.loop import VirtualLoop


class VirtualPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes loops with virtual time."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return VirtualLoop()
