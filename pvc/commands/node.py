"""Commands about nodes: membership, fencing, and taking them out of service and back."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, find_node, invalid, require_cluster
from pvc.commands.fence_settings import check_settings
from pvc.commands.log import retirements
from pvc.commands.vm_ref import NOTHING
from pvc.errors import Rejected
from pvc.events import node as e
from pvc.events.fence import FenceSettings
from pvc.events.types import NodeName
from pvc.projections.operations import Course
from pvc.projections.state import ClusterState, FlushState, Node, NodeState
from pvc.projections.vm_machine import ACTIVE

NodeRef = Annotated[str, Meta(min_length=1, max_length=63, description="Name of the node.", examples=["hv2"])]
Coordinator = Annotated[
    bool, Meta(description="It runs a ZooKeeper server and a gateway, and may act for the cluster as its primary.")
]
AgentOptions = Annotated[
    tuple[Annotated[str, Meta(pattern=r"^[^=\s]+=", max_length=320)], ...],
    Meta(max_length=32, description="Options of the agent as NAME=VALUE, such as ip=10.0.1.2; no secrets."),
]


class AddNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make a node a member of the cluster, so that its daemon may join."""

    node: NodeName
    coordinator: Coordinator = False


class RemoveNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make a node no member any more; no VM may belong to it."""

    node: NodeRef


class SetNodeFence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set how a node's power is cut when it is lost; without an agent, it is not.

    The agent is one of Debian's fence-agents. Its password stands in a file on every coordinator, never in the log.
    """

    node: NodeRef
    agent: Annotated[str, Meta(description="Fence agent.", examples=["fence_ipmilan"])] = ""
    option: AgentOptions = ()
    password_file: Annotated[str, Meta(description="File with the password, on every coordinator.")] = ""
    timeout_s: Annotated[int, Meta(description="How long fencing may take, in seconds.")] = 60


class FlushNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Move all running VMs off a node, and let it take no more, so that it can be serviced."""

    node: NodeRef


class ReadyNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Let a flushed node take VMs again, and bring those home that were flushed or recovered from it."""

    node: NodeRef


