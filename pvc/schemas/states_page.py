"""docs/vm-states.md: the VM's state machine as a picture, a table and a sentence for every state."""

from __future__ import annotations

from pvc.events.registry import BY_TYPE
from pvc.gateway.cards import docstring
from pvc.projections.vm_machine import AT_REST, TRANSITIONS, VmState
from pvc.schemas.markdown import NOTICE, block, table

MEANINGS = {
    VmState.STOPPED: "Not running, and nobody wants it to.",
    VmState.STARTING: "It is to run; its node is starting it.",
    VmState.RUNNING: "It runs.",
    VmState.SHUTTING_DOWN: "The guest was asked to power itself off, and has some time left to do so.",
    VmState.STOPPING: "It is being forced off.",
    VmState.RESTARTING: "The old run is being shut down; a new one begins when it has ended.",
    VmState.RESETTING: "Its reset button is being pressed.",
    VmState.MIGRATING: "It is on its way to another node, and still runs on its own, the source.",
    VmState.ARRIVING: "The guest has left the source and stands still on its node, the target, about to run on there.",
    VmState.FAILED: "It does not run, though somebody wanted it to. `pvc vm info` says why.",
    VmState.DISABLED: "It does not run and cannot be started until it is enabled.",
}

_INTRODUCTION = """\
# The states of a VM

Drawn from the table in `pvc/projections/vm_machine.py`, which is all there is: what is not in it changes nothing.

A command of an admin, or a policy, becomes a *request*, and moves the VM into a state that wants something. The VM's
node works until the hypervisor agrees, and reports a *fact*, which moves the VM on. A fact that comes too late to
matter stays in the history and moves nothing.

"""


def states_page() -> str:
    """The whole page."""
    meanings = table(
        ("state", "", "meaning"),
        ((f"`{state}`", "at rest" if state in AT_REST else "active", MEANINGS[state]) for state in VmState),
    )
    return NOTICE + _INTRODUCTION + _picture() + _ACTIVE_MEANS + meanings + "## All transitions\n\n" + _transitions()


_ACTIVE_MEANS = """\
An *active* VM occupies memory and vCPUs of its node; of a VM *at rest* no domain runs, or may run.

"""


def _picture() -> str:
    edges: dict[tuple[VmState, VmState], list[str]] = {}
    for (before, event), after in TRANSITIONS.items():
        edges.setdefault((before, after), []).append(_short(event))
    lines = ["stateDiagram-v2", f"    [*] --> {_node(VmState.STOPPED)}: defined"]
    lines += [f'    state "{state}" as {_node(state)}' for state in VmState if _node(state) != state]
    lines += [f"    {_node(a)} --> {_node(b)}: {', '.join(events)}" for (a, b), events in edges.items()]
    lines.append(f"    {_node(VmState.STOPPED)} --> [*]: removed")
    return block("\n".join(lines), "mermaid")


def _transitions() -> str:
    rows = (
        (f"`{before}`", f"`{event}`", f"`{after}`", docstring(BY_TYPE[event])[0])
        for (before, event), after in TRANSITIONS.items()
    )
    return table(("in state", "event", "becomes", "the event says"), rows).rstrip("\n") + "\n"


def _short(event: str) -> str:
    return event.removeprefix("vm.").replace("_", " ")


def _node(state: VmState) -> str:
    return state.value.replace("-", "_")
