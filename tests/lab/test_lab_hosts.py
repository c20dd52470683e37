"""The hosts of a lab: apart from each other, mortal, and cut off at will."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pvc.daemon.zookeeper_server import LOOK_S
from pvc.errors import DriverError, InvalidInput, Unavailable
from pvc.lab.cluster import ask_gateway
from pvc.lab.host import QEMU, LabHost
from pvc.lab.host_files import fence_command
from pvc.lab.lab import Lab
from pvc.lab.status import zookeeper_mode
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

PVCD_RETURNS_S = 60.0
"""Until a host's pvcd serves after a boot, on a busy machine."""


def reaches(one: LabHost, other: LabHost) -> bool:
    return one.exec("ping", "-c1", "-W1", other.name).returncode == 0


def boot_id(host: LabHost) -> str:
    return host.exec("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()


def serves(host: LabHost) -> bool:
    """Whether the host's gateway answers."""
    try:
        return host.power == "on" and bool(ask_gateway(host, "GET", "/nodes"))
    except (Unavailable, DriverError):
        return False


def cli(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pvc.cli.main", "lab", "--dir", str(lab.directory), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_each_host_is_a_ready_node_and_reaches_the_others(lab: Lab) -> None:
    for host in lab.hosts:
        assert host.exec("hostname").stdout.strip() == host.name
        nodes = ask_gateway(host, "GET", "/nodes")["items"]
        assert [(node["name"], node["state"]) for node in nodes] == [
            ("hv1", "ready"),
            ("hv2", "ready"),
            ("hv3", "ready"),
        ]
        assert all(reaches(host, other) for other in lab.hosts)
    assert len({boot_id(host) for host in lab.hosts}) == len(lab.hosts)


def test_a_host_sees_its_own_processes_and_files_only(lab: Lab) -> None:
    one, other = lab.hosts[:2]
    assert one.exec("touch", "/var/lib/pvc/only-here").returncode == 0
    assert other.exec("ls", "/var/lib/pvc/only-here").returncode != 0
    assert one.exec("ls", "/run/netns").stdout == ""
    seen = one.exec("ps", "-e", "-o", "args=").stdout
    assert seen.count("pvcd --config") == 1
    assert set(one.processes()) & set(other.processes()) == set()


def test_the_exit_code_of_a_command_is_that_of_exec(lab: Lab) -> None:
    assert cli(lab, "exec", "hv1", "--", "bash", "-c", "exit 7").returncode == 7
    assert cli(lab, "exec", "hv1", "--", "cat", "/etc/pvc/pvc.toml").stdout.startswith("[node]")


def test_a_partition_cuts_the_groups_apart_until_it_is_healed(lab: Lab) -> None:
    one, two, three = lab.hosts
    lab.partition(["hv3"])
    try:
        assert reaches(one, two)
        assert not reaches(one, three)
        assert not reaches(three, two)
        # The BMCs are on a network of their own.
        assert one.exec("ping", "-c1", "-W1", "hv3-bmc").returncode == 0
        assert "Cut: hv3 | hv1,hv2" in cli(lab, "status").stdout
        lab.partition(["hv1", "hv2", "hv3"])
        assert not reaches(one, two)
    finally:
        lab.heal()
    assert reaches(one, three)
    assert reaches(three, two)


def test_a_partition_may_be_one_way(lab: Lab) -> None:
    one, two, _ = lab.hosts
    lab.partition(["hv1"], one_way=True)
    try:
        assert arrives(two, one)
        assert not arrives(one, two)
    finally:
        lab.heal()


def arrives(sender: LabHost, receiver: LabHost) -> bool:
    """Whether datagrams from one host come to the other; no answer is needed for that."""
    receive = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 7000)); s.settimeout(2); s.recv(9)"
    # By their fixed addresses and neighbours, as asking for a neighbour would need an answer.
    sender.exec("ip", "neigh", "replace", receiver.plan.address, "lladdr", receiver.plan.mac, "dev", "eth0")
    with subprocess.Popen(
        receiver.command(["/usr/bin/python3", "-c", receive]), stderr=subprocess.DEVNULL, env=receiver.environment()
    ) as process:
        while process.poll() is None:
            sender.exec("bash", "-c", f"echo hello >/dev/udp/{receiver.plan.address}/7000")
        return process.returncode == 0


