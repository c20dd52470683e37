"""The real watchdog driver against the lab's player of its hardware: a process that runs a command when it bites."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from pvc.drivers.watchdog import LinuxWatchdog
from pvc.errors import DriverError
from tests.contract.watchdog_contract import TIMEOUT_S, WatchdogContract, bitten
from tests.support.waiting import wait_until

DAEMON = """
import sys, time
from pathlib import Path
from pvc.drivers.watchdog import LinuxWatchdog
watchdog = LinuxWatchdog(Path(sys.argv[1]))
watchdog.arm(int(sys.argv[2]))
watchdog.pet()
print("armed", flush=True)
time.sleep(600)
"""


class FifoBench:
    """A FIFO, the player behind it, and a file that gets a line at each bite."""

    def __init__(self, home: Path) -> None:
        self.fifo = home / "watchdog"
        self._bites = home / "bites"
        self._log = home / "log"
        self.watchdog = LinuxWatchdog(self.fifo)
        command = [sys.executable, "-m", "pvc.lab.watchdog", "--fifo", str(self.fifo), "--timeout", "60", "--"]
        with self._log.open("wb") as log:
            self._player = subprocess.Popen([*command, "sh", "-c", f"echo bite >>{self._bites}"], stdout=log)
        wait_until(lambda: "ready" in self._log.read_text(), "the player is not ready")

    def run(self, story: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            await story()

        asyncio.run(main())

    def bites(self) -> int:
        return len(self._bites.read_text().splitlines()) if self._bites.exists() else 0

    def daemon_dies(self) -> None:
        fd = self.watchdog._fd
        assert fd is not None
        os.close(fd)
        self.watchdog._fd = None

    def end(self) -> None:
        self._player.kill()
        self._player.wait(timeout=10)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[FifoBench]:
    bench = FifoBench(tmp_path)
    yield bench
    bench.end()


class TestLinuxWatchdogOnAFifo(WatchdogContract):
    """The shared suite, on real time."""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_daemon_that_is_killed_or_frozen_takes_its_machine_down(bench: FifoBench, how: signal.Signals) -> None:
    command = [sys.executable, "-c", DAEMON, str(bench.fifo), str(TIMEOUT_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None and daemon.stdout.readline() == b"armed\n"
        daemon.send_signal(how)
        try:
            asyncio.run(bitten(bench, 1))
        finally:
            daemon.kill()


def test_there_is_no_watchdog_where_nothing_reads_the_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "watchdog")
    refused(tmp_path / "watchdog", "No such device")


def test_there_is_no_watchdog_where_there_is_nothing(tmp_path: Path) -> None:
    refused(tmp_path / "watchdog", "No such file")


def test_a_plain_file_is_no_watchdog(tmp_path: Path) -> None:
    (tmp_path / "watchdog").touch()
    refused(tmp_path / "watchdog", "neither a device")


def test_a_device_that_keeps_no_time_is_no_watchdog() -> None:
    refused(Path("/dev/null"), "ioctl")


def test_a_socket_gets_the_same_bytes_and_its_loss_is_noticed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "watchdog"))
        listener.listen()
        watchdog = LinuxWatchdog(tmp_path / "watchdog")
        watchdog.arm(5)
        hardware, _ = listener.accept()
        with hardware:
            watchdog.pet()
            assert hardware.recv(100) == b"5\n\0"
    with pytest.raises(DriverError) as failure:
        watchdog.pet()
    assert failure.value.code == "watchdog.unavailable"
    watchdog._close()


def refused(path: Path, why: str) -> None:
    with pytest.raises(DriverError, match=why) as failure:
        LinuxWatchdog(path).arm(10)
    assert failure.value.code == "watchdog.unavailable"
