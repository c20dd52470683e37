"""What to do about a fault, by its code: the short form of the table in docs/cluster.md."""

from __future__ import annotations

from collections.abc import Callable

from pvc.projections.evolve_log import ANCHOR_FAILING
from pvc.projections.evolve_node import DIVERGED, FLUSH_INCOMPLETE, LOG_DIFFERS, LOST, UNFENCED, UNHEARD
from pvc.projections.evolve_vm import FAILED, UNPLACED
from pvc.projections.evolve_webhook import DISABLED as WEBHOOK_DISABLED
from pvc.projections.state import ClusterState, Fault, NodeState


def hint_of(state: ClusterState, fault: Fault) -> str:
    """The remedy, with the name of the node or VM; empty for a code that none is known of."""
    hint = HINTS.get(fault.code)
    subject = fault.subject.partition("/")[2]
    vm = state.vms.get(subject)
    hook = state.webhooks.get(subject)
    named = vm.name if vm is not None else hook.name if hook is not None else subject
    return hint(state, named) if hint is not None else ""


def _lost(state: ClusterState, name: str) -> str:
    node = state.nodes.get(name)
    if node is None or node.state is not NodeState.LOST:
        return f"look at the machine; there is no hurry: its VMs run elsewhere (`pvc node info {name}`)"
    return f"look at the machine; its VMs are recovered once it is fenced (`pvc node info {name}`)"


HINTS: dict[str, Callable[[ClusterState, str], str]] = {
    LOST: _lost,
    UNFENCED: lambda state, name: (
        f"mend its fence agent or bring it back; or cut its power by hand, and once you are sure that it is off: "
        f"`pvc node confirm-fenced {name}`"
    ),
    UNHEARD: lambda state, name: (
        f"start pvcd on {name}; or, once you are sure that the machine is off: `pvc node confirm-fenced {name}`"
    ),
    FLUSH_INCOMPLETE: lambda state, name: (
        f"shut them down, make room or lift node limits; then again: `pvc node flush {name} --wait`"
    ),
    DIVERGED: lambda state, name: f"restart pvcd on {name}; it folds anew. If it comes back, report it with both logs",
    LOG_DIFFERS: lambda state, name: (
        f"change nothing on {name} before there are copies: `pvc log export FILE` there and on another node, then "
        f"`pvc log verify --files FILE` with the anchored checkpoints"
    ),
    ANCHOR_FAILING: lambda state, name: (
        "mend the place, or take it out of [anchor] in pvc.toml; what it missed is delivered then"
    ),
    WEBHOOK_DISABLED: lambda state, name: (
        f"mend the receiver, or give it another owner, then `pvc webhook resume {name}`: nothing is lost; or "
        f"`pvc webhook remove {name}`"
    ),
    FAILED: lambda state, name: f"`pvc vm info {name}` has the reason; mend it, then `pvc vm start {name}`",
    UNPLACED: lambda state, name: (
        f"make room, bring a node back, or lift its limits (`pvc vm node-limits {name}`); it is placed by itself then"
    ),
}