def test_a_cable_that_is_pulled_out_stays_out_over_a_reboot(lab: Lab) -> None:
    one, two, _ = lab.hosts
    lab.partition(["hv2"], link_down=True)
    try:
        assert "NO-CARRIER" in two.exec("ip", "link", "show", "eth0").stdout
        two.cut_power()
        two.boot()
        assert "NO-CARRIER" in two.exec("ip", "link", "show", "eth0").stdout
        assert not reaches(one, two)
    finally:
        lab.heal()
    wait_until(lambda: reaches(one, two), "hv2 is back in the network")
    wait_until(lambda: serves(two), "hv2 serves again", PVCD_RETURNS_S)


def test_a_host_may_be_kept_from_the_bmcs(lab: Lab) -> None:
    one, two, _ = lab.hosts
    lab.partition(["hv1"], bmc=True)
    try:
        assert one.exec("ping", "-c1", "-W1", "hv2-bmc").returncode != 0
        assert two.exec("ping", "-c1", "-W1", "hv1-bmc").returncode == 0
    finally:
        lab.heal()


def test_a_frozen_host_does_nothing_until_it_is_thawed(lab: Lab) -> None:
    host = lab.hosts[1]
    counting = "while :; do echo >>/run/beats; sleep 0.05; done"
    beats = host.home / "run/beats"
    process = subprocess.Popen(host.command(["bash", "-c", counting]), env=host.environment())
    try:
        wait_until(lambda: beats.exists() and beats.stat().st_size > 3, "it beats")
        assert cli(lab, "freeze", "hv2").returncode == 0
        assert host.power == "frozen"
        with pytest.raises(Unavailable):
            host.exec("true")
        frozen_at = beats.stat().st_size
        assert cli(lab, "status").returncode == 0
        assert beats.stat().st_size == frozen_at
        assert cli(lab, "thaw", "hv2").returncode == 0
        wait_until(lambda: beats.stat().st_size > frozen_at + 3, "it beats again")
    finally:
        process.kill()
        host.thaw()
        host.exec("pkill", "-f", "run/beats")
    assert process.wait(timeout=10) != 0
    assert host.power == "on"


def test_fencing_from_another_host_kills_everything_and_power_on_boots_it(lab: Lab) -> None:
    one, _, three = lab.hosts
    before = boot_id(three)
    three.freeze()  # one that hangs is fenced as well
    victims = list(three.processes())
    assert one.exec(*fence_command(three.plan, "off")).returncode == 0
    assert three.power == "off"
    assert [pid for pid in victims if Path(f"/proc/{pid}").exists()] == []
    assert not reaches(one, three)
    assert one.exec(*fence_command(three.plan, "status")).returncode == 2
    assert one.exec(*fence_command(three.plan, "on")).returncode == 0
    wait_until(lambda: serves(three), "hv3 serves again", PVCD_RETURNS_S)
    assert boot_id(three) != before
    assert reaches(one, three)


def test_a_guest_dies_with_its_host(lab: Lab) -> None:
    host = lab.hosts[2]
    definition = "<domain type='qemu'><name>g</name><memory>32768</memory><os><type>hvm</type></os></domain>"
    (lab.directory / "shared/g.xml").write_text(definition)
    wait_until(lambda: host.exec("virsh", "list").returncode == 0, "libvirtd answers")
    created = host.exec("virsh", "create", str(lab.directory / "shared/g.xml"))
    assert created.returncode == 0, created.stderr
    guests = [pid for pid, program in host.processes().items() if program == QEMU]
    assert len(guests) == 1
    assert cli(lab, "kill", "hv3").returncode == 0
    assert not Path(f"/proc/{guests[0]}").exists()
    assert cli(lab, "power", "hv3", "status").stdout == "hv3 is off.\n"
    assert cli(lab, "power", "hv3", "on").returncode == 0
    wait_until(lambda: serves(host), "hv3 serves again", PVCD_RETURNS_S)
    assert host.exec("virsh", "-q", "list", "--all").stdout.strip() == ""


def test_a_reboot_in_good_order_is_another_boot_with_an_empty_run_and_the_same_files(lab: Lab) -> None:
    host = lab.hosts[0]
    before = boot_id(host)
    host.exec("touch", "/run/gone", "/var/lib/pvc/stays")
    assert cli(lab, "reboot", "hv1").returncode == 0
    assert boot_id(host) != before
    assert host.exec("ls", "/run/gone").returncode != 0
    assert host.exec("ls", "/var/lib/pvc/stays").returncode == 0
    assert "pvcd ended with 0" in (host.home / "journal/init.log").read_text()
    wait_until(lambda: serves(host), "hv1 serves again", PVCD_RETURNS_S)


