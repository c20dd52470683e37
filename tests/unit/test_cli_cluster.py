"""What the command line shows of nodes, the cluster, migrations and faults, made from what the gateway really says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from pvc.cli import fault as fault_list
from pvc.cli import node as node_list
from pvc.cli import vm as vm_list
from pvc.cli.cluster import status_facts
from pvc.cli.moves import render_results, results_of
from pvc.cli.node import node_facts
from pvc.cli.table import Cell, render_facts, render_table
from pvc.cli.text import PLAIN, Look
from pvc.cli.vm import vm_facts
from pvc.cli.watch import transfer
from pvc.client import api_types
from pvc.events.fence import FenceSettings
from pvc.gateway.cluster_health import Heard, assess
from pvc.gateway.health_codes import problem
from pvc.projections import cluster_views, views
from pvc.projections.cluster_views import FenceCheck, Health, NodeUsage, cluster_info, fault_info, node_info
from pvc.projections.fault_hints import HINTS
from pvc.projections.state import ClusterState, Fault, FlushState, NodeState
from pvc.projections.views import MigrationProgress, VmUsage, vm_info, vm_row
from tests.support.core import a_cluster_with_vm

NOW_US = 1_800_000_000_000_000
USAGE = NodeUsage(
    cpu_per_cent=12.4,
    load1=0.5,
    memory_used_mib=3072,
    memory_free_mib=5120,
    zookeeper="leader",
    position=9,
    time_us=NOW_US - 2_000_000,
)


def two_nodes(**changes: Any) -> ClusterState:
    """hv1 is primary and runs web01; hv2 is as told."""
    state = a_cluster_with_vm("running").state
    assert state.cluster is not None
    state.put_cluster(replace(state.cluster, primary="hv1", primary_epoch=3))
    state.put_node(replace(state.nodes["hv1"], name="hv2", **changes))
    return state


def as_json(value: msgspec.Struct) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def render_nodes(nodes: list[Any], look: Look, *, past: bool = False) -> str:
    return render_table(node_list.COLUMNS, node_list.node_rows(nodes, past=past), look)


def render_vms(rows: list[Any], look: Look) -> str:
    return render_table(vm_list.COLUMNS, vm_list.vm_rows(rows), look)


def facts(rows: list[tuple[str, str | Cell]]) -> str:
    return render_facts(rows, PLAIN)


@pytest.mark.parametrize(
    ("shape", "struct"),
    [
        (api_types.VmRow, views.VmRow),
        (api_types.VmInfo, views.VmInfo),
        (api_types.VmUsage, views.VmUsage),
        (api_types.MigrationView, views.MigrationView),
        (api_types.MigrationProgress, views.MigrationProgress),
        (api_types.NodeInfo, cluster_views.NodeInfo),
        (api_types.NodeUsage, cluster_views.NodeUsage),
        (api_types.FenceSettings, FenceSettings),
        (api_types.FenceCheck, cluster_views.FenceCheck),
        (api_types.FaultInfo, cluster_views.FaultInfo),
        (api_types.ClusterInfo, cluster_views.ClusterInfo),
    ],
)
def test_the_client_knows_the_shapes_that_the_gateway_gives(shape: type, struct: type[msgspec.Struct]) -> None:
    assert tuple(shape.__annotations__) == struct.__struct_fields__


def test_a_list_of_nodes_marks_the_primary_and_what_is_not_known() -> None:
    state = two_nodes()
    nodes = [
        as_json(node_info(state, state.nodes["hv1"], usage=USAGE, present=True)),
        as_json(node_info(state, state.nodes["hv2"])),
    ]
    head, one, other = render_nodes(nodes, PLAIN).splitlines()
    titles = ["NODE", "STATE", "COORDINATOR", "FENCE", "VMS", "CPU", "LOAD", "MEMORY", "ALLOCATED", "USED", "PVC"]
    assert head.split() == titles
    assert one.split()[:3] == ["hv1*", "ready", "yes"]
    assert "1/1  12 %  0.50" in one and "1 GiB  3 GiB" in one
    assert other.split()[0] == "hv2" and " ?     ?" in other


def test_a_flush_has_a_column_where_there_is_one() -> None:
    state = two_nodes(flush=FlushState.FLUSHING)
    nodes = [as_json(node_info(state, node)) for node in state.nodes.values()]
    head, _, other = render_nodes(nodes, PLAIN).splitlines()
    assert head.split()[:3] == ["NODE", "STATE", "FLUSH"]
    assert other.split()[:3] == ["hv2", "ready", "flushing"]


def test_a_list_of_nodes_tells_how_each_would_be_fenced_and_marks_what_would_fail() -> None:
    agent = FenceSettings(agent="fence_ipmilan")
    state = two_nodes(fence=agent, self_fence_s=15)
    state.put_node(replace(state.nodes["hv2"], name="hv3", fence=None))
    state.put_node(replace(state.nodes["hv2"], name="hv4"))
    trouble = FenceCheck(asked_by="hv1", trouble="does not answer hv1: no route")
    checks = {"hv2": FenceCheck(asked_by="hv1", trouble=""), "hv4": trouble}
    nodes = [as_json(node_info(state, node, fence_check=checks.get(name))) for name, node in state.nodes.items()]
    assert [line.split()[3] for line in render_nodes(nodes, PLAIN).splitlines()] == [
        "FENCE",
        "none",
        "agent",
        "watchdog",
        "agent!",
    ]
    assert "answers hv1" in facts(node_facts(nodes[1], NOW_US))
    assert "does not answer hv1: no route" in facts(node_facts(nodes[3], NOW_US))


def test_colour_is_only_for_a_terminal() -> None:
    state = two_nodes(state=NodeState.LOST)
    node = as_json(node_info(state, state.nodes["hv2"]))
    assert "\x1b[31mlost" in render_nodes([node], Look(width=200, colour=True))
    assert "\x1b" not in render_nodes([node], PLAIN)


def test_a_node_is_shown_with_its_session_fencing_and_measurements() -> None:
    fence = FenceSettings(agent="fence_ipmilan", options={"ip": "10.0.1.2"}, password_file="/etc/pvc/fence-password")
    state = two_nodes(fence=fence, self_fence_s=15, address="10.0.0.2")
    said = facts(node_facts(as_json(node_info(state, state.nodes["hv2"], usage=USAGE, present=False)), NOW_US))
    assert "ready, no session" in said
    assert "fence_ipmilan ip=10.0.1.2, password in /etc/pvc/fence-password" in said
    assert "within 15 s after it lost its session" in said
    assert "12 % busy, load 0.50" in said and "3 GiB used" in said and "(2 s ago)" in said
    said = facts(node_facts(as_json(node_info(state, state.nodes["hv2"])), NOW_US))
    assert "not lately" in said


def test_the_health_comes_first_with_its_reasons() -> None:
    info = as_json(
        cluster_info(
            two_nodes(),
            health=Health.CRITICAL,
            problems=[problem(Health.CRITICAL, "node.lost", "node hv2 is lost", "hv2")],
            zookeeper={"hv1": "leader"},
        )
    )
    lines = facts(status_facts(info)).splitlines()
    told = [line.strip() for line in lines[:3]]
    assert told == ["Health         critical", "- node hv2 is lost", "look at the machine: `pvc node info hv2`"]
    said = "\n".join(lines)
    assert "hv1 (epoch 3)" in said and "hv1 leader" in said and "Maintenance" not in said
    assert dict(status_facts(info))["Faults"] == "none"


def a_fault(state: ClusterState, code: str, subject: str, message: str, **changes: Any) -> Fault:
    fault = Fault(
        id=f"{code}/{subject.partition('/')[2]}", code=code, subject=subject, message=message, since_us=NOW_US
    )
    fault = replace(fault, **changes)
    state.put_fault(fault)
    return fault


def test_a_reason_is_shown_with_what_to_do_about_it() -> None:
    state = two_nodes(state=NodeState.LOST)
    a_fault(state, "node.unfenced", "node/hv2", "node hv2 cannot be fenced")
    health, problems = assess(state, Heard())
    info = as_json(cluster_info(state, health=health, problems=problems, zookeeper={}))
    lines = [line.strip() for line in facts(status_facts(info)).splitlines()]
    at = lines.index("- node hv2 cannot be fenced")
    assert lines[at + 1].endswith("once you are sure that it is off: `pvc node confirm-fenced hv2`")
    assert lines[at + 2].startswith("- ") and lines[at + 3], "the next one has a remedy too"
    assert list(info["hints"]) == info["reasons"] == [one["message"] for one in info["problems"]]


def test_a_node_is_shown_with_its_faults_and_what_the_clusters_health_has_about_it() -> None:
    state = two_nodes(state=NodeState.LOST)
    a_fault(state, "node.unfenced", "node/hv2", "node hv2 cannot be fenced")
    a_fault(state, "node.lost", "node/hv2", "node hv2 is lost", acknowledged_by="admin")
    a_fault(state, "node.diverged", "node/hv1", "node hv1 has another state")
    reasons = ["node hv2 cannot be fenced", "hv1, hv2 have no fence agent", "hv21 is old", "hv2-b too", "no room"]
    node = node_info(state, state.nodes["hv2"], reasons=reasons)
    assert node.reasons == ["node hv2 cannot be fenced", "hv1, hv2 have no fence agent"]
    shown = facts(node_facts(as_json(node), NOW_US))
    assert shown.count("node hv2 cannot be fenced") == 1 and "pvc node confirm-fenced hv2" in shown
    assert "node hv2 is lost (acknowledged by admin)" in shown and "hv1 has another state" not in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("Health")]
    assert line.split(maxsplit=1)[1] == "hv1, hv2 have no fence agent"


def test_faults_have_a_column_in_the_list_of_nodes_where_there_are_some() -> None:
    state = two_nodes(state=NodeState.LOST)
    assert "FAULTS" not in render_nodes([as_json(node_info(state, node)) for node in state.nodes.values()], PLAIN)
    a_fault(state, "node.unfenced", "node/hv2", "node hv2 cannot be fenced")
    a_fault(state, "node.lost", "node/hv2", "node hv2 is lost")
    nodes = [as_json(node_info(state, node)) for node in state.nodes.values()]
    head, _, other = render_nodes(nodes, PLAIN).splitlines()
    assert head.split()[:3] == ["NODE", "STATE", "FAULTS"]
    assert other.split()[:3] == ["hv2", "lost", "2"]
    assert "\x1b[31m2" in render_nodes(nodes, Look(width=200, colour=True))


def test_the_list_of_faults_ends_with_what_to_do_about_those_that_are_new() -> None:
    state = two_nodes(state=NodeState.LOST)
    vm = next(iter(state.vms.values()))
    faults = [
        a_fault(state, "node.unfenced", "node/hv2", "node hv2 cannot be fenced"),
        a_fault(state, "vm.failed", f"vm/{vm.id}", "web01: no such file"),
        a_fault(state, "node.lost", "node/hv2", "node hv2 is lost", acknowledged_by="admin"),
    ]
    shown = fault_list.remedies([as_json(fault_info(state, fault)) for fault in faults], PLAIN)
    _, hints = shown.split("\nWhat to do:\n")
    wrong, right, *second = hints.splitlines()
    assert wrong == "- node hv2 cannot be fenced" and right.split()[:3] == ["mend", "its", "fence"]
    mend = "`pvc vm info web01` has the reason; mend it, then `pvc vm start web01`"
    assert second == ["- web01: no such file", f"  {mend}"]
    narrow = fault_list.remedies([as_json(fault_info(state, fault)) for fault in faults], Look(width=40))
    assert " ".join(narrow.split()) == " ".join(shown.split()), "it is told whole"
    assert max(len(line) for line in narrow.splitlines()) <= 40
    assert all(line.startswith(("- ", "  ")) for line in narrow.splitlines()[2:])


def test_so_many_hints_are_shown_and_no_more() -> None:
    state = two_nodes()
    faults = [a_fault(state, "vm.failed", f"vm/{number}", "failed") for number in range(12)]
    shown = fault_list.remedies([as_json(fault_info(state, fault)) for fault in faults], PLAIN)
    assert shown.splitlines()[-1].strip() == "... and 2 more"
    assert shown.count("has the reason") == 10


def test_each_fault_that_the_guide_tells_of_has_a_hint_and_no_other() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    faults = guide.split("\n## Faults\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", faults, re.MULTILINE)) == set(HINTS)


def test_what_to_do_about_a_lost_node_depends_on_whether_it_is_fenced() -> None:
    state = two_nodes(state=NodeState.LOST)
    fault = a_fault(state, "node.lost", "node/hv2", "node hv2 is lost")
    assert "once it is fenced" in fault_info(state, fault).hint
    state.put_node(replace(state.nodes["hv2"], state=NodeState.FENCED))
    assert "no hurry" in fault_info(state, fault).hint


def test_a_vm_away_from_home_says_where_it_belongs_and_why_it_is_away() -> None:
    state = two_nodes()
    vm = replace(next(iter(state.vms.values())), node="hv2", away="flush", why=("selector mem: 4096 MiB free",))
    assert "hv2 (home hv1)" in render_vms([as_json(vm_row(vm))], PLAIN)
    info = vm_info(vm, usage=VmUsage(cpu_per_cent=55.0, memory_used_mib=700))
    said = facts(vm_facts(as_json(info), NOW_US))
    assert "hv2 (home hv1; its home is flushed)" in said
    assert "selector mem: 4096 MiB free" in said
    assert "55 % of a CPU, 700 MiB of its node's memory" in said


def test_a_migrating_vm_shows_its_way_and_how_far_it_has_come() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.state.put_node(replace(cluster.state.nodes["hv1"], name="hv2"))
    cluster.do("vm.migrate", vm="web01", node="hv2")
    vm = cluster.vm()
    assert "hv1 → hv2" in render_vms([as_json(vm_row(vm))], PLAIN)
    progress = MigrationProgress(per_cent=50.0, total_bytes=2 << 30, remaining_bytes=1 << 30, seconds=3.0)
    said = facts(vm_facts(as_json(vm_info(vm, progress=progress)), NOW_US))
    assert "from hv1 to hv2, live, to be prepared there" in said
    assert "[##########----------] 50 %, 1 GiB of 2 GiB" in said


@pytest.mark.parametrize(
    ("per_cent", "total", "left", "shown"),
    [
        (0.0, 0, 0, "[--------------------] 0 %"),
        (100.0, 4096, 0, "[####################] 100 %, 4 KiB of 4 KiB"),
        (140.0, 1 << 20, 2 << 20, "[####################] 100 %, 0 KiB of 1 MiB"),
    ],
)
def test_a_bar_stays_within_its_bounds(per_cent: float, total: int, left: int, shown: str) -> None:
    assert transfer({"per_cent": per_cent, "total_bytes": total, "remaining_bytes": left, "seconds": 1.0}) == shown


def test_what_became_of_each_vm_is_as_its_operation_says() -> None:
    vms = [
        {"subject": "vm/1", "name": "web01", "state": "succeeded", "text": "runs on, on hv1", "took_us": 2_500_000},
        {"subject": "vm/2", "name": "db01", "state": "failed", "text": "stays where it is", "took_us": None},
        {"subject": "vm/3", "name": "mail", "state": "running", "text": "has left hv2 for hv1", "took_us": None},
        {"subject": "vm/4", "name": "last", "state": "pending", "text": "", "took_us": None},
    ]
    info: Any = {"vms": vms}
    assert [tuple(one.values()) for one in results_of(info)] == [
        ("web01", True, "runs on, on hv1", 2_500_000),
        ("db01", False, "stays where it is", 0),
        ("mail", None, "still on its way, has left hv2 for hv1", 0),
        ("last", None, "still on its way", 0),
    ]


def test_results_are_told_vm_by_vm() -> None:
    results = [
        {"vm": "web01", "success": True, "result": "runs on, on hv1", "took_us": 2_500_000},
        {"vm": "db01", "success": False, "result": "not migrated: no room", "took_us": 0},
    ]
    assert render_results(results, PLAIN).splitlines()[1:] == [
        "web01  runs on, on hv1        2.5 s",
        "db01   not migrated: no room",
    ]
