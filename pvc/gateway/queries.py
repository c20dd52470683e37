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
from pvc.commands.base import find_node, find_vm, quoted
from pvc.commands.registry import COMMANDS
from pvc.commands.seen_subjects import sees_subject
from pvc.errors import NotFound
from pvc.events.access import Grant
from pvc.gateway.cards import CommandCard, command_card
from pvc.gateway.cluster_health import Heard, assess, zookeeper_modes
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.listing import page_of
from pvc.gateway.live import fence_checks, migration_progress, node_usage, vm_usage
from pvc.gateway.moments import At, seen_at, told_of_then
from pvc.gateway.query_lists import (
    FAULTS,
    NODES,
    VMS,
    FaultList,
    FaultListArguments,
    NodeList,
    NodeListArguments,
    VmList,
    VmListArguments,
)
from pvc.gateway.records import iso_time
from pvc.gateway.services import GatewayServices
from pvc.gateway.tags import revision_of
from pvc.projections.cluster_views import (
    ClusterInfo,
    NodeInfo,
    cluster_info,
    fault_info,
    faults_in_order,
    node_info,
)
from pvc.projections.state import ClusterState, Vm
from pvc.projections.views import VmInfo, VmRow, vm_info, vm_row


class OneArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which moment a single thing is shown at."""

    at: At = ""


class NoArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None."""


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
    told = [fault_info(state, fault) for fault in faults]
    told = [fault for fault in told if arguments.code in ("", fault.code) and arguments.subject in ("", fault.subject)]
    found, following = FAULTS.page(told, arguments)
    page = FaultList(position=state.position, items=FAULTS.cut(found, arguments.fields), next=following)
    return json_response(page, state.position, seen.headers)


async def _nodes(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, NodeListArguments)
    heard = await hear(services, arguments.at)
    seen = await seen_at(services, arguments.at)
    state = seen.state
    named, states, flushes = _glob(arguments.name), set(arguments.state), set(arguments.flush)
    wanted = (
        node.name
        for node in state.nodes.values()
        if (named is None or named(node.name))
        and (not states or node.state in states)
        and (not flushes or node.flush in flushes)
    )
    found, following = NODES.page(map(_node_teller(state, heard), wanted), arguments)
    page = NodeList(position=state.position, items=NODES.cut(found, arguments.fields), next=following)
    return json_response(page, state.position, seen.headers)


async def _node(services: GatewayServices, call: Call) -> Response:
    at = arguments_of(call.request, OneArguments).at
    name = call.request.path_params["node"]
    if not at:
        find_node(services.world.state, name)  # without waiting for those who may not answer
    heard = await hear(services, at)
    seen = await seen_at(services, at)
    with told_of_then(services, seen, name):
        find_node(seen.state, name)
    revision = revision_of(seen.state.nodes[name])
    return json_response(_node_teller(seen.state, heard)(name), seen.state.position, seen.headers, revision)


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
    VMS.check_fields(arguments.fields)
    seen = await seen_at(services, arguments.at)
    state, rows = seen.state, services.rows
    wanted = _seen_by(services, call, state, _vm_filter(state, arguments))
    ordered = services.names.ordered(state.vm_names) if seen.moment is None else sorted(state.vm_names)
    if arguments.sort:
        named = filter(wanted, ordered) if wanted is not None else ordered
        vms, following = VMS.page((state.vms[state.vm_names[name]] for name in named), arguments)
    else:  # the order in which they are kept
        names, following = page_of(ordered, wanted, arguments.after, arguments.limit)
        vms = [state.vms[state.vm_names[name]] for name in names]
    if seen.moment is not None:
        items = [vm_row(vm) for vm in vms]
    else:
        # Encoded already, each when its VM last changed; the type is that of what a reader finds there.
        items = cast("list[VmRow]", [rows.row(vm) for vm in vms])
        rows.forget_but(state.vms)
    page = VmList(position=state.position, items=VMS.cut(items, arguments.fields), next=following)
    return json_response(page, state.position, seen.headers)


async def _vm(services: GatewayServices, call: Call) -> Response:
    at = arguments_of(call.request, OneArguments).at
    ref = call.request.path_params["vm"]
    require_vm(services.world.state, call.rights, ref)
    vm_id = services.world.state.vm_names.get(ref, ref)
    if not at:
        find_vm(services.world.state, ref)
    figures = {} if at else await services.live.figures()
    seen = await seen_at(services, at)
    with told_of_then(services, seen, ref):
        vm = find_vm(seen.state, ref) if call.rights.everything else _their_vm(seen.state, ref, vm_id)
    info = vm_info(vm, usage=vm_usage(figures, vm), progress=migration_progress(figures, vm))
    return json_response(info, seen.state.position, seen.headers, revision_of(vm))


def _their_vm(state: ClusterState, ref: str, vm_id: str) -> Vm:
    """The VM that somebody limited may see, by its id: at another time its name may have been another's, or one much
    like it. Raises NotFound."""
    vm = state.vms.get(vm_id)
    if vm is None:
        hint = "the VM that has this name now was defined later; its history says when"
        raise NotFound(f"there is no VM {quoted(ref)}", code="vm.not_found", hint=hint, field="vm")
    return vm


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
        listing=FAULTS,
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
        listing=NODES,
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
        listing=VMS,
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
