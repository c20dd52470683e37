"""How the cluster is, and why it is not better: pure, from the state and from what is heard of the nodes.

Critical is what does not work or what nobody can be sure of; degraded is what the next failure would miss. A fault that
was acknowledged is known, and no longer counts; what it leaves short (coordinators, room) still does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pvc.errors import PvcError
from pvc.gateway.health_codes import CODES, known, problem
from pvc.gateway.live import fence_checks
from pvc.presence.hello import Hello
from pvc.projections.cluster_views import Health, HealthProblem
from pvc.projections.evolve_vm import FAILED
from pvc.projections.fault_hints import hint_of
from pvc.projections.state import ClusterState, FlushState, Node, NodeState, Vm, held_mib
from pvc.projections.vm_machine import ACTIVE, WANTED
from pvc.runtime.telemetry import STALE_S, NodeFigures

SERVING = ("leader", "follower", "standalone")
"""What a ZooKeeper server is that serves."""

CRITICAL_FAULTS = frozenset({"node.unfenced", "node.diverged", "node.log_differs"})
"""Those that leave it open what runs, or what is true; others are settled, as far as their node is."""

FEW = 5
"""Names in a reason, at most; lists show the rest."""

Reason = HealthProblem


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway has heard of the nodes."""

    figures: Mapping[str, NodeFigures] | None = None
    """None: nothing is measured here."""
    hellos: Mapping[str, Hello | None] | None = None
    """None: it is not known who is there."""
    silent: bool = False
    """Those who know who is there do not answer."""
    fold_fault: PvcError | None = None
    now_us: int = 0


def assess(state: ClusterState, heard: Heard) -> tuple[Health, list[Reason]]:
    """The cluster's health and the reasons, the worst first."""
    if state.cluster is None:
        return Health.OK, []
    nodes = list(state.nodes.values())
    coordinators = [node for node in nodes if node.coordinator]
    reasons: list[Reason] = []
    if heard.fold_fault is not None:
        message = f"this node's fold has stopped: {heard.fold_fault.code}"
        reasons.append(problem(Health.CRITICAL, "fold.stopped", message))
    reasons += _stopped_folds(heard.hellos or {})
    if heard.silent:
        message = "ZooKeeper does not answer this node: nothing can be changed, VMs go on"
        reasons.append(problem(Health.CRITICAL, "zookeeper.silent", message))
    if not any(fault.code == "node.diverged" for fault in state.faults.values()):
        reasons += _divergence(heard.hellos or {})
    reasons += _faults(state)
    known = frozenset(fault.subject.partition("/")[2] for fault in state.faults.values() if fault.acknowledged_by)
    reasons += _unrecovered(state, known)
    if nodes and not coordinators:
        message = "there is no coordinator: none can act for the cluster"
        reasons.append(problem(Health.CRITICAL, "cluster.no_coordinator", message))
    reasons += _coordinators(coordinators) if coordinators else ()
    reasons += _primary(state, coordinators)
    reasons += _zookeeper(coordinators, heard.figures or {})
    reasons += _failed(state, known)
    reasons += _nodes(state, heard)
    reasons += _fencing(state, heard.figures or {})
    reasons += _versions(nodes)
    reasons += _level(state.cluster.level, nodes)
    reasons += _spare_room(state)
    if state.cluster.maintenance:
        why = f" ({state.cluster.maintenance_reason})" if state.cluster.maintenance_reason else ""
        message = f"the cluster is in maintenance{why}: no lost node is fenced"
        reasons.append(problem(Health.DEGRADED, "cluster.maintenance", message))
    critical = [reason for reason in reasons if reason.health is Health.CRITICAL]
    degraded = [reason for reason in reasons if reason.health is Health.DEGRADED]
    health = Health.CRITICAL if critical else Health.DEGRADED if degraded else Health.OK
    return health, [*critical, *degraded]


def zookeeper_modes(state: ClusterState, figures: Mapping[str, NodeFigures]) -> dict[str, str]:
    """What each coordinator's ZooKeeper server is, where it runs one and was heard of."""
    return {
        name: figures[name].zookeeper
        for name, node in sorted(state.nodes.items())
        if node.coordinator and name in figures and figures[name].zookeeper
    }


def _stopped_folds(hellos: Mapping[str, Hello | None]) -> Iterator[Reason]:
    for name, hello in sorted(hellos.items()):
        if hello is not None and hello.fault:
            message = f"node {name} only lets its VMs go on: its fold has stopped: {hello.fault}"
            yield problem(Health.CRITICAL, "node.fold_stopped", message, name)