class ConfirmNodeFenced(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Declare that nothing runs on a lost node that could not be fenced; its VMs are then started elsewhere.

    Only after its power has been cut by hand: a VM that still runs there would run twice and destroy its data.
    """

    node: NodeRef


def add_node(state: ClusterState, command: AddNode, context: Context) -> Decision:
    """A node that is none yet."""
    require_cluster(state)
    if command.node in state.nodes:
        raise Rejected(
            f"{command.node} is a node of the cluster already",
            code="node.exists",
            hint=f"`pvc node info {command.node}` shows it",
        )
    joined = e.NodeJoined(node=command.node, coordinator=command.coordinator)
    return Decision(events=(joined,), notes=_if_even(len(_coordinators(state)) + 1) if command.coordinator else ())


def remove_node(state: ClusterState, command: RemoveNode, context: Context) -> Decision:
    """One that no VM belongs to, and that is flushed or gone; one coordinator must stay."""
    node = find_node(state, command.node)
    coordinators = _coordinators(state)
    if coordinators == [node]:
        raise Rejected(
            f"node {node.name} is the only coordinator: without it, nothing could act for the cluster",
            code="node.last_coordinator",
            hint="make another one first: pvc node add NODE --coordinator",
        )
    if node.state is NodeState.LOST and node.flush is not FlushState.FLUSHED:
        raise Rejected(
            f"node {node.name} is lost, and it is not certain that nothing runs there",
            code="node.in_service",
            hint=_how_to_settle(node),
        )
    vms = {*_here_or_coming(state, node), *_away_from(state, node)}
    held = sorted(state.vms[vm].name for vm in vms)
    if held:
        raise Rejected(
            f"{len(held)} VMs belong to node {node.name}: {', '.join(held[:5])}{', ...' if len(held) > 5 else ''}",
            code="node.has_vms",
            hint=f"move them for good: pvc vm move {held[0]}",
        )
    if node.state is NodeState.READY and node.flush is not FlushState.FLUSHED:
        raise Rejected(
            f"node {node.name} is in service",
            code="node.in_service",
            hint=f"flush it first: pvc node flush {node.name} --wait",
        )
    retired = retirements(state, node.name, "node removed")
    notes = _if_even(len(coordinators) - 1) if node.coordinator else ()
    return Decision(events=(e.NodeRemoved(node=node.name), *retired), notes=notes)


def set_node_fence(state: ClusterState, command: SetNodeFence, context: Context) -> Decision:
    """Settings that fence-agents could use, and that give nothing away."""
    node = find_node(state, command.node)
    settings = None
    if command.agent:
        options = dict(option.split("=", 1) for option in command.option)
        settings = FenceSettings(
            agent=command.agent,
            options=options,
            password_file=command.password_file,
            timeout_s=command.timeout_s,
        )
        check_settings(settings)
    elif command.option or command.password_file:
        raise invalid("agent", "options without an agent", "name the agent, such as fence_ipmilan", "input.conflict")
    if settings == node.fence:
        return NOTHING
    return Decision(events=(e.NodeFenceSet(node=node.name, settings=settings),))


def flush_node(state: ClusterState, command: FlushNode, context: Context) -> Decision:
    """A ready node; where nothing runs on it, it is done at once."""
    node = find_node(state, command.node)
    _require_ready(node)
    if node.flush is FlushState.FLUSHING:
        raise Rejected(f"node {node.name} is being flushed", code="node.is_flushing", hint="wait for it")
    active = _active_on(state, node)
    # What was left of the last flush may have ended meanwhile: then this says so, and its fault is over.
    if (
        node.flush is FlushState.FLUSHED
        and not active
        and f"{e.NodeFlushIncomplete.TYPE}/{node.name}" not in state.faults
    ):
        raise Rejected(f"node {node.name} is flushed", code="node.is_flushed", hint="there is nothing to flush")
    if not active:
        return Decision(events=(e.NodeFlushRequested(node=node.name), e.NodeFlushed(node=node.name)))
    if not any(other.ready for other in state.nodes.values() if other.name != node.name):
        raise Rejected(
            f"{active} VMs run on {node.name}, and no other node is ready to take them",
            code="node.none_ready",
            hint="bring another node back, or shut the VMs down: `pvc node list`",
        )
    return Decision(events=(e.NodeFlushRequested(node=node.name),))


def ready_node(state: ClusterState, command: ReadyNode, context: Context) -> Decision:
    """A flushed node, or one being flushed; where nothing is to come home, it is done at once."""
    node = find_node(state, command.node)
    _require_ready(node)
    if node.flush in (FlushState.NONE, FlushState.RETURNING) and not _to_bring_home(state, node):
        raise Rejected(f"node {node.name} takes VMs already", code="node.is_ready", hint="there is nothing to do")
    requested = e.NodeReturnRequested(node=node.name)
    if _to_bring_home(state, node):
        return Decision(events=(requested,))
    return Decision(events=(requested, e.NodeReturned(node=node.name)))


def confirm_node_fenced(state: ClusterState, command: ConfirmNodeFenced, context: Context) -> Decision:
    """A node that is lost."""
    node = find_node(state, command.node)
    evidence = f"{context.actor.principal} says that it is off"
    fenced = e.NodeFenced(node=node.name, method="manual", evidence=evidence)
    if node.unheard:
        epoch = state.cluster.primary_epoch if state.cluster is not None else 0
        lost = e.NodeLost(node=node.name, epoch=epoch, reason="not heard of since the log was restored")
        return Decision(events=(lost, fenced))
    if node.state is not NodeState.LOST:
        raise Rejected(
            f"node {node.name} is {node.state}, not lost",
            code="node.not_lost",
            hint="only a lost node is declared fenced by hand",
        )
    return Decision(events=(fenced,))


def _require_ready(node: Node) -> None:
    if node.state is not NodeState.READY:
        raise Rejected(f"node {node.name} is {node.state}", code="node.not_ready", hint=_how_to_settle(node))


def _how_to_settle(node: Node) -> str:
    """What leads on with a node that is not there."""
    name = node.name
    if node.state is NodeState.LOST:
        return f"bring it back, or cut its power, and once you are sure that it is off: pvc node confirm-fenced {name}"
    if node.state is NodeState.FENCED:
        return f"it is off, and its VMs are recovered elsewhere: start it again, or take it out: pvc node remove {name}"
    return f"start pvcd on {name}: it joins by itself"


def _coordinators(state: ClusterState) -> list[Node]:
    return [node for node in state.nodes.values() if node.coordinator]


def _if_even(coordinators: int) -> tuple[str, ...]:
    """A word about a number of coordinators that gains nothing."""
    if coordinators % 2:
        return ()
    fewer = coordinators - 1
    return (f"{coordinators} coordinators stand no more losses than {fewer}: have {fewer} or {coordinators + 1}",)


def _active_on(state: ClusterState, node: Node) -> int:
    return sum(state.vms[vm].state in ACTIVE for vm in _here_or_coming(state, node))


def _here_or_coming(state: ClusterState, node: Node) -> set[str]:
    return {*state.placed.ids_on(node.name), *state.placed.incoming.get(node.name, ())}


def _away_from(state: ClusterState, node: Node) -> tuple[str, ...]:
    return tuple(state.placed.away_from.get(node.name, ()))


def _to_bring_home(state: ClusterState, node: Node) -> bool:
    return any(state.vms[vm].away in ("flush", "recovery") for vm in _away_from(state, node))


SPECS = (
    CommandSpec(
        name="node.add",
        struct=AddNode,
        decide=add_node,
        action=Action.CLUSTER_MANAGE,
        path="/nodes",
        cli=("node", "add"),
        args=("node",),
        example={"node": "hv4", "coordinator": False},
        outcomes={e.NodeReady.TYPE: True},
    ),
    CommandSpec(
        name="node.remove",
        struct=RemoveNode,
        decide=remove_node,
        action=Action.CLUSTER_MANAGE,
        method="DELETE",
        path="/nodes/{node}",
        cli=("node", "remove"),
        args=("node",),
        example={"node": "hv4"},
        confirm="Remove node {node} from the cluster?",
    ),
    CommandSpec(
        name="node.set_fence",
        struct=SetNodeFence,
        decide=set_node_fence,
        action=Action.CLUSTER_MANAGE,
        path="/nodes/{node}/fence",
        cli=("node", "fence"),
        args=("node",),
        example={
            "node": "hv2",
            "agent": "fence_ipmilan",
            "option": ["ip=10.0.1.2", "username=pvc", "lanplus=1", "cipher=3"],
            "password_file": "/etc/pvc/fence-password",
        },
    ),
    CommandSpec(
        name="node.flush",
        struct=FlushNode,
        decide=flush_node,
        action=Action.CLUSTER_MANAGE,
        path="/nodes/{node}/flush",
        cli=("node", "flush"),
        args=("node",),
        example={"node": "hv2"},
        course=Course.EMPTYING,
        outcomes={e.NodeFlushed.TYPE: True, e.NodeFlushIncomplete.TYPE: False, e.NodeReturnRequested.TYPE: False},
    ),
    CommandSpec(
        name="node.ready",
        struct=ReadyNode,
        decide=ready_node,
        action=Action.CLUSTER_MANAGE,
        path="/nodes/{node}/ready",
        cli=("node", "ready"),
        args=("node",),
        example={"node": "hv2"},
        course=Course.FILLING,
        outcomes={e.NodeReturned.TYPE: True, e.NodeFlushRequested.TYPE: False},
    ),
    CommandSpec(
        name="node.confirm_fenced",
        struct=ConfirmNodeFenced,
        decide=confirm_node_fenced,
        action=Action.CLUSTER_MANAGE,
        path="/nodes/{node}/confirm-fenced",
        cli=("node", "confirm-fenced"),
        args=("node",),
        example={"node": "hv2"},
        course=Course.RECOVERY,
        confirm="Is the power of {node} off? VMs that still run there would run twice and destroy their data",
    ),
)
