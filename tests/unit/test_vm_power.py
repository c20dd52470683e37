"""Commands that start and end a VM's runs, in every state."""

from __future__ import annotations

import pytest

from pvc.commands.facts import Ending
from pvc.commands.registry import BY_NAME
from pvc.errors import Rejected
from pvc.events import vm as e
from pvc.events.types import ShutdownTimeoutAction
from pvc.projections.vm_machine import VmState
from tests.support.core import NODE_MEMORY_MIB, a_cluster, a_cluster_with_vm, bring

REFUSALS: dict[str, dict[str, str]] = {
    "vm.start": {
        "starting": "web01 is starting",
        "running": "web01 is already running",
        "shutting-down": "web01 is shutting down",
        "stopping": "web01 is being stopped",
        "restarting": "web01 is restarting",
        "resetting": "web01 is being reset",
        "migrating": "web01 is migrating",
        "arriving": "web01 is migrating",
        "disabled": "web01 is disabled",
    },
    "vm.stop": {
        "stopped": "web01 is not running",
        "failed": "web01 has failed and is not running",
        "disabled": "web01 is disabled",
        "stopping": "web01 is being stopped",
    },
    "vm.disable": {
        "starting": "web01 is starting",
        "running": "web01 is running",
        "shutting-down": "web01 is shutting down",
        "stopping": "web01 is being stopped",
        "restarting": "web01 is restarting",
        "resetting": "web01 is being reset",
        "migrating": "web01 is migrating",
        "arriving": "web01 is migrating",
        "disabled": "web01 is disabled",
    },
    "vm.enable": {state: "web01 is not disabled" for state in VmState if state != "disabled"},
}
NEEDS_RUNNING = {
    "stopped": "web01 is not running",
    "failed": "web01 has failed and is not running",
    "disabled": "web01 is disabled",
    "starting": "web01 is starting",
    "shutting-down": "web01 is shutting down",
    "stopping": "web01 is being stopped",
    "restarting": "web01 is restarting",
    "resetting": "web01 is being reset",
    "migrating": "web01 is migrating",
    "arriving": "web01 is migrating",
}
REFUSALS |= dict.fromkeys(("vm.shutdown", "vm.restart", "vm.reset"), NEEDS_RUNNING)
LEADS_TO = {
    "vm.start": "starting",
    "vm.shutdown": "shutting-down",
    "vm.stop": "stopping",
    "vm.restart": "restarting",
    "vm.reset": "resetting",
    "vm.disable": "disabled",
    "vm.enable": "stopped",
}


@pytest.mark.parametrize("state", list(VmState))
@pytest.mark.parametrize("name", sorted(LEADS_TO))
def test_a_power_command_moves_the_vm_or_says_why_not(name: str, state: VmState) -> None:
    cluster = a_cluster_with_vm(state)
    before = cluster.vm()
    said = REFUSALS[name].get(state)
    if said is None:
        (event,) = cluster.do(name, vm="web01")
        assert event.vm == before.id  # type: ignore[union-attr]
        assert cluster.vm().state == LEADS_TO[name]
        return
    with pytest.raises(Rejected) as refusal:
        cluster.do(name, vm="web01")
    assert refusal.value.message == said
    assert refusal.value.hint
    assert refusal.value.status == 409
    expected = "vm.not_disabled" if name == "vm.enable" else f"vm.is_{state.replace('-', '_')}"
    assert refusal.value.code == expected
    assert cluster.vm() == before


def test_every_start_is_a_run_with_the_next_number() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.do("vm.stop", vm="web01")
    cluster.says_ended()
    (started,) = cluster.do("vm.start", vm="web01")
    assert started == e.VmStartRequested(vm=cluster.vm().id, node="hv1", epoch=2)


def test_a_vm_is_found_by_its_id_too() -> None:
    cluster = a_cluster_with_vm()
    cluster.do("vm.start", vm=cluster.vm().id)
    assert cluster.vm().state is VmState.STARTING


def test_a_shutdown_carries_its_time_and_what_follows() -> None:
    cluster = a_cluster_with_vm("running")
    (asked,) = cluster.do("vm.shutdown", vm="web01", timeout_s=7, on_timeout="leave")
    assert asked == e.VmShutdownRequested(vm=cluster.vm().id, timeout_s=7, on_timeout=ShutdownTimeoutAction.LEAVE)


def test_each_reset_has_a_mark_of_its_own() -> None:
    cluster = a_cluster_with_vm("resetting")
    first = cluster.vm().reset_mark
    cluster.says_reset()
    cluster.do("vm.reset", vm="web01")
    assert first and cluster.vm().reset_mark not in ("", first)


