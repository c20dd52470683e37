"""Past states: what was true at an earlier position, from the nearest stored state and a replay of what came after it.

The records come from the history index, which every node keeps whole, so the log itself is not asked. Folding takes
place in a thread, in pieces, so that the event loop goes on meanwhile. The last few states are kept: a walk over the
pages of a list replays once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from pvc.errors import Unavailable
from pvc.events.record import unseal
from pvc.log.history import HistoryIndex
from pvc.projections.fold import fold
from pvc.projections.snapshot import snapshot_to_read
from pvc.projections.state import ClusterState
from pvc.runtime.past_files import PastFiles

KEPT = 4
"""States kept at hand: the two of a diff and those of two readers. One of 10,000 VMs takes some 40 MB."""

PAST_DEADLINE_S = 30.0
"""How long a past state may take. Without any stored state that is some three million records; what was replayed by
then is stored, so that asking again goes on from there."""

INDEX_DEADLINE_S = 10.0
"""How long to wait for the history index, which is some milliseconds behind."""

_PIECE = 500
"""Records folded at a time: some 5 ms of the interpreter, which the event loop needs too."""


class PastStates:
    """States of the past, of one node. Lives in one event loop."""

    def __init__(self, history: HistoryIndex, files: PastFiles | None = None) -> None:
        self._history = history
        self._files = files
        self._kept: OrderedDict[int, ClusterState] = OrderedDict()
        self._lock = asyncio.Lock()
        self._generation = 0

    async def at(self, position: int) -> ClusterState:
        """The state once this record was folded, which must be in the log. Shared: fork it before changing anything.

        Raises Unavailable (`past.too_slow`, `history.*`), UnknownEvent or LogDamaged.
        """
        try:
            async with asyncio.timeout(PAST_DEADLINE_S), self._lock:
                self._forget_untrusted()
                kept = self._kept.get(position)
                if kept is None:
                    await self._history.reach(position, INDEX_DEADLINE_S)
                    kept = await self._beginning(position)
                    await self._replay(kept, position)
                    self._kept[position] = kept
                self._kept.move_to_end(position)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
                return kept
        except TimeoutError:
            raise Unavailable(
                f"the state at position {position} took longer than {PAST_DEADLINE_S:g} s to make",
                code="past.too_slow",
                hint="ask again: what was replayed so far is kept",
            ) from None

    async def hash_of(self, state: ClusterState) -> str:
        """The canonical hash of a state from here. One that was just replayed has all of its objects to hash yet, so it
        is done in a thread; two readers at once would be in each other's way, so one after the other."""
        async with self._lock:
            return await asyncio.to_thread(state.state_hash)

    def _forget_untrusted(self) -> None:
        if self._files is not None and self._files.generation != self._generation:
            self._generation = self._files.generation
            self._kept.clear()

    async def _beginning(self, position: int) -> ClusterState:
        """A state of our own at this position or before, the nearest there is."""
        near = max((known for known in self._kept if known <= position), default=0)
        stored = None
        if self._files is not None:
            stored = await self._stored(self._files, position, near)
        if stored is not None:
            return stored
        return self._kept[near].fork() if near else ClusterState()

    async def _stored(self, files: PastFiles, position: int, after: int) -> ClusterState | None:
        while True:
            known = await asyncio.to_thread(files.positions)
            if not any(after < one <= position for one in known):
                return None
            state = await asyncio.to_thread(files.nearest, position)
            if state is None or state.position <= after:
                return None
            data = await self._history.data(state.position)
            if data is not None and unseal(data).hash == state.head.hash:
                return state
            await asyncio.to_thread(files.drop, state.position)  # it is of another log

    async def _replay(self, state: ClusterState, position: int) -> None:
        while state.position < position:
            limit = min(_PIECE, position - state.position)
            if self._files is not None:
                limit = min(limit, self._files.spacing - state.position % self._files.spacing)
            batch = await self._history.read(state.position + 1, limit)
            if not batch:
                raise not_indexed(state.position + 1)
            await asyncio.to_thread(_fold_all, state, batch)
            if self._files is not None and state.position % self._files.spacing == 0:
                await asyncio.to_thread(_store, self._files, state)


def not_indexed(position: int) -> Unavailable:
    """The error of a record that the index had, and has no more: it was found damaged, and is being filled again."""
    return Unavailable(
        f"the history index has no record {position} just now",
        code="history.behind",
        hint="try again in a moment; after damage it is built anew from the log",
    )


def _fold_all(state: ClusterState, batch: Sequence[bytes]) -> None:
    for data in batch:
        fold(state, unseal(data))


def _store(files: PastFiles, state: ClusterState) -> None:
    if files.wants(state.position):
        files.save(state.position, snapshot_to_read(state))
