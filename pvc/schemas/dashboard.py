"""deploy/monitoring/grafana-dashboard.json: one page for Grafana, made of a short list of panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

SCHEMA_VERSION = 38
"""Of Grafana 10; later ones migrate it by themselves."""

WIDTH = 24

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One panel: its queries, each with its legend."""

    title: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    help: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _one(title: str, query: str, legend: str = "", **more: Any) -> Panel:
    return Panel(title=title, queries=((query, legend),), **more)


_RATE = "$__rate_interval"

ROWS: Sequence[Row] = (
    Row(
        title="Cluster",
        panels=(
            _one("Health", "max by (health) (pvc_cluster_health) == 1", "{{health}}", kind="stat", width=4),
            _one("Nodes", "max by (state) (pvc_cluster_nodes)", "{{state}}", kind="stat", width=6),
            _one("VMs", "sum by (state) (max by (node, state) (pvc_node_vms))", "{{state}}", kind="stat", width=8),
            _one("Primary", "max by (node) (pvc_node_primary) == 1", "{{node}}", kind="stat", width=6),
            _one(
                "What is wrong",
                "max by (code, health) (pvc_cluster_health_reasons)",
                "{{code}} ({{health}})",
                kind="table",
                width=12,
                help="`pvc cluster health` has the names and what to do.",
            ),
            _one("Faults", "max by (code, acknowledged) (pvc_cluster_faults)", "{{code}}", kind="table", width=12),
        ),
    ),
    Row(
        title="Nodes",
        panels=(
            _one(
                "Processors in use",
                'max by (node) (pvc_node_cpu_used_ratio{node=~"$node"})',
                "{{node}}",
                unit="percentunit",
            ),
            Panel(
                title="Memory",
                unit="bytes",
                queries=(
                    ('max by (node) (pvc_node_memory_used_bytes{node=~"$node"})', "{{node}} used"),
                    ('max by (node) (pvc_node_memory_allocated_bytes{node=~"$node"})', "{{node}} allocated"),
                    ('max by (node) (pvc_node_memory_bytes{node=~"$node"})', "{{node}}"),
                ),
            ),
            _one("Load", 'max by (node) (pvc_node_load1{node=~"$node"})', "{{node}}"),
            _one("VMs running", 'max by (node) (pvc_node_vms{state="running",node=~"$node"})', "{{node}}"),
            _one(
                "Free on PVC's file systems",
                'min by (node, place) (pvc_node_filesystem_free_bytes{node=~"$node"})',
                "{{node}} {{place}}",
                unit="bytes",
            ),
            _one("Present", 'min by (node) (pvc_node_present{node=~"$node"})', "{{node}}"),
        ),
    ),
    Row(
        title="VMs",
        panels=(
            _one("Processor time, the ten busiest", 'topk(10, vm:pvc_vm_cpu_seconds:rate5m{node=~"$node"})', "{{vm}}"),
            _one(
                "Memory used, the ten largest",
                'topk(10, max by (vm) (pvc_vm_memory_used_bytes{node=~"$node"}))',
                "{{vm}}",
                unit="bytes",
            ),
            _one(
                "Not as wanted",
                'max by (vm, state) (pvc_vm_state{state=~"failed|starting|stopping|migrating"})',
                "{{vm}} {{state}}",
                kind="table",
            ),
            Panel(
                title="Disks, the ten busiest",
                unit="Bps",
                width=12,
                queries=(
                    (
                        f'topk(10, max by (vm) (rate(pvc_vm_disk_read_bytes_total{{node=~"$node"}}[{_RATE}])))',
                        "{{vm}} read",
                    ),
                    (
                        f'topk(10, max by (vm) (rate(pvc_vm_disk_written_bytes_total{{node=~"$node"}}[{_RATE}])))',
                        "{{vm}} written",
                    ),
                ),
            ),
            Panel(
                title="Network, the ten busiest",
                unit="Bps",
                width=12,
                queries=(
                    (
                        f'topk(10, max by (vm) (rate(pvc_vm_network_receive_bytes_total{{node=~"$node"}}[{_RATE}])))',
                        "{{vm}} received",
                    ),
                    (
                        f'topk(10, max by (vm) (rate(pvc_vm_network_transmit_bytes_total{{node=~"$node"}}[{_RATE}])))',
                        "{{vm}} sent",
                    ),
                ),
            ),
        ),
    ),
    Row(
        title="Log",
        panels=(
            _one("Records a second", f"max(rate(pvc_log_position[{_RATE}]))", "records"),
            _one(
                "Append, 99 of 100 within", "instance:pvc_log_append_duration_seconds:p99_5m", "{{instance}}", unit="s"
            ),
            _one(
                "Appends that failed", f"sum by (reason) (rate(pvc_log_append_failures_total[{_RATE}]))", "{{reason}}"
            ),
            Panel(
                title="In ZooKeeper",
                queries=(("max(pvc_log_hot_records)", "records"), ("max(pvc_log_quota_records)", "quota")),
            ),
            _one("Segments", "max by (state) (pvc_log_segments)", "{{state}}"),
            Panel(
                title="Behind",
                queries=(
                    ("node:pvc_node_log_lag:records", "{{node}} fold"),
                    ("pvc_log_replica_lag_records", "{{instance}} replica"),
                ),
            ),
        ),
    ),
    Row(
        title="Reconciling and high availability",
        panels=(
            Panel(
                title="VMs to bring in line",
                queries=(
                    ("pvc_reconcile_pending", "{{instance}} pending"),
                    ("pvc_reconcile_failing", "{{instance}} failing"),
                ),
            ),
            _one(
                "Effects, 99 of 100 within",
                f"histogram_quantile(0.99, sum by (le, effect) (rate(pvc_effect_duration_seconds_bucket[{_RATE}])))",
                "{{effect}}",
                unit="s",
            ),
            Panel(
                title="Nodes lost, fenced; VMs recovered; elections",
                queries=(
                    ("max(increase(pvc_ha_nodes_lost_total[1h]))", "lost"),
                    ("max(increase(pvc_ha_fences_total[1h]))", "fenced"),
                    ("max(increase(pvc_ha_fence_failures_total[1h]))", "not fenced"),
                    ("max(increase(pvc_ha_recoveries_total[1h]))", "VMs recovered"),
                    ("max(increase(pvc_ha_elections_total[1h]))", "elections"),
                ),
            ),
        ),
    ),
    Row(
        title="Webhooks",
        panels=(
            _one("Behind", "max by (webhook) (pvc_webhook_lag_seconds)", "{{webhook}}", unit="s"),
            _one("Requests", f"sum by (outcome) (rate(pvc_webhook_deliveries_total[{_RATE}]))", "{{outcome}}"),
            Panel(
                title="In trouble",
                queries=(
                    ("max by (webhook) (pvc_webhook_breaker_open)", "{{webhook}} down"),
                    ("max by (webhook) (pvc_webhook_parked_events)", "{{webhook}} parked"),
                ),
            ),
        ),
    ),
    Row(
        title="Gateways",
        panels=(
            _one("Requests a second", "instance:pvc_gateway_requests:rate5m", "{{instance}}", unit="reqps"),
            _one(
                "Reply, 99 of 100 within",
                "instance:pvc_gateway_request_duration_seconds:p99_5m",
                "{{instance}}",
                unit="s",
            ),
            _one("Errors", "instance:pvc_gateway_errors:ratio_rate5m", "{{instance}}", unit="percentunit"),
            _one("Readers of the events", "pvc_gateway_event_streams", "{{instance}}"),
            _one("Refusals", f"sum by (code) (rate(pvc_gateway_refusals_total[{_RATE}]))", "{{code}}"),
            _one("Memory of pvcd", 'process_resident_memory_bytes{job="pvc"}', "{{instance}}", unit="bytes"),
        ),
    ),
)