def _divergence(hellos: Mapping[str, Hello | None]) -> Iterator[Reason]:
    """Equal positions have equal states, in one version of PVC; anything else is a defect or a damaged log."""
    by_position: dict[tuple[int, str], dict[str, list[str]]] = {}
    for name, hello in sorted(hellos.items()):
        if hello is not None and hello.state_hash:
            at = by_position.setdefault((hello.position, hello.version), {})
            at.setdefault(hello.state_hash, []).append(name)
    for (position, _), by_hash in sorted(by_position.items()):
        if len(by_hash) > 1:
            sides = " and ".join(_names(names) for names in by_hash.values())
            message = f"the states of {sides} differ at position {position}"
            yield problem(Health.CRITICAL, "node.states_differ", message)


def _faults(state: ClusterState) -> Iterator[Reason]:
    for fault in sorted(state.faults.values(), key=lambda fault: fault.since_us):
        if fault.acknowledged_by or fault.subject.startswith("vm/"):
            continue  # VMs may be many, so they are counted
        node = state.nodes.get(fault.subject.partition("/")[2])
        if fault.code == "node.lost" and node is not None and node.unfenced:
            continue  # the fault that it could not be fenced says both
        open_end = fault.code in CRITICAL_FAULTS or (node is not None and node.state is NodeState.LOST)
        yield HealthProblem(
            code=known(fault.code),
            health=Health.CRITICAL if open_end else Health.DEGRADED,
            message=fault.message,
            hint=hint_of(state, fault) or CODES["fault"].remedy,
        )


def _coordinators(coordinators: Sequence[Node]) -> Iterator[Reason]:
    count = len(coordinators)
    if not count % 2:
        message = f"{count} coordinators stand no more losses than {count - 1}: have one more, or one less"
        yield problem(Health.DEGRADED, "cluster.even_coordinators", message)
    ready = [node for node in coordinators if node.state is NodeState.READY]
    majority = count // 2 + 1
    if len(ready) < majority:
        message = f"{len(ready)} of {count} coordinators are ready: that is no majority"
        yield problem(Health.CRITICAL, "cluster.no_majority", message)
    elif len(ready) == majority < count:
        message = f"{len(ready)} of {count} coordinators are ready: the next loss takes the majority"
        yield problem(Health.DEGRADED, "cluster.bare_majority", message)


def _primary(state: ClusterState, coordinators: Sequence[Node]) -> Iterator[Reason]:
    """A single coordinator may have nobody to be primary for."""
    name = state.cluster.primary if state.cluster is not None else ""
    node = state.nodes.get(name)
    if len(coordinators) > 1 and (node is None or node.state is not NodeState.READY):
        was = f": {name} is {node.state}" if node is not None else ""
        yield problem(Health.CRITICAL, "cluster.no_primary", f"no node is primary, so none acts for the cluster{was}")


def _zookeeper(coordinators: Sequence[Node], figures: Mapping[str, NodeFigures]) -> Iterator[Reason]:
    modes = {node.name: figures[node.name].zookeeper for node in coordinators if node.name in figures}
    if not any(modes.values()):
        return  # it is not PVC that runs it, or there is none
    down = [node.name for node in coordinators if modes.get(node.name, "") not in SERVING]
    if down:
        level = Health.CRITICAL if 2 * len(down) >= len(coordinators) else Health.DEGRADED
        message = f"ZooKeeper serves on {len(coordinators) - len(down)} of {len(coordinators)}: not on {_names(down)}"
        yield problem(level, "zookeeper.down", message, down[0])


def _unrecovered(state: ClusterState, known: frozenset[str]) -> Iterator[Reason]:
    for node in state.nodes.values():
        if node.state is not NodeState.FENCED:
            continue
        waiting = [vm for vm in _vms_on(state, node) if vm.state in WANTED and vm.id not in known]
        if waiting:
            count = "1 VM is" if len(waiting) == 1 else f"{len(waiting)} VMs are"
            why = next((f": {vm.error}" for vm in waiting if vm.error), "")
            message = f"{count} not recovered yet from the fenced node {node.name}{why}"
            yield problem(Health.CRITICAL, "vm.not_recovered", message)


def _failed(state: ClusterState, known: frozenset[str]) -> Iterator[Reason]:
    vms = (state.vms.get(fault.subject.partition("/")[2]) for fault in state.faults.values() if fault.code == FAILED)
    failed = sorted(vm.name for vm in vms if vm is not None and vm.id not in known)
    if failed:
        message = f"{len(failed)} {'VM has' if len(failed) == 1 else 'VMs have'} failed: {_names(failed)}"
        yield problem(Health.DEGRADED, FAILED, message, failed[0])


