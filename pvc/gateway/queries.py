"""Queries of the state, now or at a past moment: the cluster, its faults, its nodes, its VMs, and who is asking.

Answered from the fold, and single things beside it with what was measured lately; never from figures alone.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Annotated, cast

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_rights import ROOT_GRANTS, described, grants_of, require_vm, rights_of
from pvc.commands.access_table import Action
from pvc.commands.base import find_node, find_vm
from pvc.commands.registry import COMMANDS
from pvc.commands.seen_subjects import sees_subject
from pvc.events.access import Grant
from pvc.gateway.cards import CommandCard, command_card
from pvc.gateway.cluster_health import Heard, assess, zookeeper_modes
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.listing import page_of
from pvc.gateway.live import fence_checks, migration_progress, node_usage, vm_usage
from pvc.gateway.moments import At, seen_at, told_of_then
from pvc.gateway.records import iso_time
from pvc.gateway.services import GatewayServices
from pvc.projections.cluster_views import (
    ClusterInfo,
    FaultInfo,
    NodeInfo,
    cluster_info,
    fault_info,
    faults_in_order,
    node_info,
)
from pvc.projections.state import ClusterState
from pvc.projections.views import VmInfo, VmRow, vm_info, vm_row
from pvc.projections.vm_machine import VmState

DEFAULT_ITEMS = 1_000
"""Items of a list when no limit is given: most clusters in one page, some 250 kB."""

MAX_ITEMS = 10_000
"""Items of a list at most: some 2.5 MB, made in a few tens of milliseconds while the event loop waits."""

Limit = Annotated[int, Meta(ge=1, le=MAX_ITEMS, description=f"Items at most, {DEFAULT_ITEMS:,} if not given.")]
After = Annotated[str, Meta(max_length=63, description="Begin after this name: `next` of the page before.")]
Glob = Annotated[
    str, Meta(max_length=100, description="Names that match, with `*`, `?` and `[...]`.", examples=["web*"])
]


class VmListArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which VMs are listed: those that match everything given."""

    state: Annotated[tuple[VmState, ...], Meta(description="Only VMs in one of these states.")] = ()
    tag: Annotated[str, Meta(max_length=63, description="Only VMs with this tag.", examples=["production"])] = ""
    node: Annotated[str, Meta(max_length=63, description="Only VMs on this node.", examples=["hv1"])] = ""
    name: Glob = ""
    limit: Limit = DEFAULT_ITEMS
    after: After = ""
    at: At = ""


class NodeListArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which nodes are listed."""

    name: Glob = ""
    limit: Limit = DEFAULT_ITEMS
    after: After = ""
    at: At = ""


class FaultListArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which faults are listed."""

    acknowledged: Annotated[
        bool | None, Meta(description="Only those that somebody has taken notice of, or only the others.")
    ] = None
    at: At = ""


class OneArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which moment a single thing is shown at."""

    at: At = ""


class NoArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None."""


class VmList(msgspec.Struct, frozen=True, kw_only=True):
    """VMs by name."""

    position: int
    items: list[VmRow]
    next: Annotated[str | None, Meta(description="The last name here, where more follow: give it as `after`.")]


