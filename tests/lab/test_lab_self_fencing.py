"""A host without a BMC that fences itself by a watchdog: cut off or hung, its VMs end before they run elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.errors import PvcError
from pvc.events.node import NodeFenced, NodeLost
from pvc.lab.chaos.checks import check_fencing
from pvc.lab.chaos.journal import Journal
from pvc.lab.chaos.logbook import Logbook
from pvc.lab.chaos.sampler import Sampler
from pvc.lab.chaos.windows import Run, doubles
from pvc.lab.cluster import ask_gateway
from pvc.lab.guest import build_guest
from pvc.lab.host import LabHost
from pvc.lab.lab import Lab
from pvc.projections.state import NodeState
from tests.lab.lab_fixtures import made_lab
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

WATCHED = "hv3"
PROMISED_S = 22.0
"""Twice the watchdog's time-out of 10 s, and 2 s."""
RECOVERED_S = 120.0
"""Until what ran on a lost host beats elsewhere: 10 s of session, 24 s of waiting, a boot; more on a busy machine."""
RETURNS_S = 90.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    for made in made_lab(nodes=3, coordinators=3, self_fencing=(WATCHED,)):
        ask_gateway(made.hosts[0], "POST", "/cluster/maintenance", {"maintenance": False})
        yield made


class Scene:
    """The lab, and what is seen of its log and its guests."""

    def __init__(self, lab: Lab) -> None:
        journal = Journal()
        self.lab = lab
        self.host = lab.host(WATCHED)
        self.sampler = Sampler(lab, journal)
        self.logbook = Logbook(lab, journal)
        self.guest = build_guest(lab.directory / "shared/guest")

    def run_vm(self, name: str) -> Run:
        """Define a VM on the watched host and start it; its run once it beats there."""
        fields = {
            "name": name,
            "node": WATCHED,
            "memory_mib": 128,
            "vcpus": 1,
            "kernel": str(self.guest.kernel),
            "initrd": str(self.guest.initrd),
            "cmdline": f"console=ttyS0 oops=panic panic=-1 pvc.name={name} pvc.beat=0.5",
        }
        ask_gateway(self.lab.hosts[0], "POST", "/vms", fields)
        ask_gateway(self.lab.hosts[0], "POST", f"/vms/{name}/start", {})
        wait_until(lambda: self.beats(name, elsewhere=False), f"{name} beats on {WATCHED}", RECOVERED_S)
        return self.beats(name, elsewhere=False)[0]

    def beats(self, name: str, *, elsewhere: bool) -> list[Run]:
        vm = self.logbook.state.vm_names.get(name)
        return [run for run in self.sampler.beating() if run.vm == vm and (run.host != WATCHED) is elsewhere]

    @property
    def is_ready(self) -> bool:
        node = self.logbook.state.nodes.get(WATCHED)
        return node is not None and node.state is NodeState.READY and WATCHED in self.logbook.latest

    @property
    def serves(self) -> bool:
        """Whether the watched host's gateway answers."""
        try:
            return bool(ask_gateway(self.host, "GET", "/nodes"))
        except PvcError:
            return False

    def check_recovery(self, first: Run, position: int) -> NodeFenced:
        """The VM ended on the watched host before it was fenced by its own promise, and never ran twice."""
        told = self.logbook.told[position:]
        [lost] = [one for one in told for event in one.events if isinstance(event, NodeLost)]
        [fenced] = [one for one in told for event in one.events if isinstance(event, NodeFenced)]
        assert fenced.arrived_s - lost.arrived_s >= PROMISED_S - 1
        assert first.gone_s is not None and first.gone_s < fenced.arrived_s
        assert doubles(self.sampler.runs) == []
        assert check_fencing(self.logbook.told, self.sampler.runs) == []
        [event] = [event for event in fenced.events if isinstance(event, NodeFenced)]
        return event