def _nodes(state: ClusterState, heard: Heard) -> Iterator[Reason]:
    silent = []
    for node in state.nodes.values():
        if node.state is NodeState.JOINING:
            message = f"node {node.name} has not been heard of yet"
            yield problem(Health.DEGRADED, "node.joining", message, node.name)
        if node.state is not NodeState.READY:
            continue
        if node.flush in (FlushState.FLUSHING, FlushState.FLUSHED):
            message = f"node {node.name} takes no VMs: it is {node.flush}"
            yield problem(Health.DEGRADED, "node.flushed", message, node.name)
        if heard.hellos is not None and node.name not in heard.hellos:
            yield problem(Health.DEGRADED, "node.no_session", f"node {node.name} has no session", node.name)
        elif heard.figures is not None and node.name not in heard.figures and not _fresh(node, heard.now_us):
            silent.append(node.name)
    if silent:
        message = f"no figures came from {_names(silent)} for {STALE_S:.0f} s"
        yield problem(Health.DEGRADED, "node.silent", message, silent[0])


def _fencing(state: ClusterState, figures: Mapping[str, NodeFigures]) -> Iterator[Reason]:
    """What could not be fenced, were it lost now. A single node has nobody who would do it, and no elsewhere."""
    if len(state.nodes) < 2:
        return
    ready = sorted(node.name for node in state.nodes.values() if node.state is NodeState.READY)
    bare = [name for name in ready if state.nodes[name].fence is None and not state.nodes[name].self_fence_s]
    if bare:
        have, one = ("has", "it") if len(bare) == 1 else ("have", "one of them")
        lack = f"{_names(bare)} {have} no fence agent and no watchdog"
        message = f"{lack}: if {one} is lost, its VMs wait for a person"
        yield problem(Health.DEGRADED, "fence.missing", message, bare[0])
    for name, check in sorted(fence_checks(state, figures).items()):
        if check.trouble:
            yield problem(Health.DEGRADED, "fence.trouble", f"the fence agent of {name} {check.trouble}", name)


def _fresh(node: Node, now_us: int) -> bool:
    """Whether its daemon has just started, and cannot have measured anything yet."""
    return now_us - node.ready_us <= STALE_S * 1e6


def _versions(nodes: Sequence[Node]) -> Iterator[Reason]:
    by_version: dict[str, list[str]] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        if node.version:
            by_version.setdefault(node.version, []).append(node.name)
    if len(by_version) > 1:
        (usual, _), *_ = Counter({version: len(names) for version, names in by_version.items()}).most_common()
        others = "; ".join(f"{_names(names)} {version}" for version, names in by_version.items() if version != usual)
        message = f"nodes run different versions of PVC: most {usual}, {others}"
        behind = next(names[0] for version, names in by_version.items() if version != usual)
        yield problem(Health.DEGRADED, "cluster.versions_differ", message, behind)


def _level(level: int, nodes: Sequence[Node]) -> Iterator[Reason]:
    """Who keeps the cluster from a feature level that others know already; a lost node does, until it is removed."""
    heard_of = [node for node in nodes if node.state is not NodeState.JOINING]
    highest = max((node.level for node in heard_of), default=level)
    behind = sorted((node for node in heard_of if node.level <= level), key=lambda node: node.name)
    if highest > level and behind:
        names = _names(
            [node.name if node.state is NodeState.READY else f"{node.name} ({node.state})" for node in behind]
        )
        message = f"the feature level stays {level}: {highest} is not known to {names}"
        yield problem(Health.DEGRADED, "cluster.level_held", message, behind[0].name)


def _spare_room(state: ClusterState) -> Iterator[Reason]:
    """Whether what runs on the fullest node would fit elsewhere: the largest VM first, each where most is free."""
    ready = [node for node in state.nodes.values() if node.ready]
    if len(state.nodes) < 2 or not ready:
        return
    fullest = max(ready, key=lambda node: (state.load_of(node.name).memory_mib, node.name))
    others = [node for node in ready if node is not fullest]
    free_mib = {node.name: node.memory_mib - state.load_of(node.name).memory_mib for node in others}
    vms = sorted((vm for vm in _vms_on(state, fullest) if vm.state in ACTIVE), key=lambda vm: (-held_mib(vm), vm.name))
    left_mib = left = 0
    for vm in vms:
        fit = [node.name for node in others if _fits(vm, node, free_mib[node.name])]
        if fit:
            free_mib[max(fit, key=lambda name: free_mib[name])] -= held_mib(vm)
        else:
            left, left_mib = left + 1, left_mib + held_mib(vm)
    if left:
        lost = f"{left} of its {len(vms)} VMs would find no room elsewhere ({left_mib} MiB)"
        yield problem(Health.DEGRADED, "cluster.no_spare_room", f"if node {fullest.name} were lost, {lost}")


def _fits(vm: Vm, node: Node, free_mib: int) -> bool:
    if vm.node_limits and node.name not in vm.node_limits:
        return False
    return held_mib(vm) <= free_mib and (vm.running_spec or vm.spec).vcpus <= node.vcpus


def _vms_on(state: ClusterState, node: Node) -> Iterator[Vm]:
    return (state.vms[vm] for vm in state.placed.ids_on(node.name))


def _names(names: Sequence[str]) -> str:
    shown = list(names[:FEW])
    return ", ".join(shown) + (", ..." if len(names) > FEW else "")
