"""What a node acts by: a fold that goes on, of a log that is whole.

While a log is filled again, by a restore or a repair, its last record is one of the past: a VM that is running then is
unknown there, or off. Who acted by it would destroy the guest.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pvc.errors import PvcError, Unavailable
from pvc.log.base import Log
from pvc.projections.state import ClusterState
from pvc.runtime.world import World


@runtime_checkable
class Fillable(Protocol):
    """A log that can be filled again while nodes follow it. Both are as of the last look at the log; a record is never
    seen before them."""

    @property
    def held_by(self) -> str:
        """Who alone may append; empty: everybody."""
        ...

    @property
    def filled_to(self) -> int:
        """Up to here it may have been filled while somebody held it, or before it was first seen."""
        ...


class Footing:
    """Says whether this process's fold may be acted by."""

    def __init__(self, world: World, log: Log) -> None:
        self._world = world
        self._log = log if isinstance(log, Fillable) else None

    def state(self) -> ClusterState:
        """The state, to act by. Raises what has stopped the fold: what it says of a VM may long be over, and the one
        that looks like a stray may have been moved here since; Unavailable while the log, or the fold of it, is not
        whole."""
        if self._world.fault is not None:
            raise self._world.fault.with_traceback(None)
        log = self._log
        if log is not None and (log.held_by or self._world.position < log.filled_to):
            why = f"is held by {log.held_by}" if log.held_by else f"was filled again up to record {log.filled_to}"
            raise Unavailable(
                f"the log {why}: this node, which has folded it up to {self._world.position}, leaves its VMs alone",
                code="log.held",
                hint="wait for the repair or restore to end; `pvc log status` tells",
            )
        return self._world.state

    @property
    def firm(self) -> bool:
        """Whether `state` can be had."""
        try:
            self.state()
        except PvcError:
            return False
        return True
