"""The pure half of the VM handler: from what is wanted and what is, the one next step.

One step at a time: after each the world is looked at again, so that a crash between any two steps, a command that comes
in between, or a guest that ends meanwhile need no case of their own. The table of states is `vm_machine`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from pvc.commands.facts import Ending, ReportEnded, ReportReset, ReportRunning, ReportShutdownTimedOut, VmReport
from pvc.commands.facts_moves import MoveReport, ReportArrived, ReportMigrationFailed
from pvc.drivers.hypervisor import Domain, DomainState, OffReason
from pvc.events.vm import VmSpec
from pvc.projections.state import Migration, Vm
from pvc.projections.vm_machine import AT_REST, VmState

UNSURE_S = 1.0
"""Until the next look at a node that may not start anything for now."""

PROGRESS_S = 1.0
"""Between two looks at a migration under way; its end wakes at once."""

SOON_S = 0.2
"""Until the next look at what another process is about to change."""

PREPARE_TIMEOUT_S = 30.0
"""The target only has to look at some files: one that needs longer is down, or cut off."""

TRANSFER_TIMEOUT_S = 180.0
"""For the last part of a migration, which a busy guest draws out; one that is not done then never will be."""

SLOWEST_MIB_PER_S = 16.0
"""For all the rest: a seventh of what a network of 1 Gbit/s carries."""

ARRIVAL_TIMEOUT_S = 30.0
"""The guest has left already, so its state is complete or will never be."""

CANCELLED = ("vm.migration_cancelled", "cancelled")

ASK_AGAIN_S = 5.0
"""A guest that is still booting misses the first press of the power button, so it is pressed again."""


class Define(msgspec.Struct, frozen=True, kw_only=True):
    """Make the run's domain known to the hypervisor."""

    name: str
    spec: VmSpec
    epoch: int


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Start the defined domain."""

    epoch: int


class AskShutdown(msgspec.Struct, frozen=True, kw_only=True):
    """Press the power button."""


class Destroy(msgspec.Struct, frozen=True, kw_only=True):
    """Force the domain off."""


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """Press the reset button, once for this mark."""

    mark: str


class Forget(msgspec.Struct, frozen=True, kw_only=True):
    """Undefine a domain that is off and told of."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Tell the log what was found."""

    report: VmReport | MoveReport


class Prepare(msgspec.Struct, frozen=True, kw_only=True):
    """See whether a guest that is to come could run here, and say so."""

    migration: str
    spec: VmSpec


class Migrate(msgspec.Struct, frozen=True, kw_only=True):
    """Begin to move the guest, or wait for the move that is under way; goes on in the background."""

    migration: Migration


class CancelMigration(msgspec.Struct, frozen=True, kw_only=True):
    """Give up the move that is under way."""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Look again after this long."""

    delay_s: float


Step: TypeAlias = (
    Define | Start | AskShutdown | Destroy | Reset | Forget | Report | Prepare | Migrate | CancelMigration | Wait
)


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long the node has been at it, in monotonic seconds since it first saw the request."""

    waited_s: float = 0.0
    since_asked_s: float | None = None
    """Since the power button was last pressed for this request; None: not yet."""
    may_start: bool = True
    """The node is surely a member in good standing, so that nobody else can have been given its VMs."""
    transferring: bool = False
    """A move of the guest is being waited for in the background."""
    queued: bool = False
    """It was not seen to have begun: perhaps it waits for its turn."""
    unwanted: bool = False
    """That move is one that the log has dropped meanwhile."""
    failure: tuple[str, str] | None = None
    """Code and message with which the last such move came to nothing."""


def plan_vm(vm: Vm | None, domain: Domain | None, node: str, patience: Patience) -> Step | None:
    """The next step for one VM on `node`, or None when all is as it should be."""
    step = _plan(vm, domain, node, patience)
    if isinstance(step, Define | Start) and not patience.may_start:
        return Wait(delay_s=UNSURE_S)
    return step


def may_run(vm: Vm | None, node: str, epoch: int) -> bool:
    """Whether a guest of this run may begin, or go on, to run on `node`: a start may hang while its VM is stopped and
    given away."""
    if vm is None or (vm.node, vm.epoch) != (node, epoch):
        return False
    return vm.state in (VmState.STARTING, VmState.ARRIVING, VmState.MIGRATING)


