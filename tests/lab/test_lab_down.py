"""`down` leaves nothing behind, whatever has happened; and labs do not meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.errors import InvalidInput, Unavailable
from pvc.lab import network, processes
from pvc.lab.lab import Lab, create_lab, create_new_lab, destroy
from tests.lab.lab_fixtures import made_lab, new_name, require_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


@pytest.fixture
def small_lab() -> Iterator[Lab]:
    """One node, up."""
    yield from made_lab(nodes=1, coordinators=1)


@pytest.fixture
def directory() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="pvc-lab-", dir="/tmp"))
    yield home
    if home.exists():
        destroy(home, None)


def remains(directory: Path, name: str) -> dict[str, object]:
    """Whatever of the lab is still there."""
    commands = [Path(f"/proc/{pid}/cmdline") for pid in processes.all_pids()]
    mine = os.fsencode(f"{directory}")
    found = {
        "processes": [str(path) for path in commands if mine in _read(path)],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line],
        "network": network.leftovers(name),
        "rules": [line for line in _nft_tables() if f" {name}lab" in line],
        "directory": [str(directory)] if directory.exists() else [],
    }
    return {what: there for what, there in found.items() if there}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _nft_tables() -> list[str]:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout.splitlines()


def test_down_leaves_nothing_and_may_be_repeated(small_lab: Lab) -> None:
    host = small_lab.hosts[0]
    assert host.power == "on"
    with subprocess.Popen(host.command(["sleep", "1000"]), env=host.environment()) as inside:
        small_lab.down()
        assert inside.wait(timeout=10) != 0
    assert remains(small_lab.directory, small_lab.plan.name) == {}
    assert destroy(small_lab.directory, small_lab.plan.name) == []


def test_down_clears_what_a_crash_has_left(small_lab: Lab) -> None:
    init = small_lab.hosts[0].init
    assert init is not None
    os.kill(init, signal.SIGKILL)
    (small_lab.directory / "lab.json").unlink()
    command = [
        sys.executable,
        "-m",
        "pvc.lab",
        "--dir",
        str(small_lab.directory),
        "--name",
        small_lab.plan.name,
        "down",
    ]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1, "a directory that does not say that it is a lab's is not removed"
    assert set(remains(small_lab.directory, small_lab.plan.name)) == {"directory"}
    (small_lab.directory / "lab.json").write_text(
        f'{{"nodes":1,"coordinators":1,"name":"{small_lab.plan.name}","subnet":77}}'
    )
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).returncode == 0
    assert remains(small_lab.directory, small_lab.plan.name) == {}


def test_down_ends_a_watchdog_that_has_outlived_its_host() -> None:
    for made in made_lab(nodes=1, coordinators=1, self_fencing=["hv1"]):
        assert made.hosts[0].watchdog.running
        init = made.hosts[0].init
        assert init is not None
        os.kill(init, signal.SIGKILL)
        assert made.hosts[0].watchdog.running, "hardware minds no crash of its host"
        made.down()
        assert remains(made.directory, made.plan.name) == {}


def test_up_again_after_an_interruption_goes_on_where_it_was(directory: Path) -> None:
    require_lab()
    name = new_name()
    plan = create_lab(directory, nodes=1, coordinators=1, name=name).plan
    (directory / "hosts").unlink()  # as if it had been killed while it wrote the hosts' files
    again = create_lab(directory, nodes=1, coordinators=1, name=name)
    assert again.plan == plan
    assert (directory / "hosts").exists()
    assert not again.is_up
    again.up()
    assert again.is_up
    again.down()
    assert remains(directory, name) == {}


def test_two_labs_have_networks_of_their_own(directory: Path, small_lab: Lab) -> None:
    name = new_name()
    other = create_lab(directory, nodes=1, coordinators=1, name=name)
    assert other.plan.subnet != small_lab.plan.subnet
    other.hosts[0].boot()
    assert other.hosts[0].exec("ping", "-c1", "-W1", "hv1").returncode == 0
    assert small_lab.hosts[0].exec("hostname", "-I").stdout.split() == [small_lab.hosts[0].plan.address]
    other.down()
    assert remains(directory, name) == {}
    assert small_lab.hosts[0].power == "on"


def test_a_lab_of_another_size_is_not_taken_for_the_one_there_is(directory: Path) -> None:
    require_lab()
    create_lab(directory, nodes=1, coordinators=1, name=new_name())
    with pytest.raises(InvalidInput) as refusal:
        create_lab(directory, nodes=3, coordinators=3, name=new_name())
    assert refusal.value.code == "lab.another"


def test_a_lab_of_a_name_that_runs_elsewhere_is_refused_and_left_alone(directory: Path, small_lab: Lab) -> None:
    there = small_lab.plan
    for begin in (
        lambda: create_lab(directory, nodes=1, coordinators=1, name=there.name),
        lambda: create_new_lab(small_lab.directory, there),
        lambda: destroy(directory, there.name),
    ):
        with pytest.raises(InvalidInput) as refusal:
            begin()
        assert refusal.value.code == "lab.exists"
    assert small_lab.hosts[0].exec("ping", "-c1", "-W1", there.bridge_address).returncode == 0


def test_a_directory_that_is_no_labs_is_left_alone(directory: Path) -> None:
    require_lab()
    precious = directory / "precious"
    precious.write_text("mine")
    with pytest.raises(InvalidInput):
        create_lab(directory, nodes=1, coordinators=1, name=new_name())
    with pytest.raises(InvalidInput):
        destroy(directory, None)
    assert precious.read_text() == "mine"
    precious.unlink()


def test_where_there_is_no_lab_that_is_said(directory: Path) -> None:
    with pytest.raises(Unavailable) as refusal:
        Lab.load(directory)
    assert refusal.value.code == "lab.none"
