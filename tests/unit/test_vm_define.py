"""Defining, changing, renaming and removing VMs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pvc.commands.cluster import derived_id
from pvc.errors import InvalidInput, Rejected
from pvc.events import vm as e
from pvc.projections.vm_machine import AT_REST, VmState
from tests.support.answers import refused
from tests.support.core import TinyCluster, a_cluster, a_cluster_with_vm, command

XML = "<domain><name>web01</name><memory unit='MiB'>512</memory><vcpu>2</vcpu></domain>"
DISK = {"path": "/images/a.raw"}


def test_a_definition_becomes_a_stopped_vm() -> None:
    cluster = a_cluster()
    (defined,) = cluster.do(
        "vm.define", name="web01", memory_mib=2048, vcpus=2, disks=[DISK], tags=["b", "a", "b"], description="shop"
    )
    assert isinstance(defined, e.VmDefined)
    vm = cluster.vm()
    assert (vm.state, vm.epoch, vm.node, vm.home) == (VmState.STOPPED, 0, "hv1", "hv1")
    assert (vm.spec.memory_mib, vm.spec.vcpus, vm.spec.disks[0].path) == (2048, 2, "/images/a.raw")
    assert vm.tags == {"b": False, "a": False}
    assert vm.description == "shop"


def test_an_xml_gives_what_is_not_given_beside_it() -> None:
    cluster = a_cluster()
    cluster.do("vm.define", xml=XML)
    cluster.do("vm.define", xml=XML, name="web02", memory_mib=256, vcpus=1)
    assert (cluster.vm().spec.memory_mib, cluster.vm().spec.vcpus) == (512, 2)
    assert (cluster.vm("web02").spec.memory_mib, cluster.vm("web02").spec.vcpus) == (256, 1)
    assert cluster.vm("web02").spec.xml == XML


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"memory_mib": 64}, "vm.name_missing", "name"),
        ({"name": "web02"}, "vm.memory_missing", "memory_mib"),
        ({"name": "web01", "memory_mib": 64}, "vm.name_taken", ""),
        ({"name": "web02", "memory_mib": 9000, "node": "hv1"}, "vm.memory_too_much", "memory_mib"),
        ({"name": "web02", "memory_mib": 64, "vcpus": 9, "node": "hv1"}, "vm.vcpus_too_many", "vcpus"),
        ({"name": "web02", "memory_mib": 9000}, "node.none_suitable", ""),
        ({"name": "web02", "memory_mib": 64, "node": "hv2"}, "node.not_found", "node"),
        ({"name": "web02", "memory_mib": 64, "node_limits": ["hv2"]}, "node.not_found", "node_limits"),
        ({"name": "web02", "memory_mib": 64, "initrd": "/i"}, "input.conflict", "initrd"),
        ({"name": "web02", "memory_mib": 64, "cmdline": "quiet"}, "input.conflict", "cmdline"),
        ({"name": "web02", "memory_mib": 64, "disks": [DISK, DISK]}, "input.conflict", "disks"),
        ({"xml": XML, "name": "web02", "disks": [DISK]}, "input.conflict", "disks"),
        ({"xml": XML, "name": "web02", "kernel": "/vmlinuz"}, "input.conflict", "kernel"),
        ({"xml": XML, "name": "web02", "nics": [{"bridge": "br0"}]}, "input.conflict", "nics"),
        ({"xml": XML}, "vm.name_taken", ""),
        ({"xml": XML.replace("web01", "Web 01")}, "vm.name_invalid", "xml"),
        ({"xml": XML.replace("<name>web01</name>", "")}, "vm.name_missing", "xml"),
        ({"xml": "<domain"}, "vm.xml_invalid", "xml"),
        ({"name": derived_id("x"), "memory_mib": 64}, "vm.name_invalid", "name"),
    ],
)
def test_a_bad_definition_is_refused_at_the_field(fields: dict[str, Any], code: str, field: str) -> None:
    refusal = refused(a_cluster_with_vm(), "vm.define", **fields)
    assert (refusal.code, refusal.field) == (code, field)
    assert isinstance(refusal, InvalidInput) or refusal.status in (404, 409)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Web01"},
        {"name": "web01\n"},
        {"name": "-web"},
        {"name": "web-"},
        {"name": "web.example.org"},
        {"name": "wëb"},
        {"name": ""},
        {"name": "w" * 64},
        {"memory_mib": 15},
        {"memory_mib": 2**24 + 1},
        {"memory_mib": "1024"},
        {"memory_mib": 1.5},
        {"vcpus": 0},
        {"vcpus": 1025},
        {"disks": [{"path": "relative.raw"}]},
        {"disks": [{"path": "/a\n"}]},
        {"disks": [{"path": "/a\x00b"}]},
        {"disks": [{"path": "/a", "format": "raw\n"}]},
        {"disks": [{"path": "/a", "bus": "ide"}]},
        {"disks": [{"path": "/a", "size": 3}]},
        {"disks": [{"path": f"/{i}"} for i in range(65)]},
        {"nics": [{"bridge": "br0\n"}]},
        {"nics": [{"bridge": "br0", "mac": "52:54:00:00:00:0g"}]},
        {"tags": ["two words"]},
        {"tags": ["a\n"]},
        {"tags": ["t" * 64]},
        {"tags": [str(i) for i in range(65)]},
        {"description": "d" * 501},
        {"description": "\x1b[2J"},
        {"cmdline": "a\nb", "kernel": "/k"},
        {"selector": "random"},
        {"on_crash": "explode"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_field_out_of_its_bounds_is_no_command(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        command("vm.define", **{"name": "web01", "memory_mib": 64} | fields)


def test_names_at_the_bounds_are_names() -> None:
    for name in ("a", "0", "a-b", "w" * 63, "x--y"):
        assert command("vm.define", name=name, memory_mib=16).name == name


def test_before_init_nothing_can_be_defined() -> None:
    assert refused(TinyCluster(), "vm.define", name="web01", memory_mib=64).code == "cluster.not_initialised"


def test_with_no_node_ready_nothing_can_be_defined() -> None:
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main")
    assert refused(cluster, "vm.define", name="web01", memory_mib=64).code == "node.none_suitable"


def test_the_node_with_the_most_free_memory_is_chosen_among_the_limits() -> None:
    cluster = a_cluster("hv1", "hv2", "hv3")
    cluster.do("vm.define", name="web01", memory_mib=4096, node="hv3")
    cluster.do("vm.start", vm="web01")
    cluster.do("vm.define", name="web02", memory_mib=64)
    cluster.do("vm.define", name="web03", memory_mib=64, node_limits=["hv1", "hv3", "hv1"])
    assert (cluster.vm("web02").node, cluster.vm("web03").node) == ("hv1", "hv1")
    assert cluster.vm("web03").node_limits == ("hv1", "hv3")


def test_a_node_outside_the_limits_is_a_conflict() -> None:
    cluster = a_cluster("hv1", "hv2")
    refusal = refused(cluster, "vm.define", name="web01", memory_mib=64, node="hv1", node_limits=["hv2"])
    assert (refusal.code, refusal.field) == ("input.conflict", "node")


def test_an_old_idempotency_key_makes_no_second_vm_of_the_same_id() -> None:
    cluster = a_cluster()
    cluster.decide_and_record(command("vm.define", name="web01", memory_mib=64), command_id="K")
    with pytest.raises(Rejected, match="'K' has made the VM 'web01' already") as refusal:
        cluster.decide_and_record(command("vm.define", name="web02", memory_mib=64), command_id="K")
    assert refusal.value.code == "idempotency.key_reused"


# Changes.


def test_a_change_to_a_stopped_vm_counts_at_once() -> None:
    cluster = a_cluster_with_vm()
    decision = cluster.decide_and_record(command("vm.modify", vm="web01", memory_mib=2048, description="new"))
    assert decision.notes == ()
    assert (cluster.vm().spec.memory_mib, cluster.vm().description) == (2048, "new")


def test_a_change_that_changes_nothing_is_no_event() -> None:
    cluster = a_cluster_with_vm()
    assert cluster.do("vm.modify", vm="web01", memory_mib=1024, description="", on_crash="restart") == ()
    assert cluster.do("vm.modify", vm="web01", restart=True) == ()


def test_a_change_to_a_running_vm_waits_for_a_restart_and_says_so() -> None:
    cluster = a_cluster_with_vm("running")
    decision = cluster.decide_and_record(command("vm.modify", vm="web01", memory_mib=2048, vcpus=2))
    (note,) = decision.notes
    assert "memory_mib, vcpus: pvc vm restart web01" in note
    vm = cluster.vm()
    assert vm.running_spec is not None
    assert (vm.spec.memory_mib, vm.running_spec.memory_mib) == (2048, 1024)
    assert cluster.state.load_of("hv1").memory_mib == 1024


def test_a_change_with_restart_is_one_record_and_ends_with_the_new_spec() -> None:
    cluster = a_cluster_with_vm("running")
    events = cluster.do("vm.modify", vm="web01", memory_mib=2048, restart=True)
    assert [event.TYPE for event in events] == ["vm.modified", "vm.restart_requested"]
    cluster.says_ended()
    assert cluster.vm().state is VmState.STARTING
    assert cluster.vm().running_spec == cluster.vm().spec


def test_restart_is_not_done_for_what_needs_none() -> None:
    cluster = a_cluster_with_vm("running")
    (modified,) = cluster.do("vm.modify", vm="web01", description="new", restart=True)
    assert modified.TYPE == "vm.modified"
    assert cluster.vm().state is VmState.RUNNING


def test_restart_applies_a_change_made_before() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.do("vm.modify", vm="web01", memory_mib=2048)
    (restart,) = cluster.do("vm.modify", vm="web01", memory_mib=2048, restart=True)
    assert restart.TYPE == "vm.restart_requested"


def test_a_change_with_restart_that_would_not_fit_changes_nothing() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.do("vm.define", name="web02", memory_mib=6000)
    cluster.do("vm.start", vm="web02")
    assert refused(cluster, "vm.modify", vm="web01", memory_mib=4096, restart=True).code == "node.memory_full"
    assert cluster.vm().spec.memory_mib == 1024


def test_a_change_during_a_restart_comes_with_that_restart() -> None:
    cluster = a_cluster_with_vm("restarting")
    decision = cluster.decide_and_record(command("vm.modify", vm="web01", memory_mib=2048))
    assert decision.notes == ()
    cluster.says_ended()
    running = cluster.vm().running_spec
    assert running is not None and running.memory_mib == 2048


def test_a_change_during_a_start_waits_for_the_next_one() -> None:
    cluster = a_cluster_with_vm("starting")
    decision = cluster.decide_and_record(command("vm.modify", vm="web01", memory_mib=2048, restart=True))
    assert len(decision.events) == len(decision.notes) == 1
    running = cluster.vm().running_spec
    assert running is not None and running.memory_mib == 1024


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"memory_mib": 9000}, "vm.memory_too_much", "memory_mib"),
        ({"vcpus": 9}, "vm.vcpus_too_many", "vcpus"),
        ({"xml": XML, "disks": [DISK]}, "input.conflict", "disks"),
        ({"initrd": "/i"}, "input.conflict", "initrd"),
        ({"xml": "<x/>"}, "vm.xml_invalid", "xml"),
    ],
)
def test_a_bad_change_is_refused_at_the_field(fields: dict[str, Any], code: str, field: str) -> None:
    refusal = refused(a_cluster_with_vm(), "vm.modify", vm="web01", **fields)
    assert (refusal.code, refusal.field) == (code, field)


def test_devices_of_a_vm_from_xml_are_changed_in_its_xml() -> None:
    cluster = a_cluster()
    cluster.do("vm.define", xml=XML)
    assert refused(cluster, "vm.modify", vm="web01", disks=[DISK]).code == "input.conflict"
    cluster.do("vm.modify", vm="web01", memory_mib=1024)
    assert cluster.vm().spec.memory_mib == 1024
    cluster.do("vm.modify", vm="web01", xml=XML.replace("512", "768"))
    assert cluster.vm().spec.memory_mib == 768


# Names.


def test_a_renamed_vm_keeps_its_id_and_frees_its_name() -> None:
    cluster = a_cluster_with_vm()
    vm_id = cluster.vm().id
    cluster.do("vm.rename", vm="web01", name="web02")
    assert cluster.vm("web02").id == vm_id
    cluster.do("vm.define", name="web01", memory_mib=64)
    assert cluster.vm("web01").id != vm_id
    assert refused(cluster, "vm.rename", vm="web01", name="web02").code == "vm.name_taken"


def test_renaming_to_the_same_name_is_no_event_even_while_it_runs() -> None:
    assert a_cluster_with_vm("running").do("vm.rename", vm="web01", name="web01") == ()


def test_a_vm_is_not_named_like_an_id() -> None:
    cluster = a_cluster_with_vm()
    assert refused(cluster, "vm.rename", vm="web01", name=cluster.vm().id).code == "vm.name_invalid"


@pytest.mark.parametrize("state", sorted(set(VmState) - AT_REST))
@pytest.mark.parametrize("name", ["vm.rename", "vm.remove"])
def test_only_a_vm_at_rest_is_renamed_or_removed(name: str, state: VmState) -> None:
    fields = {"name": "web02"} if name == "vm.rename" else {}
    refusal = refused(a_cluster_with_vm(state), name, vm="web01", **fields)
    assert refusal.code == f"vm.is_{state.replace('-', '_')}"
    assert "shut it down first" in refusal.hint


@pytest.mark.parametrize("state", sorted(AT_REST))
def test_a_removed_vm_is_gone_and_its_name_is_free(state: VmState) -> None:
    cluster = a_cluster_with_vm(state)
    old = cluster.vm()
    (removed,) = cluster.do("vm.remove", vm="web01")
    assert removed == e.VmRemoved(vm=old.id, name="web01")
    assert not cluster.state.vms and not cluster.state.vm_names
    assert cluster.state.load_of("hv1").vms == 0
    cluster.do("vm.define", name="web01", memory_mib=64)
    assert cluster.vm().id != old.id


def test_a_vm_with_a_protected_tag_is_not_removed() -> None:
    cluster = a_cluster_with_vm()
    cluster.do("vm.add_tag", vm="web01", tag="keep", protected=True)
    refusal = refused(cluster, "vm.remove", vm="web01")
    assert (refusal.code, refusal.message) == ("vm.tag_protected", "web01 has protected tags: keep")