def queries() -> list[str]:
    """Every query of the dashboard."""
    return [query for row in ROWS for panel in row.panels for query, _ in panel.queries]


def dashboard_file() -> str:
    """The file."""
    document = {
        "uid": "pvc-cluster",
        "title": "PVC",
        "description": "A cluster of the Parallel Virtual Cluster. Generated by `./dev schemas`.",
        "tags": ["pvc"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "templating": {"list": [_datasource(), _node()]},
        "annotations": {"list": []},
        "panels": _laid_out(),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _node() -> dict[str, Any]:
    return {
        "name": "node",
        "label": "Node",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(pvc_node_ready, node)", "refId": "node"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _laid_out() -> list[dict[str, Any]]:
    """Rows one below the other, panels from left to right."""
    made: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        made.append(
            {"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": []}
            | {"gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top}}
        )
        top, left, height = top + 1, 0, 8
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left = top + height, 0
            height = 5 if panel.kind == "stat" else 8
            made.append(_panel(panel, len(made) + 1, {"h": height, "w": panel.width, "x": left, "y": top}))
            left += panel.width
        top += height
    return made


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind in ("stat", "table")
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": query,
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
            "format": "table" if panel.kind == "table" else "time_series",
        }
        for index, (query, legend) in enumerate(panel.queries)
    ]
    options: dict[str, Any] = {}
    if panel.kind == "stat":
        options = {"textMode": "name" if panel.title in ("Health", "Primary") else "value_and_name"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": options,
        "targets": targets,
    }