class NodeList(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes by name."""

    position: int
    items: list[NodeInfo]
    next: str | None


class FaultList(msgspec.Struct, frozen=True, kw_only=True):
    """Faults, the newest first."""

    position: int
    items: list[FaultInfo]


class WhoAmI(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking, as the gateway sees it."""

    principal: str
    method: str
    role: Annotated[str, Meta(description="The roles in a few words.", examples=["operator on some VMs"])]
    grants: Annotated[list[Grant], Meta(description="The roles, and what each is limited to.")]
    token: Annotated[str, Meta(description="Id of the token; empty for root.")]
    expires: Annotated[str, Meta(description="When the token expires; empty: never.")]
    address: str
    cluster: str
    node: Annotated[str, Meta(description="The node that answered.")]
    position: int


async def _cluster(services: GatewayServices, call: Call) -> Response:
    at = arguments_of(call.request, OneArguments).at
    heard = await hear(services, at)
    seen = await seen_at(services, at)
    state = seen.state
    if seen.moment is not None:
        await services.past.hash_of(state)
    health, problems = assess(state, heard)
    zookeeper = zookeeper_modes(state, heard.figures or {})
    info = cluster_info(state, health=health, problems=problems, zookeeper=zookeeper)
    return json_response(info, info.position, seen.headers)


async def hear(services: GatewayServices, at: str = "") -> Heard:
    """What is heard of the nodes just now; of the past nothing is left of the kind."""
    if at:
        return Heard()
    figures, hellos = await services.live.figures(), await services.live.hellos()
    return Heard(
        figures=figures if services.live.measured else None,
        hellos=hellos,
        silent=hellos is None and services.presence is not None,
        fold_fault=services.world.fault,
        now_us=services.clock.wall_us(),
    )


async def _faults(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, FaultListArguments)
    wanted = arguments.acknowledged
    seen = await seen_at(services, arguments.at)
    state = seen.state
    faults = [fault for fault in faults_in_order(state) if wanted in (None, bool(fault.acknowledged_by))]
    visible = rights_of(services.world.state, call.principal.asker, Action.VM_READ)
    faults = [fault for fault in faults if sees_subject(services.world.state, visible, fault.subject)]
    items = [fault_info(state, fault) for fault in faults]
    return json_response(FaultList(position=state.position, items=items), state.position, seen.headers)


async def _nodes(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, NodeListArguments)
    heard = await hear(services, arguments.at)
    seen = await seen_at(services, arguments.at)
    state = seen.state
    names, following = page_of(sorted(state.nodes), _glob(arguments.name), arguments.after, arguments.limit)
    tell = _node_teller(state, heard)
    items = [tell(name) for name in names]
    return json_response(NodeList(position=state.position, items=items, next=following), state.position, seen.headers)


async def _node(services: GatewayServices, call: Call) -> Response:
    at = arguments_of(call.request, OneArguments).at
    name = call.request.path_params["node"]
    if not at:
        find_node(services.world.state, name)  # without waiting for those who may not answer
    heard = await hear(services, at)
    seen = await seen_at(services, at)
    with told_of_then(services, seen, name):
        find_node(seen.state, name)
    return json_response(_node_teller(seen.state, heard)(name), seen.state.position, seen.headers)


def _node_teller(state: ClusterState, heard: Heard) -> Callable[[str], NodeInfo]:
    """Tells of nodes, with what is looked for once for all of them."""
    figures, hellos = heard.figures or {}, heard.hellos
    checks = fence_checks(state, figures)
    reasons = [problem.message for problem in assess(state, heard)[1]]
    return lambda name: node_info(
        state,
        state.nodes[name],
        usage=node_usage(figures.get(name)),
        present=None if hellos is None else name in hellos,
        fence_check=checks.get(name),
        reasons=reasons,
    )


async def _vms(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, VmListArguments)
    seen = await seen_at(services, arguments.at)
    state, rows = seen.state, services.rows
    ordered = services.names.ordered(state.vm_names) if seen.moment is None else sorted(state.vm_names)
    names, following = page_of(
        ordered, _seen_by(services, call, state, _vm_filter(state, arguments)), arguments.after, arguments.limit
    )
    vms = [state.vms[state.vm_names[name]] for name in names]
    if seen.moment is not None:
        items = [vm_row(vm) for vm in vms]
    else:
        # Encoded already, each when its VM last changed; the type is that of what a reader finds there.
        items = cast("list[VmRow]", [rows.row(vm) for vm in vms])
        rows.forget_but(state.vms)
    return json_response(VmList(position=state.position, items=items, next=following), state.position, seen.headers)


async def _vm(services: GatewayServices, call: Call) -> Response:
    at = arguments_of(call.request, OneArguments).at
    ref = call.request.path_params["vm"]
    require_vm(services.world.state, call.rights, ref)
    if not at:
        find_vm(services.world.state, ref)
    figures = {} if at else await services.live.figures()
    seen = await seen_at(services, at)
    with told_of_then(services, seen, ref):
        vm = find_vm(seen.state, ref)
    info = vm_info(vm, usage=vm_usage(figures, vm), progress=migration_progress(figures, vm))
    return json_response(info, seen.state.position, seen.headers)


async def _whoami(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    state, principal = services.world.state, call.principal
    asker = principal.asker
    token = state.tokens.get(asker.token)
    me = WhoAmI(
        principal=principal.actor.principal,
        method=principal.actor.method,
        role=described(state, asker),
        grants=list(grants_of(state, token) if token is not None else ROOT_GRANTS),
        token=asker.token,
        expires=iso_time(token.expires_us) if token is not None and token.expires_us else "",
        address=principal.actor.address,
        cluster=state.cluster.name if state.cluster else "",
        node=services.node,
        position=state.position,
    )
    return json_response(me, state.position)


async def _commands(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    return json_response([command_card(spec) for spec in COMMANDS], services.world.position)


def _seen_by(
    services: GatewayServices, call: Call, state: ClusterState, wanted: Callable[[str], object] | None
) -> Callable[[str], object] | None:
    """The filter, and what of it the caller may see: whose VM is its own now, whatever it was at the time shown."""
    rights, now = call.rights, services.world.state
    if rights.everything:
        return wanted
    return lambda name: rights.covers(now.vms.get(state.vm_names[name])) and bool(wanted is None or wanted(name))


def _vm_filter(state: ClusterState, arguments: VmListArguments) -> Callable[[str], object] | None:
    named = _glob(arguments.name)
    states, tag, node = set(arguments.state), arguments.tag, arguments.node
    if not (states or tag or node):
        return named

    def wanted(name: str) -> bool:
        vm = state.vms[state.vm_names[name]]
        matches = (not states or vm.state in states) and (not tag or tag in vm.tags) and (not node or vm.node == node)
        return matches and bool(named is None or named(name))

    return wanted


def _glob(pattern: str) -> Callable[[str], object] | None:
    return re.compile(fnmatch.translate(pattern)).match if pattern else None


QUERIES = (
    Endpoint(
        name="cluster.show",
        action=Action.CLUSTER_READ,
        method="GET",
        path="/cluster",
        handle=_cluster,
        summary="The cluster at one look, with its health.",
        help="`reasons` says why the health is not `ok`. A fault that was acknowledged no longer counts. Of the past "
        "the health is what the log alone tells.",
        arguments=OneArguments,
        reply=ClusterInfo,
        before_init=True,
    ),
    Endpoint(
        name="fault.list",
        action=Action.CLUSTER_READ,
        method="GET",
        path="/faults",
        handle=_faults,
        summary="What is wrong with the cluster, the newest first.",
        help="A fault is there until its cause is gone, whether somebody has taken notice of it or not.",
        arguments=FaultListArguments,
        reply=FaultList,
    ),
    Endpoint(
        name="node.list",
        action=Action.CLUSTER_READ,
        method="GET",
        path="/nodes",
        handle=_nodes,
        summary="Nodes by name.",
        help="With what was measured on each within the last seconds; null where it was not heard of, and in the past.",
        arguments=NodeListArguments,
        reply=NodeList,
    ),
    Endpoint(
        name="node.show",
        action=Action.CLUSTER_READ,
        method="GET",
        path="/nodes/{node}",
        handle=_node,
        summary="All about a node.",
        arguments=OneArguments,
        reply=NodeInfo,
    ),
    Endpoint(
        name="vm.list",
        action=Action.VM_READ,
        method="GET",
        path="/vms",
        handle=_vms,
        summary="VMs by name.",
        help="Those that match everything given. A long list comes in pages: give `next` as `after`.",
        arguments=VmListArguments,
        reply=VmList,
    ),
    Endpoint(
        name="vm.show",
        action=Action.VM_READ,
        method="GET",
        path="/vms/{vm}",
        handle=_vm,
        summary="All about a VM.",
        help="`position` in the reply is that of the last record that touched the VM. `usage` and the progress of a "
        "migration were measured within the last seconds; of the past there are none.",
        arguments=OneArguments,
        reply=VmInfo,
    ),
    Endpoint(
        name="access.whoami",
        action=Action.SELF_READ,
        method="GET",
        path="/whoami",
        handle=_whoami,
        summary="Who is asking.",
        arguments=NoArguments,
        reply=WhoAmI,
        before_init=True,
    ),
    Endpoint(
        name="api.commands",
        action=Action.SELF_READ,
        method="GET",
        path="/commands",
        handle=_commands,
        summary="The cards of all commands.",
        help="Enough for a client to build its options and help from.",
        arguments=NoArguments,
        reply=list[CommandCard],
        before_init=True,
    ),
)
