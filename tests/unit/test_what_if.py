"""What would be: commands and losses played through on a fork come out as the real thing does, and change nothing."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.base import Context
from pvc.commands.forecast import Asked, Forecast, NodeLoss, Question
from pvc.commands.registry import BY_NAME
from pvc.errors import Rejected
from pvc.handlers import what_if
from pvc.handlers.what_if import foresee
from tests.support.core import ADMIN, TinyCluster, a_cluster, a_cluster_with_vm, bring, command


def asked(name: str, **fields: Any) -> Asked:
    return Asked(name=name, command=command(name, **fields), decide=BY_NAME[name].decide)


def forecast(cluster: TinyCluster, *questions: Question) -> Forecast:
    """The answer; that nothing was changed by asking is checked each time."""
    before, head = cluster.state.state_hash(), cluster.state.head
    context = Context(command_id="what-if", time_us=cluster.time_us, actor=ADMIN, usage=cluster.usage)
    found = foresee(cluster.state.fork(), questions, context)
    assert (cluster.state.state_hash(), cluster.state.head, found.position) == (before, head, head.position)
    return found


def three_nodes(**changes: Any) -> TinyCluster:
    """hv2 and hv3 fence themselves; hv1 is the only coordinator."""
    cluster = a_cluster("hv1")
    for node in ("hv2", "hv3"):
        cluster.add_node(node, self_fence_s=10, **changes)
    cluster.elect()
    return cluster


def ways(found: Forecast) -> dict[str, tuple[str, str]]:
    return {
        one.name: (f"{one.source} {one.before}".strip(), f"{one.target} {one.after}".strip())
        for one in found.placements
    }


def test_a_start_is_played_through_to_a_running_vm() -> None:
    cluster = a_cluster_with_vm()
    found = forecast(cluster, asked("vm.start", vm="web01"))
    assert [event.summary for event in found.answers[0].events] == ["start requested on hv1"]
    assert ways(found) == {"web01": ("hv1 stopped", "hv1 running")} and found.records == 2
    (node,) = found.nodes
    assert (node.node, node.allocated_before_mib, node.allocated_after_mib) == ("hv1", 0, 1024)


@pytest.mark.parametrize(
    ("state", "name", "after"),
    [
        ("running", "vm.shutdown", "stopped"),
        ("running", "vm.stop", "stopped"),
        ("running", "vm.restart", "running"),
        ("running", "vm.reset", "running"),
        ("starting", "vm.stop", "stopped"),
        ("stopped", "vm.disable", "disabled"),
    ],
)
def test_every_power_command_comes_to_its_end(state: str, name: str, after: str) -> None:
    cluster = a_cluster_with_vm(state)
    found = forecast(cluster, asked(name, vm="web01"))
    expected = {} if state == after else {"web01": (f"hv1 {state}", f"hv1 {after}")}
    assert ways(found) == expected and found.answers[0].refusal is None


def test_a_refusal_is_the_one_that_the_real_command_gives() -> None:
    cluster = a_cluster_with_vm("running")
    with pytest.raises(Rejected) as real:
        cluster.do("vm.start", vm="web01")
    (answer,) = forecast(cluster, asked("vm.start", vm="web01")).answers
    assert answer.refusal is not None and answer.events == []
    told = (answer.refusal.code, answer.refusal.message, answer.refusal.hint)
    assert told == (real.value.code, real.value.message, real.value.hint)


def test_questions_build_on_one_another() -> None:
    cluster = a_cluster("hv1")
    for name in ("big01", "big02"):
        cluster.do("vm.define", name=name, memory_mib=5000)
    both = forecast(cluster, asked("vm.start", vm="big01"), asked("vm.start", vm="big02"))
    assert [answer.refusal.code if answer.refusal else "" for answer in both.answers] == ["", "node.memory_full"]
    in_turn = forecast(
        cluster, asked("vm.start", vm="big01"), asked("vm.stop", vm="big01"), asked("vm.start", vm="big02")
    )
    assert [answer.refusal for answer in in_turn.answers] == [None] * 3
    assert ways(in_turn) == {"big02": ("hv1 stopped", "hv1 running")}


def test_the_loss_of_a_node_tells_where_its_vms_go_as_the_real_one_sends_them() -> None:
    cluster = three_nodes()
    for number, size in enumerate((1000, 3000, 2000, 4000)):
        cluster.do("vm.define", name=f"vm{number}", memory_mib=64 * (size // 64), node="hv2", priority=size // 100)
        if number < 3:
            bring(cluster, f"vm{number}", "running")
    found = forecast(cluster, NodeLoss(node="hv2"))
    assert not found.left and {one.name for one in found.placements} == {"vm0", "vm1", "vm2"}
    assert all(one.why for one in found.placements)
    cluster.lose("hv2")
    assert {one.name: one.target for one in found.placements} == {
        name: cluster.vm(name).node for name in ("vm0", "vm1", "vm2")
    }
    states = {node.node: (node.before, node.after) for node in found.nodes}
    assert states["hv2"] == ("ready", "fenced")
    assert {node.node: node.allocated_after_mib for node in found.nodes} == {
        node: cluster.state.load_of(node).memory_mib for node in states
    }


def test_what_finds_no_room_is_told_with_the_reason() -> None:
    cluster = three_nodes()
    for number in range(4):
        cluster.do("vm.define", name=f"vm{number}", memory_mib=4000, node=f"hv{number % 2 + 2}")
        bring(cluster, f"vm{number}", "running")
    for name in ("full0", "full1"):
        cluster.do("vm.define", name=name, memory_mib=4000, node="hv1")
        bring(cluster, name, "running")
    found = forecast(cluster, NodeLoss(node="hv2"))
    assert [(one.name, one.node) for one in found.left] == [("vm0", "hv2"), ("vm2", "hv2")]
    assert all("no node can take" in one.reason and "MiB free" in one.reason for one in found.left)
    assert found.placements == []


def test_a_second_loss_is_played_through_after_the_first() -> None:
    cluster = three_nodes()
    cluster.do("vm.define", name="web01", memory_mib=1024, node="hv2")
    bring(cluster, "web01", "running")
    found = forecast(cluster, NodeLoss(node="hv2"), NodeLoss(node="hv3"))
    assert ways(found) == {"web01": ("hv2 running", "hv1 running")} and not found.left


def test_a_node_that_cannot_be_fenced_keeps_its_vms() -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.do("vm.define", name="web01", memory_mib=1024, node="hv2")
    bring(cluster, "web01", "running")
    found = forecast(cluster, NodeLoss(node="hv2"))
    (left,) = found.left
    assert left.reason == "node hv2 cannot be fenced: it has no fence agent and no watchdog"


def test_a_loss_of_the_majority_stops_the_control_plane_and_says_so() -> None:
    cluster = a_cluster("hv1")
    cluster.add_node("hv2", coordinator=True, self_fence_s=10)
    cluster.add_node("hv3", coordinator=True, self_fence_s=10)
    cluster.elect()
    cluster.do("vm.define", name="web01", memory_mib=1024, node="hv3")
    bring(cluster, "web01", "running")
    one = forecast(cluster, NodeLoss(node="hv3"))
    assert ways(one)["web01"][1].endswith("running") and not one.notes
    two = forecast(cluster, NodeLoss(node="hv2"), NodeLoss(node="hv3"))
    assert two.notes and "no majority" in two.notes[0] and two.placements == []


def test_the_primarys_own_loss_makes_another_one_act() -> None:
    cluster = a_cluster("hv1")
    for node in ("hv2", "hv3"):
        cluster.add_node(node, coordinator=True, self_fence_s=10)
    cluster.says_ready("hv1", self_fence_s=10)
    cluster.elect("hv1")
    cluster.do("vm.define", name="web01", memory_mib=1024, node="hv1")
    bring(cluster, "web01", "running")
    found = forecast(cluster, NodeLoss(node="hv1"))
    assert ways(found)["web01"][1] in ("hv2 running", "hv3 running")


def test_maintenance_keeps_a_lost_node_from_being_recovered() -> None:
    cluster = three_nodes()
    cluster.do("cluster.set_maintenance", maintenance=True)
    found = forecast(cluster, NodeLoss(node="hv2"))
    assert found.placements == [] and "maintenance" in found.notes[0]


def test_a_flush_is_played_through_with_what_it_would_leave() -> None:
    cluster = three_nodes()
    for number in range(6):
        cluster.do("vm.define", name=f"vm{number}", memory_mib=256, node="hv2")
        bring(cluster, f"vm{number}", "running")
    cluster.do("vm.set_migration_method", vm="vm5", migration_method="none")
    found = forecast(cluster, asked("node.flush", node="hv2"))
    assert {one.name for one in found.placements} == {f"vm{number}" for number in range(5)}
    assert {one.after for one in found.placements} == {"running"}
    assert [(one.name, one.reason) for one in found.left] == [("vm5", "its migration method is none")]
    back = forecast(cluster, asked("node.flush", node="hv2"), asked("node.ready", node="hv2"))
    assert back.placements == [], "all are home again"


def test_a_migration_under_way_to_the_lost_node_comes_to_nothing() -> None:
    cluster = three_nodes()
    cluster.do("vm.define", name="web01", memory_mib=1024, node="hv3")
    bring(cluster, "web01", "running")
    cluster.do("vm.migrate", vm="web01", node="hv2")
    assert ways(forecast(cluster, NodeLoss(node="hv1"))) in ({}, {"web01": ("hv3 migrating", "hv2 running")})
    found = forecast(cluster, NodeLoss(node="hv2"))
    assert ways(found) == {"web01": ("hv3 migrating", "hv3 running")}


@pytest.mark.parametrize("node", ["hv9", "hv2"])
def test_a_node_that_is_not_there_cannot_be_lost(node: str) -> None:
    cluster = three_nodes()
    cluster.says_lost("hv2")
    (answer,) = forecast(cluster, NodeLoss(node=node)).answers
    assert answer.refusal is not None
    assert answer.refusal.code == ("node.not_found" if node == "hv9" else "node.not_ready")


def test_a_forecast_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what_if, "MAX_RECORDS", 3)
    cluster = three_nodes()
    for number in range(6):
        cluster.do("vm.define", name=f"vm{number}", memory_mib=256, node="hv2")
        bring(cluster, f"vm{number}", "running")
    found = forecast(cluster, asked("node.flush", node="hv2"))
    assert "goes on after" in found.notes[0]
