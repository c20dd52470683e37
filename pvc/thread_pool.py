"""Threads for blocking calls that a process may leave behind at its end, which `concurrent.futures` would wait for."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DaemonPool:
    """Up to `threads` of them, made as they are needed."""

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._threads = threads
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._started = 0

    async def run(self, do: Callable[[], T]) -> T:
        """`do()`'s result or exception. When cancelled, a `do` that has begun runs to its end, unheard; one that waits
        for a thread is not begun any more: by then the world may have moved on, and it could undo what came after."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            if future.done():
                return
            result, error = None, None
            try:
                result = do()
            except Exception as caught:  # noqa: BLE001 - it is raised again where it is awaited
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, result, error)

        self.submit(work)
        return await future

    def submit(self, do: Callable[[], object]) -> None:
        """Have `do` run some time; nobody hears of its result."""
        if self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._started}", daemon=True).start()
        self._work.put(do)

    def end(self) -> None:
        """The threads end after what is already submitted."""
        for _ in range(self._started):
            self._work.put(None)
        self._started = self._threads

    def _serve(self) -> None:
        while (do := self._work.get()) is not None:
            do()