def _plan(vm: Vm | None, domain: Domain | None, node: str, patience: Patience) -> Step | None:
    if vm is not None and vm.node != node and vm.migration is not None and vm.migration.target == node:
        return _expect(vm, vm.migration, domain)
    if vm is None or vm.node != node or vm.state in AT_REST:
        return _clear_away(domain)
    if _must_stay(vm, domain, patience):
        return CancelMigration()
    match vm.state:
        case VmState.STARTING:
            return _start(vm, domain)
        case VmState.RUNNING:
            return _keep_running(vm, domain)
        case VmState.RESETTING:
            return _reset(vm, domain)
        case VmState.SHUTTING_DOWN:
            return _ended_or(vm, vm.epoch, domain, lambda: _ask(vm, vm.epoch, patience))
        case VmState.RESTARTING:
            return _end_previous_run(vm, domain, patience)
        case VmState.MIGRATING:
            return _depart(vm, domain, patience)
        case VmState.ARRIVING:
            return _arrive(vm, domain, patience)
        case VmState.STOPPING:
            return _ended_or(vm, vm.epoch, domain, Destroy)
    raise AssertionError(f"no plan for state {vm.state}")


def _must_stay(vm: Vm, domain: Domain | None, patience: Patience) -> bool:
    """Whether the guest is on its way, or waits for its turn, and the log does not want it to go."""
    if domain is None or domain.state is DomainState.OFF or vm.state is VmState.STOPPING:
        return False
    return patience.unwanted or (domain.migrating and vm.state is not VmState.MIGRATING)


def _clear_away(domain: Domain | None) -> Step | None:
    if domain is None:
        return None
    return Forget() if domain.state is DomainState.OFF else Destroy()


def _start(vm: Vm, domain: Domain | None) -> Step:
    define = Define(name=vm.name, spec=vm.running_spec or vm.spec, epoch=vm.epoch)
    if domain is None:
        return define
    if domain.state is not DomainState.OFF:
        if domain.epoch != vm.epoch:
            return Destroy()
        return Report(report=ReportRunning(vm=vm.id, node=vm.node, epoch=vm.epoch))
    if domain.epoch != vm.epoch:
        return define
    if domain.reason is OffReason.NEVER_RAN:
        return Start(epoch=vm.epoch)
    return _report_ended(vm, vm.epoch, domain)


def _keep_running(vm: Vm, domain: Domain | None) -> Step | None:
    if domain is not None and domain.state is not DomainState.OFF and domain.epoch == vm.epoch:
        return None
    return _ended_or(vm, vm.epoch, domain, Destroy)


def _reset(vm: Vm, domain: Domain | None) -> Step:
    if domain is not None and domain.state is not DomainState.OFF and domain.epoch == vm.epoch:
        if domain.reset_mark == vm.reset_mark:
            return Report(report=ReportReset(vm=vm.id, node=vm.node, epoch=vm.epoch, mark=vm.reset_mark))
        return Reset(mark=vm.reset_mark)
    return _ended_or(vm, vm.epoch, domain, Destroy)


def _end_previous_run(vm: Vm, domain: Domain | None, patience: Patience) -> Step:
    previous = vm.epoch - 1
    if vm.forced:
        return _ended_or(vm, previous, domain, Destroy)
    return _ended_or(vm, previous, domain, lambda: _ask(vm, previous, patience))


def _depart(vm: Vm, domain: Domain | None, patience: Patience) -> Step:
    """The source's part of a migration: until the guest has left, or is off to start elsewhere."""
    move = vm.migration
    assert move is not None, f"{vm.name} migrates nowhere"
    here = domain is not None and domain.epoch == vm.epoch
    if domain is None or not here or domain.state is DomainState.OFF:
        if here and patience.transferring and domain is not None and domain.reason is not OffReason.MIGRATED:
            # Its end is being told; but of one that waits for its turn nothing is told before that comes.
            return CancelMigration() if patience.queued else Wait(delay_s=SOON_S)
        return _ended_or(vm, vm.epoch, domain, Destroy)
    if not move.prepared:
        return _await_target(vm, move, patience)
    if not move.live:
        if move.cancel:
            # It may have heard the power button, and then ends by its own policy; but it is not forced off for this.
            return _not_moved(vm, move, *CANCELLED)
        return Destroy() if vm.forced else _ask(vm, vm.epoch, patience)
    limit_s = _transfer_limit_s(vm)
    endless = patience.waited_s >= limit_s
    if patience.failure is not None:
        if endless and not move.cancel:
            words = f"it was not done within {limit_s:.0f} s: the guest changes its memory faster than it can be sent"
            return _not_moved(vm, move, "vm.migration_endless", words)
        return _not_moved(vm, move, *patience.failure)
    if move.cancel and not domain.migrating and not patience.transferring:
        # libvirt died over it and has left the guest standing still.
        return Start(epoch=vm.epoch) if domain.state is DomainState.PAUSED else _not_moved(vm, move, *CANCELLED)
    if not patience.transferring:
        return Migrate(migration=move)
    return CancelMigration() if move.cancel or endless else Wait(delay_s=PROGRESS_S)