def test_a_daemon_that_dies_is_started_again_and_one_that_is_stopped_is_not(lab: Lab) -> None:
    host = lab.hosts[1]
    wait_until(lambda: serves(host), "hv2 serves", PVCD_RETURNS_S)
    first = host.unit("pvcd").pid
    assert cli(lab, "daemon", "hv2", "kill", "pvcd").returncode == 0
    wait_until(lambda: host.unit("pvcd").pid not in (0, first), "pvcd was started again")
    assert cli(lab, "daemon", "hv2", "stop", "pvcd").returncode == 0
    stopped = host.unit("pvcd")
    assert (stopped.wanted, stopped.pid) == (False, 0)
    told = json.loads(cli(lab, "status", "-o", "json").stdout)
    assert told["hosts"][1]["daemons"]["pvcd"]["wanted"] is False
    assert cli(lab, "daemon", "hv2", "start", "pvcd").returncode == 0
    wait_until(lambda: serves(host), "hv2 serves again", PVCD_RETURNS_S)


def test_a_bmc_that_is_stopped_answers_no_fencing(lab: Lab) -> None:
    one, two, _ = lab.hosts
    assert cli(lab, "daemon", "hv2", "stop", "bmc").returncode == 0
    status = [*fence_command(two.plan, "status"), "--login-timeout=1", "--shell-timeout=1"]
    assert one.exec(*status).returncode == 1
    assert two.power == "on"
    assert cli(lab, "daemon", "hv2", "start", "bmc").returncode == 0
    assert one.exec(*fence_command(two.plan, "status")).returncode == 0


def test_zookeeper_is_an_ensemble_with_one_leader(lab: Lab) -> None:
    def modes() -> list[str]:
        told = json.loads(cli(lab, "status", "-o", "json").stdout)
        return sorted(host["zookeeper"] for host in told["hosts"])

    wait_until(lambda: modes() == ["follower", "follower", "leader"], lambda: str(modes()))


def test_zookeeper_outlives_pvcd_and_is_started_again_by_it(lab: Lab) -> None:
    host = lab.hosts[1]
    wait_until(lambda: serves(host) and zookeeper_mode(host), "hv2 and its ZooKeeper serve", PVCD_RETURNS_S)
    first, pvcd = host.unit("zookeeper"), host.unit("pvcd")
    assert first.wanted
    host.kill_daemon("pvcd")
    wait_until(lambda: host.unit("pvcd").pid not in (0, pvcd.pid) and serves(host), "pvcd is back", PVCD_RETURNS_S)
    assert host.unit("zookeeper").pid == first.pid
    assert cli(lab, "daemon", "hv2", "kill", "zookeeper").returncode == 0
    assert zookeeper_mode(host) == ""
    wait_until(lambda: host.unit("zookeeper").pid not in (0, first.pid), "it was started again", PVCD_RETURNS_S)
    wait_until(lambda: zookeeper_mode(host), "it serves again", PVCD_RETURNS_S)
    assert "had ended, started again" in (host.home / "journal/pvcd.log").read_text()
    assert "zookeeper" in cli(lab, "logs", "hv2", "zookeeper").stdout


def test_a_zookeeper_that_is_stopped_stays_down_whatever_pvcd_and_its_host_do(lab: Lab) -> None:
    host = lab.hosts[2]
    assert cli(lab, "daemon", "hv3", "stop", "zookeeper").returncode == 0
    try:
        pvcd = host.unit("pvcd")
        time.sleep(LOOK_S + 1)
        stopped = host.unit("zookeeper")
        assert (stopped.pid, stopped.wanted) == (0, False)
        host.kill_daemon("pvcd")
        wait_until(lambda: host.unit("pvcd").pid not in (0, pvcd.pid) and serves(host), "pvcd is back", PVCD_RETURNS_S)
        assert host.unit("zookeeper").pid == 0
        hv3 = cli(lab, "status").stdout.splitlines()[3].split()
        assert hv3[4] == "stopped"
    finally:
        assert cli(lab, "daemon", "hv3", "start", "zookeeper").returncode == 0
    wait_until(lambda: zookeeper_mode(host), "it serves again", PVCD_RETURNS_S)


def test_up_says_that_it_is_up(lab: Lab) -> None:
    wait_until(lambda: lab.is_up, "all is up")
    again = cli(lab, "--name", lab.plan.name, "up")
    assert again.returncode == 0, again.stderr
    assert "is up already" in again.stdout


def test_a_host_that_there_is_not_is_named_with_those_that_there_are(lab: Lab) -> None:
    with pytest.raises(InvalidInput):
        lab.host("hv9")
    done = cli(lab, "shell", "hv9")
    assert done.returncode == 2
    assert "hv1, hv2, hv3" in done.stderr
