"""Debian's fence_ipmilan against a BMC that speaks IPMI over LAN; what it switches is a process group."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.drivers.fence_agent import FenceAgents
from pvc.errors import DriverError
from pvc.events.fence import FenceSettings
from pvc.lab.bmc import Bmc
from tests.contract.fence_contract import NODE, FenceContract

pytestmark = pytest.mark.fencing

PASSWORD = "bmc-s3cret"
POWER = """\
#!/bin/sh
# A "machine": one process group, its number in the file beside this script.
cd {home}
alive() {{ [ -s pgid ] && kill -0 "-$(cat pgid)" 2>/dev/null; }}
off() {{ [ ! -s pgid ] || kill -9 "-$(cat pgid)" 2>/dev/null; rm -f pgid; }}
on() {{ alive || setsid sh -c 'echo $$ >pgid; sleep 600 & exec sleep 600'; }}
case $1 in
    get) if alive; then echo on; else echo off; fi ;;
    off) off ;;
    on) on ;;
    reset) off; on ;;
esac
"""


class IpmiBench:
    """A machine that is a process group, and its BMC."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.fence = FenceAgents()
        self._power_command = home / "power"
        self._power_command.write_text(POWER.format(home=home))
        self._power_command.chmod(0o755)
        self._password_file = home / "password"
        self._password_file.write_text(PASSWORD + "\n")
        self._password_file.chmod(0o600)
        port = _free_udp_port()
        self.bmc = self.another_bmc(port)
        self.settings = self.with_options(ip="127.0.0.1", ipport=str(port), username="pvc", lanplus="1", cipher="3")

    def another_bmc(self, port: int) -> Bmc:
        return Bmc(
            self.home / "bmc",
            address="127.0.0.1",
            port=port,
            user="pvc",
            password_file=self._password_file,
            power_command=[str(self._power_command)],
        )

    def with_options(self, *, timeout_s: int = 60, **options: str) -> FenceSettings:
        return FenceSettings(
            agent="fence_ipmilan",
            options=options,
            password_file=str(self._password_file),
            timeout_s=timeout_s,
        )

    def has_power(self) -> bool:
        return self.press("get") == "on"

    def press(self, button: str) -> str:
        command = [str(self._power_command), button]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=10).stdout.strip()

    def boot(self) -> None:
        machine = subprocess.Popen([str(self._power_command), "on"], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self.has_power():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self._machine = machine

    def cut_off_device(self) -> FenceSettings:
        self.bmc.stop()
        # The agent waits 20 s for each answer, and every call is tried twice: not for a test.
        return self.with_options(**self.settings.options, power_timeout="1")

    def end(self) -> None:
        self.bmc.stop()
        self.press("off")
        self._machine.wait(timeout=10)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[IpmiBench]:
    missing = [tool for tool in ("fence_ipmilan", "ipmitool", "ipmi_sim") if shutil.which(tool) is None]
    if missing:
        line = f"fencing needs {' and '.join(missing)}: apt-get install fence-agents ipmitool openipmi"
        (pytest.fail if "fencing" in os.environ.get("PVC_TEST_REQUIRE", "") else pytest.skip)(line)
    bench = IpmiBench(tmp_path)
    bench.boot()
    try:
        bench.bmc.start()
        yield bench
    finally:
        bench.end()


class TestFenceIpmilan(FenceContract):
    """The shared suite, through the real agent, ipmitool and the network."""


async def test_the_whole_process_group_is_gone_when_the_evidence_comes(bench: IpmiBench) -> None:
    group = int((bench.home / "pgid").read_text())
    evidence = await bench.fence.off(NODE, bench.settings)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert evidence == f"fence_ipmilan at 127.0.0.1:{bench.settings.options['ipport']}: status OFF"


async def test_ipmi_1_5_without_lanplus_does_too(bench: IpmiBench) -> None:
    options = {name: value for name, value in bench.settings.options.items() if name not in ("lanplus", "cipher")}
    await bench.fence.off(NODE, bench.with_options(**options, auth="md5"))
    assert not bench.has_power()


async def test_a_wrong_password_switches_nothing_and_is_not_told(bench: IpmiBench) -> None:
    (bench.home / "password").write_text("wr0ng-one\n")
    with pytest.raises(DriverError) as failure:
        await bench.fence.off(NODE, bench.settings)
    assert failure.value.code == "fence.failed"
    assert "wr0ng-one" not in str(failure.value)
    assert bench.has_power()


async def test_a_bmc_that_is_silent_is_given_up_within_the_time(bench: IpmiBench) -> None:
    pid = bench.bmc.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(DriverError) as failure:
        await bench.fence.off(NODE, bench.with_options(**bench.settings.options, timeout_s=3))
    assert time.monotonic() - began < 15
    assert failure.value.code == "fence.timeout"
    os.kill(pid, signal.SIGCONT)
    assert bench.has_power()


async def test_a_bmc_is_adopted_by_whoever_knows_its_directory(bench: IpmiBench) -> None:
    again = bench.another_bmc(bench.bmc.port)
    pid = bench.bmc.pid
    again.start()
    assert again.pid == pid
    again.stop()
    assert not bench.bmc.running


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
