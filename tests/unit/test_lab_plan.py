"""The pure parts of the lab: its plan, the hosts' files, the rules that cut its network."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from pvc.daemon.config import load_config
from pvc.daemon.zookeeper_access import zookeeper_hosts
from pvc.errors import DriverError, InvalidInput
from pvc.lab.cli import CONTEXT, lab
from pvc.lab.host_files import etc_hosts, pvc_toml
from pvc.lab.network import Partition, choose_subnet, rules_of
from pvc.lab.plan import MAX_NODES, make_plan, parse_groups


def test_names_fit_into_an_interfaces_name() -> None:
    plan = make_plan(nodes=MAX_NODES, coordinators=5, name="abcdef")
    assert all(len(host.port) <= 15 for host in plan.hosts)
    assert len({host.mac for host in plan.hosts} | {host.port for host in plan.hosts}) == 2 * MAX_NODES


@pytest.mark.parametrize(("nodes", "coordinators"), [(0, 1), (3, 2), (1, 3), (MAX_NODES + 1, 3), (3, 0)])
def test_an_impossible_lab_is_refused(nodes: int, coordinators: int) -> None:
    with pytest.raises(InvalidInput):
        make_plan(nodes=nodes, coordinators=coordinators)


@pytest.mark.parametrize("name", ["", "Lab", "abcdefg", "1a", "a-b", "a b", "a\n"])
def test_a_name_that_no_interface_could_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        make_plan(nodes=1, coordinators=1, name=name)


def test_hosts_that_are_not_named_are_a_group_of_their_own() -> None:
    plan = make_plan(nodes=4, coordinators=3)
    assert parse_groups(plan, ["hv3"]) == [["hv3"], ["hv1", "hv2", "hv4"]]
    assert parse_groups(plan, ["hv1,hv2", "hv3,hv4"]) == [["hv1", "hv2"], ["hv3", "hv4"]]
    assert parse_groups(plan, ["hv1", "hv2"]) == [["hv1"], ["hv2"], ["hv3", "hv4"]]
    assert parse_groups(plan, ["hv1", "hv3"], bridge=True) == [["hv1"], ["hv3"]], "hv2 and hv4 reach both"
    with pytest.raises(InvalidInput, match="nobody to be parted from"):
        parse_groups(plan, ["hv1"], bridge=True)


@pytest.mark.parametrize("words", [["hv1,hv2,hv3"], ["hv1", "hv1,hv2"], ["hv9"], [","]])
def test_groups_that_part_nobody_or_are_unclear_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidInput):
        parse_groups(make_plan(nodes=3, coordinators=3), words)


def test_a_partition_drops_both_ways_and_a_one_way_one_drops_one() -> None:
    plan = make_plan(nodes=3, coordinators=3)
    both = rules_of(plan, Partition(groups=[["hv1"], ["hv2", "hv3"]]))
    assert 'iifname { "pvclab-hv1" } oifname { "pvclab-hv2", "pvclab-hv3" } drop' in both
    assert 'iifname { "pvclab-hv2", "pvclab-hv3" } oifname { "pvclab-hv1" } drop' in both
    one = rules_of(plan, Partition(groups=[["hv1"], ["hv2", "hv3"]], one_way=True))
    assert one.count(" drop") == 1
    assert 'iifname { "pvclab-hv1" }' in one
    # It replaces in one step what there was.
    assert both.splitlines()[:3] == ["add table bridge pvclab", "delete table bridge pvclab", "add table bridge pvclab"]


def test_three_groups_are_cut_pairwise() -> None:
    plan = make_plan(nodes=3, coordinators=3)
    assert rules_of(plan, Partition(groups=[["hv1"], ["hv2"], ["hv3"]])).count(" drop") == 6


def test_the_first_free_network_is_taken() -> None:
    assert choose_subnet(taken=set()) == 77
    assert choose_subnet(taken={77, 78, 80}) == 79
    with pytest.raises(DriverError):
        choose_subnet(taken=set(range(256)))


def test_coordinators_run_zookeeper_and_others_only_know_where_it_is(tmp_path: Path) -> None:
    plan = make_plan(nodes=4, coordinators=3, subnet=80)
    path = tmp_path / "pvc.toml"
    ids = []
    for host in plan.hosts:
        path.write_text(pvc_toml(plan, host))
        config = load_config(path)
        assert zookeeper_hosts(config) == plan.zookeeper_hosts == "10.80.0.1:2181,10.80.0.2:2181,10.80.0.3:2181"
        ids.append(config.zookeeper.id)
    assert ids == [1, 2, 3, 0]


def test_hosts_that_fence_themselves_have_a_watchdog_and_no_bmc(tmp_path: Path) -> None:
    plan = make_plan(nodes=3, coordinators=3, self_fencing=["hv3", "hv1"])
    assert [host.name for host in plan.hosts if host.self_fencing] == ["hv1", "hv3"]
    path = tmp_path / "pvc.toml"
    watchdogs = []
    for host in plan.hosts:
        path.write_text(pvc_toml(plan, host))
        watchdogs.append(load_config(path).node.watchdog)
    assert watchdogs == ["/run/watchdog", "", "/run/watchdog"]
    assert re.findall(r"hv\d-bmc", etc_hosts(plan)) == ["hv2-bmc"]
    assert make_plan(nodes=2, coordinators=1, self_fencing=["all"]).self_fencing == ("hv1", "hv2")
    with pytest.raises(InvalidInput, match="hv9"):
        make_plan(nodes=3, coordinators=3, self_fencing=["hv9"])


def test_all_hosts_know_each_other_by_name() -> None:
    plan = make_plan(nodes=2, coordinators=1, subnet=80)
    assert "10.80.0.2 hv2\n" in etc_hosts(plan)
    assert "10.80.1.1 hv1-bmc\n" in etc_hosts(plan)


def test_every_lab_command_has_help_with_an_example() -> None:
    ctx = click.Context(lab, info_name="pvc lab", **CONTEXT)
    for name, command in lab.commands.items():
        text = command.get_help(click.Context(command, parent=ctx, info_name=name, **CONTEXT))
        assert re.search(rf"Example:\n +pvc lab .*{name}", text), name
        assert "`" not in text, name
