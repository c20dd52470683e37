"""Where the log is, as of some seconds ago: for who asks often, and must not make ZooKeeper work each time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextvars import Context

from pvc.clock import Clock
from pvc.errors import PvcError
from pvc.runtime.log_care import LogCare, LogStatus

logger = logging.getLogger(__name__)

AGAIN_S = 30.0
"""Between two looks: each reads the manifests' names and the archives' directories."""

FIRST_S = 1.0
"""The very first is waited for so long."""

DEADLINE_S = 20.0


class LogGlance:
    """Looks when it is asked and the last look is old. Lives in one event loop."""

    def __init__(self, care: LogCare | None, clock: Clock) -> None:
        self._care = care
        self._clock = clock
        self._status: LogStatus | None = None
        self._seen_s = 0.0
        self._begun_s = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def look(self) -> tuple[LogStatus | None, float]:
        """What was seen last, and its age in seconds; None: nothing yet."""
        if self._care is None:
            return None, 0.0
        if self._task is None and self._clock.monotonic() - self._begun_s >= AGAIN_S:
            self._begun_s = self._clock.monotonic()
            # Its own context: what it may have to say is about no request.
            self._task = asyncio.create_task(self._look(self._care), name="log glance", context=Context())
        if self._status is None and self._task is not None:
            await asyncio.wait({self._task}, timeout=FIRST_S)
        return self._status, self._clock.monotonic() - self._seen_s

    async def _look(self, care: LogCare) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEADLINE_S):
                    self._status = await care.status()
                    self._seen_s = self._clock.monotonic()
        except PvcError as error:
            logger.debug("metrics: log not looked at error=%s", error)
        finally:
            self._task = None
