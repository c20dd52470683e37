"""`GET /metrics`: what Prometheus reads. Made from what is kept anyway; VMs are only walked to write their lines.

What is about the cluster and its nodes is the same at each gateway, and comes from the fold; what is about VMs each
node tells of its own, so that whoever reads all gateways gets each VM once.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc import __version__
from pvc.commands.access_table import Action
from pvc.gateway import metric_catalogue as m
from pvc.gateway.cluster_health import SERVING, Heard, assess
from pvc.gateway.endpoint import Call, Endpoint, arguments_of
from pvc.gateway.glance import Glance
from pvc.gateway.live import fence_checks
from pvc.gateway.metric_page import CONTENT_TYPE, Page, escaped, number
from pvc.gateway.problems import TooManyFailures, TooManyRequests
from pvc.gateway.queries import hear
from pvc.gateway.services import GatewayServices
from pvc.gateway.webhooks import webhook_rows
from pvc.projections.cluster_views import Health
from pvc.projections.state import ClusterState, NodeState
from pvc.runtime.log_care import LogStatus
from pvc.runtime.telemetry import GuestFigures, NodeFigures
from pvc.thread_pool import DaemonPool

T = TypeVar("T")

METRICS_PATH = "/metrics"

MIB = 1024 * 1024

LOG_AGAIN_S = 30.0
"""Between two looks at the log: each reads the manifests' names and the archives' directories."""

DISKS_AGAIN_S, DISKS_OLD_S = 10.0, 60.0
"""Between two looks at a file system, and until what was seen of it is told no more: one of the network may hang."""

WEBHOOKS_AGAIN_S = 10.0
"""Between two looks at the webhooks' cursors, each of which is read."""

PORTION = 250
"""VMs whose lines are written in one go, some 2 ms; then others have their turn."""


class WhichVms(StrEnum):
    """Which VMs have lines."""

    HERE = "here"
    ALL = "all"
    NONE = "none"


class MetricsArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is wanted."""

    vms: Annotated[
        WhichVms,
        Meta(
            description="`here`: the VMs of the node that answers, for who reads every node; `all`: of every node, for "
            "who reads one; `none`."
        ),
    ] = WhichVms.HERE


def _glance(services: GatewayServices, name: str, look: Callable[[], Awaitable[T]], again_s: float) -> Glance[T]:
    if name not in services.glances:
        services.glances[name] = Glance(look, services.clock, again_s=again_s)
    return services.glances[name]


async def _metrics(services: GatewayServices, call: Call) -> Response:
    which = arguments_of(call.request, MetricsArguments).vms
    heard = await hear(services)
    status, age_s = None, 0.0
    if services.log_care is not None:
        status, age_s = await _glance(services, "log", services.log_care.status, LOG_AGAIN_S).look()
    page = Page(m.FAMILIES)
    page.add(m.BUILD, 1, services.node, __version__)
    if services.world.state.cluster is not None:
        _cluster(page, services.world.state, heard)
        _nodes(page, services.world.state, heard)
    _log(page, services, status, age_s)
    _work(page, services)
    await _webhooks(page, services)
    await _places(page, services)
    _process(page)
    await _vms(page, services, which, heard.figures or {})
    return Response(page.text(), headers={"PVC-Position": str(services.world.position)}, media_type=CONTENT_TYPE)


def _cluster(page: Page, state: ClusterState, heard: Heard) -> None:
    cluster = state.cluster
    assert cluster is not None, "asked by the caller"
    page.add(m.CLUSTER, 1, cluster.name, cluster.id, cluster.primary)
    page.add(m.CLUSTER_MAINTENANCE, cluster.maintenance)
    page.add(m.CLUSTER_EPOCH, cluster.primary_epoch)
    page.add(m.CLUSTER_LEVEL, cluster.level)
    health, problems = assess(state, heard)
    for one in Health:
        page.add(m.CLUSTER_HEALTH, one is health, one)
    for (code, how_bad), count in sorted(Tally((one.code, one.health) for one in problems).items()):
        page.add(m.CLUSTER_REASONS, count, code, how_bad)
    faults = Tally((fault.code, _yes(bool(fault.acknowledged_by))) for fault in state.faults.values())
    for labels, count in sorted(faults.items()):
        page.add(m.CLUSTER_FAULTS, count, *labels)
    states = Tally(node.state for node in state.nodes.values())
    for node_state in NodeState:
        page.add(m.CLUSTER_NODES, states[node_state], node_state)


def _nodes(page: Page, state: ClusterState, heard: Heard) -> None:
    figures, hellos = heard.figures or {}, heard.hellos
    primary = state.cluster.primary if state.cluster is not None else ""
    for name, node in sorted(state.nodes.items()):
        load = state.load_of(name)
        page.add(m.NODE_READY, node.ready, name)
        page.add(m.NODE_STATE, 1, name, node.state)
        page.add(m.NODE_COORDINATOR, node.coordinator, name)
        page.add(m.NODE_PRIMARY, name == primary, name)
        page.add(m.NODE_VCPUS, node.vcpus, name)
        page.add(m.NODE_VCPUS_ALLOCATED, load.vcpus, name)
        page.add(m.NODE_MEMORY, node.memory_mib * MIB, name)
        page.add(m.NODE_MEMORY_ALLOCATED, load.memory_mib * MIB, name)
        page.add(m.NODE_MEMORY_PROVISIONED, load.provisioned_mib * MIB, name)
        if hellos is not None:
            page.add(m.NODE_PRESENT, name in hellos, name)
            hello = hellos.get(name)
            if hello is not None:
                page.add(m.NODE_POSITION, hello.position, name)
        found = figures.get(name)
        if found is not None:
            page.add(m.NODE_CPU, found.cpu_per_cent / 100, name)
            page.add(m.NODE_LOAD, found.load1, name)
            page.add(m.NODE_MEMORY_USED, found.memory_used_mib * MIB, name)
            page.add(m.NODE_MEMORY_FREE, found.memory_free_mib * MIB, name)
            if found.zookeeper:
                page.add(m.NODE_ZOOKEEPER, found.zookeeper in SERVING, name)
    for (name, vm_state), count in sorted(state.placed.counts.items()):
        page.add(m.NODE_VMS, count, name, vm_state)
    for name, check in sorted(fence_checks(state, figures).items()):
        page.add(m.NODE_FENCE_TROUBLE, bool(check.trouble), name)


def _log(page: Page, services: GatewayServices, status: LogStatus | None, age_s: float) -> None:
    world, meters, replica = services.world, services.meters, services.history.position
    page.add(m.LOG_POSITION, world.position)
    page.add(m.LOG_FOLD_STOPPED, world.fault is not None)
    page.add(m.LOG_REPLICA, replica)
    page.add(m.LOG_REPLICA_LAG, max(world.position - replica, 0))
    page.histogram(m.LOG_APPEND, meters.append_seconds)
    page.counter(m.LOG_APPENDED, meters.appended)
    page.counter(m.LOG_APPEND_FAILURES, meters.append_failures)
    page.add(m.LOG_WAITING, meters.waiting())
    page.counter(m.LOG_EVENTS, meters.events)
    if status is None:
        return
    page.add(m.LOG_STATUS_AGE, age_s)
    page.add(m.LOG_REPLICA_BYTES, status.replica_bytes)
    page.add(m.LOG_DAMAGED, len(status.damage))
    if not status.quota_records:
        return  # the log is a file of this node, whole
    for state, count in sorted(Tally(segment.state for segment in status.segments).items()):
        page.add(m.LOG_SEGMENTS, count, state)
    page.add(m.LOG_SEGMENTS, status.archived_segments, "archived")
    page.add(m.LOG_HOT_RECORDS, sum(max(one.last - one.first + 1, 0) for one in status.segments))
    page.add(m.LOG_HOT_BYTES, sum(segment.size_bytes for segment in status.segments))
    page.add(m.LOG_QUOTA_RECORDS, status.quota_records)
    page.add(m.LOG_QUOTA_BYTES, status.quota_bytes)
    page.add(m.LOG_ARCHIVED, status.archived_position)
    page.add(m.LOG_REMOVED, status.removed_position)
    for archive in status.archives:
        page.add(m.LOG_ARCHIVE_MISSING, archive.missing, archive.title)
        page.add(m.LOG_ARCHIVE_PROBLEM, bool(archive.problem), archive.title)


def _work(page: Page, services: GatewayServices) -> None:
    meters = services.meters
    happened = {
        m.HA_LOST: "node.lost",
        m.HA_FENCES: "node.fenced",
        m.HA_FENCE_FAILURES: "node.fence_failed",
        m.HA_RECOVERIES: "vm.recovered",
        m.HA_ELECTIONS: "cluster.primary_elected",
    }
    for family, event in happened.items():
        page.add(family, meters.events.total(event))
    page.histogram(m.RECONCILE, meters.reconcile_seconds)
    page.counter(m.RECONCILE_FAILURES, meters.reconcile_failures)
    page.add(m.RECONCILE_PENDING, meters.reconcile_pending())
    page.add(m.RECONCILE_FAILING, meters.reconcile_failing())
    page.histogram(m.EFFECT, meters.effect_seconds)
    page.counter(m.EFFECT_FAILURES, meters.effect_failures)
    page.counter(m.REQUESTS, meters.requests)
    page.histogram(m.REQUEST, meters.request_seconds)
    page.add(m.REQUESTS_UNDER_WAY, meters.requests_under_way)
    page.add(m.STREAMS, services.events.streams)
    page.counter(m.REFUSALS, meters.refusals)
    limits = TooManyRequests.default_code, TooManyFailures.default_code
    page.add(m.LIMITED, sum(meters.refusals.total(code) for code in limits))


async def _webhooks(page: Page, services: GatewayServices) -> None:
    """Of all webhooks, at the node that delivers: cursors are in ZooKeeper, and one reader of them is enough."""
    cluster = services.world.state.cluster
    page.counter(m.WEBHOOK_DELIVERIES, services.meters.deliveries)
    page.histogram(m.WEBHOOK_DELIVERY, services.meters.delivery_seconds)
    if cluster is None or cluster.primary not in ("", services.node) or services.webhooks is None:
        return
    if not services.world.state.webhooks:
        return
    rows, _ = await _glance(services, "webhooks", lambda: webhook_rows(services), WEBHOOKS_AGAIN_S).look()
    for row in rows or ():
        page.add(m.WEBHOOK_STATE, 1, row.name, row.state)
        page.add(m.WEBHOOK_PARKED, row.parked, row.name)
        page.add(m.WEBHOOK_TRIES, row.tries, row.name)
        page.add(m.WEBHOOK_BREAKER, row.state == "down", row.name)
        for family, value in (
            (m.WEBHOOK_LAG, row.lag),
            (m.WEBHOOK_LAG_SECONDS, row.lag_s),
            (m.WEBHOOK_DELIVERED, row.delivered),
        ):
            if value is not None:
                page.add(family, value, row.name)


async def _vms(page: Page, services: GatewayServices, which: WhichVms, figures: Mapping[str, NodeFigures]) -> None:
    """Up to nine lines a VM. Written in portions: what changes in between is seen by some, as by any two readers."""
    state = services.world.state
    ids: Iterable[str] = ()
    if which is WhichVms.HERE:
        ids = state.placed.ids_on(services.node)
    elif which is WhichVms.ALL:
        ids = tuple(state.vms)
    written = 0
    measured = [
        (page.lines_of(family), family.name)
        for family in (m.VM_MEMORY_USED, m.VM_CPU, m.VM_READ, m.VM_WRITTEN, m.VM_RECEIVED, m.VM_SENT)
    ]
    states, vcpus, memory = (page.lines_of(family) for family in (m.VM_STATE, m.VM_VCPUS, m.VM_MEMORY))
    for vm_id in ids:
        vm = state.vms.get(vm_id)
        if vm is None:
            continue
        spec = vm.running_spec or vm.spec
        both = f'vm="{escaped(vm.name)}",node="{escaped(vm.node)}"'
        states.append(f'{m.VM_STATE.name}{{{both},state="{vm.state.value}"}} 1')
        vcpus.append(f"{m.VM_VCPUS.name}{{{both}}} {spec.vcpus}")
        memory.append(f"{m.VM_MEMORY.name}{{{both}}} {spec.memory_mib * MIB}")
        found = figures.get(vm.node)
        guest = found.guests.get(vm_id) if found is not None else None
        if guest is not None:
            for (lines, name), value in zip(measured, _measured(guest), strict=True):
                if value is not None:
                    lines.append(f"{name}{{{both}}} {number(value)}")
        written += 1
        if not written % PORTION:
            await asyncio.sleep(0)


def _measured(guest: GuestFigures) -> tuple[float | None, ...]:
    """In the order above; a VM without a network card, or a disk, has no line about it."""
    return (
        guest.memory_used_mib * MIB,
        guest.cpu_seconds,
        guest.disk_read_bytes if guest.disk_read_bytes or guest.disk_written_bytes else None,
        guest.disk_written_bytes if guest.disk_read_bytes or guest.disk_written_bytes else None,
        guest.received_bytes if guest.received_bytes or guest.sent_bytes else None,
        guest.sent_bytes if guest.received_bytes or guest.sent_bytes else None,
    )


async def _places(page: Page, services: GatewayServices) -> None:
    """Looked at in threads: an archive may be on a server that does not answer, and this loop keeps the leases."""
    for place, path in sorted(services.places.items()):
        usage, age_s = await _glance(services, f"place {place}", _usage_of(path), DISKS_AGAIN_S).look()
        if usage is not None and age_s < DISKS_OLD_S:
            page.add(m.FILESYSTEM, usage[0], services.node, place)
            page.add(m.FILESYSTEM_FREE, usage[1], services.node, place)


def _usage_of(path: Path) -> Callable[[], Awaitable[tuple[int, int] | None]]:
    pool = DaemonPool("disk usage", 1)

    def look() -> tuple[int, int] | None:
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            return None  # not made yet
        return usage.total, usage.free

    return lambda: pool.run(look)


def _process(page: Page) -> None:
    """As every exporter tells of its process; nothing where there is no /proc."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        files = sum(1 for _ in Path("/proc/self/fd").iterdir())
        up_s = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return
    ticks, page_bytes = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    page.add(m.PROCESS_CPU, (int(fields[11]) + int(fields[12])) / ticks)
    page.add(m.PROCESS_MEMORY, int(fields[21]) * page_bytes)
    page.add(m.PROCESS_FILES, files)
    page.add(m.PROCESS_FILES_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    page.add(m.PROCESS_START, round(time.time() - up_s + int(fields[19]) / ticks, 1))


def _yes(value: bool) -> str:
    return "true" if value else "false"


METRICS = (
    Endpoint(
        name="metrics.show",
        action=Action.METRICS_READ,
        method="GET",
        path=METRICS_PATH,
        handle=_metrics,
        summary="Metrics for Prometheus.",
        help="Also at /metrics, where Prometheus looks. docs/reference/metrics.md lists them.",
        arguments=MetricsArguments,
        media_type="text/plain",
        before_init=True,
    ),
)