@pytest.fixture
def scene(lab: Lab) -> Iterator[Scene]:
    scene = Scene(lab)
    scene.sampler.start()
    scene.logbook.start()
    try:
        wait_until(lambda: scene.is_ready, f"{WATCHED} is ready", RETURNS_S)
        yield scene
    finally:
        lab.heal()
        scene.host.boot()
        scene.sampler.stop()
        scene.logbook.stop()


def boot_id(host: LabHost) -> str:
    return (host.home / "boot_id").read_text()


def test_it_is_set_up_with_a_watchdog_and_without_a_fence_agent(lab: Lab) -> None:
    nodes = {node["name"]: node for node in ask_gateway(lab.hosts[0], "GET", "/nodes")["items"]}
    assert lab.host(WATCHED).watchdog.running
    assert not lab.bmc(lab.host(WATCHED)).running
    assert [name for name, node in sorted(nodes.items()) if node["fence"] is None] == [WATCHED]
    assert nodes[WATCHED]["self_fence_s"] == PROMISED_S


def test_one_that_is_cut_off_ends_its_vms_and_goes_on_when_it_is_healed(scene: Scene) -> None:
    first, before, position = scene.run_vm("web01"), boot_id(scene.host), scene.logbook.position
    scene.lab.partition([WATCHED])
    wait_until(lambda: scene.beats("web01", elsewhere=True), "web01 beats elsewhere", RECOVERED_S)
    fenced = scene.check_recovery(first, position)
    assert (fenced.node, fenced.method) == (WATCHED, "self")
    assert "promised" in fenced.evidence
    scene.lab.heal()
    wait_until(lambda: scene.is_ready, f"{WATCHED} is ready", RETURNS_S)
    assert boot_id(scene.host) == before, "it has ended its VMs, so its watchdog was petted"
    assert doubles(scene.sampler.runs) == []


def test_one_that_hangs_is_reset_by_its_watchdog(scene: Scene) -> None:
    first, before, position = scene.run_vm("web02"), boot_id(scene.host), scene.logbook.position
    scene.lab.partition([WATCHED], link_down=True)  # else it would be back before it is fenced
    scene.host.freeze()
    wait_until(lambda: boot_id(scene.host) != before and scene.host.power == "on", "it is reset", RETURNS_S)
    wait_until(lambda: scene.beats("web02", elsewhere=True), "web02 beats elsewhere", RECOVERED_S)
    assert scene.check_recovery(first, position).method == "self"
    scene.lab.heal()
    wait_until(lambda: scene.is_ready, f"{WATCHED} is ready", RETURNS_S)
    assert doubles(scene.sampler.runs) == []


def test_one_whose_daemon_stays_away_is_reset_and_comes_back(scene: Scene) -> None:
    first, before = scene.run_vm("web03"), boot_id(scene.host)
    scene.host.kill_daemon("pvcd")
    scene.host.stop_daemon("pvcd")
    wait_until(lambda: boot_id(scene.host) != before and scene.host.power == "on", "it is reset", RETURNS_S)
    assert not Path(f"/proc/{first.pid}").exists()
    assert "not petted for 10 s" in scene.host.watchdog.log.read_text()
    wait_until(lambda: scene.serves, "its pvcd serves again", RETURNS_S)
    wait_until(lambda: scene.is_ready, f"{WATCHED} is ready", RETURNS_S)
    vm = scene.logbook.state.vm_names["web03"]
    beating = lambda: [run for run in scene.sampler.beating() if run.vm == vm]  # noqa: E731
    wait_until(beating, "web03 beats again", RECOVERED_S)
    assert doubles(scene.sampler.runs) == []


def test_its_watchdog_has_no_power_while_the_host_has_none(scene: Scene) -> None:
    scene.host.cut_power()
    assert not scene.host.watchdog.running
    assert scene.host.power == "off"
    scene.host.boot()
    assert scene.host.watchdog.running
    wait_until(lambda: scene.serves, "its pvcd serves again", RETURNS_S)
    wait_until(lambda: scene.is_ready, f"{WATCHED} is ready", RETURNS_S)
