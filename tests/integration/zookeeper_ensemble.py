"""Three real ZooKeeper servers on this machine, for tests of what a leader and its followers do to a session."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from pathlib import Path

from tests.integration.zookeeper_server import JARS, MAIN, START_TIMEOUT_S, TICK_MS, _free_port, four_letters

SYNC_LIMIT = 4
"""Ticks after which leader and followers give each other up."""


class Ensemble:
    """Servers 1 to 3; `ports[n]` is where clients reach server n."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ports = {number: _free_port() for number in (1, 2, 3)}
        self._peers = {number: (_free_port(), _free_port()) for number in (1, 2, 3)}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all three and wait until one leads and two follow."""
        for number in self.ports:
            self._start(number)
        until = time.monotonic() + START_TIMEOUT_S
        while sorted(self.modes().values()) != ["follower", "follower", "leader"]:
            assert time.monotonic() < until, f"no ensemble after {START_TIMEOUT_S} s: {self.modes()}"
            time.sleep(0.2)

    def modes(self) -> dict[int, str]:
        """What each server that serves says it is."""
        modes = {}
        for number, port in self.ports.items():
            with contextlib.suppress(OSError):
                for line in four_letters(port, b"srvr").decode().splitlines():
                    if line.startswith("Mode: "):
                        modes[number] = line.removeprefix("Mode: ")
        return modes

    def leader(self) -> int:
        [number] = [number for number, mode in self.modes().items() if mode == "leader"]
        return number

    def followers(self) -> list[int]:
        return [number for number, mode in self.modes().items() if mode == "follower"]

    def hosts(self, *numbers: int) -> str:
        return ",".join(f"127.0.0.1:{self.ports[number]}" for number in numbers)

    def send(self, number: int, how: signal.Signals) -> None:
        self._processes[number].send_signal(how)

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(timeout=30)

    def _start(self, number: int) -> None:
        home = self.home / str(number)
        (home / "data").mkdir(parents=True)
        (home / "data" / "myid").write_text(str(number))
        servers = "".join(f"server.{n}=127.0.0.1:{a}:{b}\n" for n, (a, b) in self._peers.items())
        config = home / "zoo.cfg"
        config.write_text(
            f"tickTime={TICK_MS}\ninitLimit=20\nsyncLimit={SYNC_LIMIT}\ndataDir={home / 'data'}\n"
            f"clientPort={self.ports[number]}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
            f"4lw.commands.whitelist=srvr\nmaxClientCnxns=0\n{servers}"
        )
        classpath = ":".join(str(jar) for jar in (JARS / "zookeeper.jar", JARS / "slf4j-simple.jar"))
        with (home / "server.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                ["java", "-Xmx128m", "-XX:+UseSerialGC", "-cp", classpath, MAIN, str(config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=home,
            )
