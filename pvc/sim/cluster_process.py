"""Processes on the virtual loop: whatever a process has begun can be stopped, let go on, or ended in mid-step.

Every callback of the loop belongs to the process in whose context it was made: its tasks, their timers, and what wakes
them. Those of a stopped process are held back while the clock goes on, those of a dead one never run: no line of its
code, no `finally`, just as after SIGSTOP and SIGKILL. What belongs to no process is the world, which nothing stops.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, TypeVar

from pvc.sim.loop import VirtualLoop

T = TypeVar("T")


class Process:
    """Something that runs, on a machine that may stop as a whole (`parent`)."""

    def __init__(self, name: str, parent: Process | None = None) -> None:
        self.name = name
        self.dead = False
        self._parent = parent
        self._children: list[Process] = []
        self._frozen = False
        self._held: list[asyncio.Handle] = []
        self._remains: list[asyncio.Task[Any]] = []
        the_loop().processes.append(self)
        if parent is not None:
            parent._children = [child for child in parent._children if not child.dead] + [self]

    @property
    def frozen(self) -> bool:
        """Whether it stands still, by itself or with its machine."""
        return self._frozen or (self._parent is not None and self._parent.frozen)

    def freeze(self) -> None:
        """Stop it in mid-step."""
        self._frozen = True

    def thaw(self) -> None:
        """Let it go on with what has become due."""
        self._frozen = False
        self._resume()

    def kill(self) -> None:
        """End it."""
        self.dead = True
        # Were they collected as garbage, their `finally` would run after all, and now or later as memory has it.
        self._remains = list(asyncio.all_tasks())

    def bury(self) -> None:
        """Let it run to its end after all; nothing that it does counts any more."""
        self.dead, self._parent = False, None
        self.thaw()

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep what may not run now, or never."""
        self._held.append(handle)

    def run(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Begin a task of this process."""
        context = Context()
        context.run(_OWNER.set, self)
        return asyncio.get_running_loop().create_task(coroutine, name=name, context=context)

    def _resume(self) -> None:
        if self.frozen or self.dead:
            return
        held, self._held = self._held, []
        the_loop().take_back(held)
        for child in self._children:
            child._resume()


_OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)


async def at(process: Process | None, coroutine: Coroutine[Any, Any, T], name: str) -> T:
    """Have another process (or the world) do something, and wait for it; it is done also if who waits does not."""
    if process is not None:
        task = process.run(coroutine, name)
    else:
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


def in_world(act: Callable[..., T], *args: Any) -> T:
    """Do something at once, so that its timers belong to nobody."""
    return Context().run(act, *args)


class _Gated(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        if not _held_back(self):
            super()._run()


class _GatedTimer(asyncio.TimerHandle):
    __slots__ = ()
    _scheduled: bool

    def _run(self) -> None:
        if not _held_back(self):
            super()._run()


def _held_back(handle: Any) -> bool:
    process: Process | None = handle._context.get(_OWNER)
    if process is None or not (process.dead or process.frozen):
        return False
    process.hold(handle)
    return True


class ClusterLoop(VirtualLoop):
    """A virtual loop that knows whose every callback is."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def take_back(self, held: list[asyncio.Handle]) -> None:
        """These may run now."""
        self._ready.extend(handle for handle in held if not handle.cancelled())

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        handle = _Gated(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As the loop's own, but for whose it is."""
        timer = _GatedTimer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer


def the_loop() -> ClusterLoop:
    """The loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClusterLoop), "processes need a loop of their own"
    return loop


def run_processes(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a fresh loop; then everything that is left is cancelled, the dead as well."""
    loop = ClusterLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(bury(loop))
        asyncio.set_event_loop(None)
        loop.close()


async def bury(loop: ClusterLoop) -> None:
    """End everything that a loop still has, the dead as well."""
    for process in loop.processes:
        process.bury()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        if task is not None:
            task.cancel()
    await asyncio.gather(*(task for task in left if task is not None), return_exceptions=True)
    await loop.shutdown_asyncgens()