def test_a_start_without_room_is_refused_and_says_how_much_there_is() -> None:
    cluster = a_cluster_with_vm("running", memory_mib=NODE_MEMORY_MIB - 1000)
    cluster.do("vm.define", name="web02", memory_mib=1001)
    with pytest.raises(Rejected, match="web02 needs 1001 MiB of memory, node hv1 has 1000 MiB free") as refusal:
        cluster.do("vm.start", vm="web02")
    assert refusal.value.code == "node.memory_full"
    cluster.do("vm.modify", vm="web02", memory_mib=1000)
    cluster.do("vm.start", vm="web02")
    assert cluster.state.load_of("hv1").memory_mib == NODE_MEMORY_MIB


def test_a_restart_that_would_not_find_room_is_refused_while_the_vm_still_runs() -> None:
    cluster = a_cluster_with_vm("running", memory_mib=1024)
    cluster.do("vm.define", name="web02", memory_mib=6000)
    bring(cluster, "web02", "running")
    cluster.do("vm.modify", vm="web01", memory_mib=4096)
    with pytest.raises(Rejected) as refusal:
        cluster.do("vm.restart", vm="web01")
    assert refusal.value.code == "node.memory_full"
    assert cluster.vm().state is VmState.RUNNING


def test_a_restart_keeps_the_room_for_the_larger_run_to_come() -> None:
    cluster = a_cluster_with_vm("running", memory_mib=1024)
    cluster.do("vm.define", name="web02", memory_mib=6000)
    cluster.do("vm.modify", vm="web01", memory_mib=4096)
    cluster.do("vm.restart", vm="web01")
    assert cluster.state.load_of("hv1").memory_mib == 4096
    with pytest.raises(Rejected, match="4096 MiB free"):
        cluster.do("vm.start", vm="web02")


def test_a_vm_whose_node_shrank_is_not_started() -> None:
    cluster = a_cluster_with_vm(memory_mib=4096)
    cluster.says_ready(memory_mib=2048)
    with pytest.raises(Rejected) as refusal:
        cluster.do("vm.start", vm="web01")
    assert refusal.value.code == "vm.memory_too_much"


def test_a_node_that_is_not_ready_starts_nothing() -> None:
    cluster = a_cluster_with_vm()
    node = cluster.state.nodes["hv1"]
    cluster.state.put_node(type(node)(name="hv1", memory_mib=node.memory_mib, vcpus=node.vcpus))
    with pytest.raises(Rejected) as refusal:
        cluster.do("vm.start", vm="web01")
    assert (refusal.value.code, refusal.value.message) == ("node.not_ready", "node hv1 is not ready")


@pytest.mark.parametrize("name", [*sorted(LEADS_TO), "vm.remove"])
def test_an_unknown_vm_is_refused_with_near_names(name: str) -> None:
    cluster = a_cluster_with_vm()
    cluster.do("vm.define", name="web02", memory_mib=64)
    with pytest.raises(Rejected) as refusal:
        cluster.do(name, vm="wbe01")
    assert refusal.value.status == 404
    assert refusal.value.code == "vm.not_found"
    assert "did you mean web01" in refusal.value.hint
    with pytest.raises(Rejected) as refusal:
        cluster.do(name, vm="zzz")
    assert refusal.value.hint == "`pvc vm list` shows the VMs there are"


def test_in_an_empty_cluster_there_is_no_vm_to_find() -> None:
    with pytest.raises(Rejected, match="there is no VM 'web01'"):
        a_cluster().do("vm.start", vm="web01")


@pytest.mark.parametrize("name", ["vm.start", "vm.shutdown", "vm.stop", "vm.restart", "vm.reset"])
@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("stopped", [True, False], ids=["stopped by another", "left alone"])
def test_who_waits_for_a_power_command_always_learns_an_outcome(name: str, ending: Ending, stopped: bool) -> None:
    cluster = a_cluster_with_vm("stopped" if name == "vm.start" else "running")
    cluster.do(name, vm="web01")
    after = cluster.state.position
    if stopped and name != "vm.stop":
        cluster.do("vm.stop", vm="web01")
    cluster.says_ended(ending)
    if cluster.vm().state is VmState.STARTING:
        cluster.says_running()
    told = {raw.type for entry in cluster.entries[after:] for raw in entry.record.events}
    assert told & BY_NAME[name].outcomes.keys()


def test_who_waits_for_a_guest_that_is_left_running_learns_that_it_did_not_shut_down() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.do("vm.shutdown", vm="web01", on_timeout="leave")
    (event,) = cluster.says_timed_out()
    assert BY_NAME["vm.shutdown"].outcomes[event.TYPE] is False
