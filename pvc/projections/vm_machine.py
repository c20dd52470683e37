"""The VM's state machine: everything that affects it is in this table.

Theory of operation. An admin's command becomes a request event, which moves the VM into a state that *wants*
something (`starting`, `stopping`, ...). The node that owns the VM works until the hypervisor agrees, and reports a
fact, which moves the VM on. A pair (state, event) that is not in the table leaves the state as it is: such a fact
came too late to matter, and stays in the history only. `decide` never emits a request that the table does not know;
a property test sees to it.

`docs/vm-states.md` is drawn from this table.
"""

from __future__ import annotations

from enum import StrEnum

from pvc.events import vm as e
from pvc.events import vm_moves as m


class VmState(StrEnum):
    """Where a VM stands between what is wanted and what is."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    RESETTING = "resetting"
    MIGRATING = "migrating"
    """Its node is still the source, where it runs until it has gone."""
    ARRIVING = "arriving"
    """Its node is the target, where it stands still until that lets it run."""
    FAILED = "failed"
    DISABLED = "disabled"


S = VmState

WANTED = frozenset({S.STARTING, S.RUNNING, S.RESTARTING, S.RESETTING, S.MIGRATING, S.ARRIVING})
"""States in which the VM is to run, so that it must run elsewhere when its node is gone."""

TRANSITIONS: dict[tuple[VmState, str], VmState] = {
    # At rest: not running, nothing to do. A policy that gives up on a VM that is off shows that.
    (S.STOPPED, e.VmStartRequested.TYPE): S.STARTING,
    (S.STOPPED, e.VmDisabled.TYPE): S.DISABLED,
    (S.STOPPED, e.VmFailed.TYPE): S.FAILED,
    (S.FAILED, e.VmFailed.TYPE): S.FAILED,
    (S.FAILED, e.VmStartRequested.TYPE): S.STARTING,
    (S.FAILED, e.VmDisabled.TYPE): S.DISABLED,
    (S.DISABLED, e.VmEnabled.TYPE): S.STOPPED,
    # On its way up.
    (S.STARTING, e.VmStarted.TYPE): S.RUNNING,
    (S.STARTING, e.VmStartFailed.TYPE): S.FAILED,
    (S.STARTING, e.VmStopRequested.TYPE): S.STOPPING,
    # Running.
    (S.RUNNING, e.VmShutdownRequested.TYPE): S.SHUTTING_DOWN,
    (S.RUNNING, e.VmStopRequested.TYPE): S.STOPPING,
    (S.RUNNING, e.VmRestartRequested.TYPE): S.RESTARTING,
    (S.RUNNING, e.VmResetRequested.TYPE): S.RESETTING,
    (S.RUNNING, e.VmStopped.TYPE): S.STOPPED,
    (S.RUNNING, e.VmCrashed.TYPE): S.FAILED,
    # On its way down.
    (S.SHUTTING_DOWN, e.VmStopped.TYPE): S.STOPPED,
    (S.SHUTTING_DOWN, e.VmCrashed.TYPE): S.STOPPED,
    (S.SHUTTING_DOWN, e.VmStopRequested.TYPE): S.STOPPING,
    (S.SHUTTING_DOWN, e.VmShutdownTimedOut.TYPE): S.STOPPING,
    (S.SHUTTING_DOWN, e.VmShutdownAbandoned.TYPE): S.RUNNING,
    (S.STOPPING, e.VmStopped.TYPE): S.STOPPED,
    (S.STOPPING, e.VmCrashed.TYPE): S.STOPPED,
    # Down and up again: the end of the old run, which a time-out forces, makes it a plain start.
    (S.RESTARTING, e.VmShutdownTimedOut.TYPE): S.RESTARTING,
    (S.RESTARTING, e.VmStopped.TYPE): S.STARTING,
    (S.RESTARTING, e.VmCrashed.TYPE): S.STARTING,
    (S.RESTARTING, e.VmStopRequested.TYPE): S.STOPPING,
    # The reset button.
    (S.RESETTING, e.VmWasReset.TYPE): S.RUNNING,
    (S.RESETTING, e.VmStopRequested.TYPE): S.STOPPING,
    (S.RESETTING, e.VmStopped.TYPE): S.STOPPED,
    (S.RESETTING, e.VmCrashed.TYPE): S.FAILED,
    # To another node, without a stop: it is the source's until it has left, then the target's.
    (S.RUNNING, m.VmMigrationRequested.TYPE): S.MIGRATING,
    (S.MIGRATING, m.VmMigrationRequested.TYPE): S.MIGRATING,
    (S.MIGRATING, m.VmMigrationPrepared.TYPE): S.MIGRATING,
    (S.MIGRATING, m.VmMigrationCancelRequested.TYPE): S.MIGRATING,
    (S.MIGRATING, m.VmMigrationFailed.TYPE): S.RUNNING,
    (S.MIGRATING, m.VmMigrated.TYPE): S.ARRIVING,
    (S.MIGRATING, e.VmStopRequested.TYPE): S.STOPPING,
    (S.MIGRATING, e.VmCrashed.TYPE): S.FAILED,
    (S.ARRIVING, m.VmArrived.TYPE): S.RUNNING,
    (S.ARRIVING, e.VmStopRequested.TYPE): S.STOPPING,
    (S.ARRIVING, e.VmStopped.TYPE): S.STOPPED,
    (S.ARRIVING, e.VmCrashed.TYPE): S.FAILED,
    # The same by way of a shutdown.
    (S.MIGRATING, e.VmShutdownTimedOut.TYPE): S.MIGRATING,
    (S.MIGRATING, e.VmStopped.TYPE): S.STOPPED,
    (S.MIGRATING, m.VmRelocated.TYPE): S.STARTING,
    # Away from a node that is fenced, and so without any domain there.
    **dict.fromkeys(((state, m.VmRecovered.TYPE) for state in sorted(WANTED)), S.STARTING),
    **{(state, m.VmRecoveryDelayed.TYPE): state for state in sorted(WANTED)},
    # At rest it simply belongs to another node; where it runs already it may get its home.
    **{(state, m.VmMoved.TYPE): state for state in (S.STOPPED, S.FAILED, S.DISABLED, S.RUNNING)},
}

AT_REST = frozenset({S.STOPPED, S.FAILED, S.DISABLED})
"""States in which no domain of the VM runs, or may run."""

ACTIVE = frozenset(set(VmState) - AT_REST)
"""States in which the VM occupies memory and vCPUs of its node."""


def next_state(state: VmState, event_type: str) -> VmState | None:
    """The state after an event; None where the table has no such pair, and the event so changes nothing."""
    return TRANSITIONS.get((state, event_type))
