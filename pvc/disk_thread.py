"""A thread in which all that touches one file takes its turn, and for which nobody waits longer than for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["DEADLINE_S", "DiskSlow", "DiskThread"]

DEADLINE_S = 30.0
"""How long any call waits for its turn and the disk; a disk that takes longer is as good as gone."""

T = TypeVar("T")


class DiskSlow(TimeoutError):
    """The thread did not come to the end of it in time; it may still do so."""


class DiskThread:
    """One thread: what is asked for is done in the order asked.

    What was begun is brought to its end, though nobody waits for it any more. What nobody waits for when its turn comes
    is left out: a disk that comes back after minutes would else read first what was asked for in all of them.
    """

    def __init__(self, name: str) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T], *, deadline_s: float | None = None, surely: bool = False) -> T:
        """`work()`'s result or exception. Raises DiskSlow, an OSError.

        `surely`: it is never left out, such as the closing of a file.
        """
        deadline_s = DEADLINE_S if deadline_s is None else deadline_s
        if surely:  # only to take its result has a turn that can be left out
            work = self._worker.submit(work).result
        done = asyncio.get_running_loop().run_in_executor(self._worker, work)
        try:
            async with asyncio.timeout(deadline_s) as limit:
                return await done
        except TimeoutError as error:
            if not limit.expired():
                raise  # its own
            raise DiskSlow(f"the disk did not answer within {deadline_s:g} s") from error

    def end(self) -> None:
        """End after what was asked for already; nothing more may be asked for."""
        self._worker.shutdown(wait=False)
