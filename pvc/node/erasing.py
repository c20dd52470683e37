"""Destroys the keys of people who are to be erased, and says so in the log.

The request is in the log first. So a crash before, between or after the two steps is no special case: whoever acts for
the cluster looks at what was requested, destroys what there still is, and reports what has not been reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from pvc.commands.audit import ReportPersonErased
from pvc.errors import PvcError
from pvc.events.access import ErasureRequested
from pvc.events.record import Entry
from pvc.events.registry import Event
from pvc.node.primary import Submit
from pvc.runtime.people import People
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

TICK_S = 1.0
"""Between two tries, and until a new term is noticed."""

SWEEP_S = 300.0
"""Between two looks for keys that have come back, out of a backup say."""


class Erasing:
    """One node's part; `run` until cancelled."""

    def __init__(
        self, node: str, world: World, people: People, submit: Submit, epoch: Callable[[], int | None]
    ) -> None:
        self._node = node
        self._world = world
        self._people = people
        self._submit = submit
        self._epoch = epoch
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Drop keys from memory on every node, and destroy them while this one acts for the cluster."""
        swept_in: int | None = None
        swept_s = 0.0
        with self._world.listening(self._note):
            self._people.forget_erased()
            while True:
                self._wanted.clear()
                epoch, now_s = self._epoch(), self._people.clock.monotonic()
                if epoch is not None:
                    try:
                        await self._destroy_requested()
                        if swept_in != epoch or now_s - swept_s >= SWEEP_S:
                            await self._destroy_returned()
                            swept_in, swept_s = epoch, now_s
                    except PvcError as error:
                        logger.warning("erasing: cannot destroy a key yet error=%s", error.message)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._wanted.wait()

    async def _destroy_requested(self) -> None:
        for erasure in [one for one in self._world.state.erasures.values() if not one.erased_us]:
            await self._people.keyring.destroy(erasure.key)
            await self._submit(ReportPersonErased(node=self._node, key=erasure.key), erasure.cause)
            logger.info("erasing: key destroyed key=%s", erasure.key)

    async def _destroy_returned(self) -> None:
        erasures = self._world.state.erasures
        if not erasures:
            return
        for key_id in await self._people.keyring.ids():
            if key_id in erasures:
                await self._people.keyring.destroy(key_id)
                logger.warning("erasing: a destroyed key had come back, from a copy? destroyed again key=%s", key_id)

    def _note(self, entry: Entry, events: tuple[Event, ...]) -> None:
        self._people.note(entry, events)
        if any(isinstance(event, ErasureRequested) for event in events):
            self._wanted.set()