def _transfer_limit_s(vm: Vm) -> float:
    return TRANSFER_TIMEOUT_S + (vm.running_spec or vm.spec).memory_mib / SLOWEST_MIB_PER_S


def _await_target(vm: Vm, move: Migration, patience: Patience) -> Step:
    if move.cancel:
        return _not_moved(vm, move, *CANCELLED)
    if patience.waited_s >= PREPARE_TIMEOUT_S:
        return _not_moved(
            vm, move, "vm.target_silent", f"{move.target} did not answer within {PREPARE_TIMEOUT_S:.0f} s"
        )
    return Wait(delay_s=PREPARE_TIMEOUT_S - patience.waited_s)


def _not_moved(vm: Vm, move: Migration, code: str, message: str) -> Report:
    return Report(report=ReportMigrationFailed(vm=vm.id, node=vm.node, migration=move.id, code=code, message=message))


def _expect(vm: Vm, move: Migration, domain: Domain | None) -> Step | None:
    """The target's part until the guest is its own: to make sure that it can take it, and to let it come."""
    if not move.prepared and not move.cancel:
        # What is left of an earlier try would stand in the way, or be taken for the guest that is to come.
        return _clear_away(domain) or Prepare(migration=move.id, spec=vm.running_spec or vm.spec)
    return None


def _arrive(vm: Vm, domain: Domain | None, patience: Patience) -> Step:
    """The target's part from then on: the guest stands still here, and nowhere else is it any more."""
    if domain is None or domain.state is DomainState.OFF or domain.epoch != vm.epoch:
        return _ended_or(vm, vm.epoch, domain, Destroy)
    if domain.state is DomainState.INCOMING:
        return Wait(delay_s=SOON_S) if patience.waited_s < ARRIVAL_TIMEOUT_S else Destroy()
    if domain.state is DomainState.PAUSED:
        return Start(epoch=vm.epoch)
    return Report(report=ReportArrived(vm=vm.id, node=vm.node, epoch=vm.epoch))


def _ask(vm: Vm, epoch: int, patience: Patience) -> Step:
    left_s = vm.shutdown_timeout_s - patience.waited_s
    if left_s <= 0:
        return Report(report=ReportShutdownTimedOut(vm=vm.id, node=vm.node, epoch=epoch, request=vm.cause))
    if patience.since_asked_s is None or patience.since_asked_s >= ASK_AGAIN_S:
        return AskShutdown()
    return Wait(delay_s=min(left_s, ASK_AGAIN_S - patience.since_asked_s))


def _ended_or(vm: Vm, epoch: int, domain: Domain | None, running: Callable[[], Step]) -> Step:
    """Report that the run ended, or do what is to be done while its domain still runs."""
    if domain is None or domain.state is DomainState.OFF:
        return _report_ended(vm, epoch, domain)
    # A domain of another run has no business here; it is no longer, or not yet, wanted.
    return running() if domain.epoch == epoch else Destroy()


def _report_ended(vm: Vm, epoch: int, domain: Domain | None) -> Step:
    if domain is not None and domain.reason is OffReason.NEVER_RAN:
        # A start that hangs has perhaps created it, and would let it run. Once its end is told the VM may be another's.
        return Forget()
    ending = Ending.LOST if domain is None or domain.epoch != epoch else _ENDINGS[domain.reason]
    return Report(report=ReportEnded(vm=vm.id, node=vm.node, epoch=epoch, ending=ending))


_ENDINGS = {
    OffReason.GUEST: Ending.GUEST,
    OffReason.DESTROYED: Ending.DESTROYED,
    OffReason.CRASHED: Ending.CRASHED,
    OffReason.NEVER_RAN: Ending.LOST,
    OffReason.MIGRATED: Ending.MIGRATED,
    OffReason.UNKNOWN: Ending.UNKNOWN,
    None: Ending.UNKNOWN,
}
