"""A real standalone ZooKeeper from Debian's package, for tests: started, stopped, killed, set back at will."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.drivers.zookeeper_config import LOG_PER_SNAPSHOT_MIB, PREALLOCATED_MIB
from tests.support.frozen import freeze

JARS = Path("/usr/share/java")
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
TICK_MS = 500
"""A quarter of the default, so that sessions of 1 s are possible and tests of their expiry short."""

START_TIMEOUT_S = 60
"""It takes 1-3 s; a loaded machine with two cores may take ten times as long."""


class ZookeeperServer:
    """One server process on 127.0.0.1 and a port of its own, with its data under `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / "data"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.data.mkdir(parents=True)

    @property
    def hosts(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it serves."""
        assert self._process is None, "it runs already"
        config = self.home / "zoo.cfg"
        config.write_text(
            f"tickTime={TICK_MS}\ndataDir={self.data}\nclientPort={self.port}\nclientPortAddress=127.0.0.1\n"
            "admin.enableServer=false\n4lw.commands.whitelist=ruok,srvr\nmaxClientCnxns=0\n"
            f"preAllocSize={PREALLOCATED_MIB * 1024}\nsnapSizeLimitInKb={LOG_PER_SNAPSHOT_MIB * 1024}\n"
            "enforceQuota=true\n"
        )
        classpath = ":".join(str(jar) for jar in (JARS / "zookeeper.jar", JARS / "slf4j-simple.jar"))
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", classpath, MAIN, str(config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.home,
            )
        self._wait_until_serving()

    def stop(self) -> None:
        """End the server in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill -9, as when the machine loses power (its disk cache survives)."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it neither answer nor hang up."""
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def save_data(self, name: str) -> None:
        """Copy the data directory of the stopped server."""
        assert self._process is None, "stop it first"
        shutil.copytree(self.data, self.home / name)

    def set_back_to(self, name: str) -> None:
        """Put an older copy in place, as an admin might restore a backup."""
        assert self._process is None, "stop it first"
        shutil.rmtree(self.data)
        shutil.copytree(self.home / name, self.data)

    def wipe(self) -> None:
        """Begin with nothing, as on a new disk."""
        assert self._process is None, "stop it first"
        shutil.rmtree(self.data)
        self.data.mkdir()

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def _wait_until_serving(self) -> None:
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            assert self._process is not None and self._process.poll() is None, self._last_words()
            with contextlib.suppress(OSError):
                if b"Mode: standalone" in four_letters(self.port, b"srvr"):
                    return
            time.sleep(0.1)
        raise AssertionError(f"ZooKeeper does not serve after {START_TIMEOUT_S} s: {self._last_words()}")

    def _last_words(self) -> str:
        return (self.home / "server.log").read_text(errors="replace")[-2000:]


def require_zookeeper() -> None:
    """Skip without Java and ZooKeeper, or fail where PVC_TEST_REQUIRE says that they must be there."""
    missing = [
        name
        for name, there in (("java", shutil.which("java")), ("zookeeper", (JARS / "zookeeper.jar").exists()))
        if not there
    ]
    if not missing:
        return
    line = f"a real ZooKeeper needs {' and '.join(missing)}: apt-get install zookeeper default-jre-headless"
    if "zookeeper" in os.environ.get("PVC_TEST_REQUIRE", ""):
        pytest.fail(line, pytrace=False)
    pytest.skip(line)


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZookeeperServer]:
    """A server shared by all tests that do it no harm; give each test a cluster name of its own."""
    yield from _serve(tmp_path_factory.mktemp("zookeeper"))


@pytest.fixture
def own_zookeeper(tmp_path: Path) -> Iterator[ZookeeperServer]:
    """A server for one test that stops, kills or sets it back."""
    yield from _serve(tmp_path / "zookeeper")


@pytest.fixture
def cluster() -> str:
    """A cluster name that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


def _serve(home: Path) -> Iterator[ZookeeperServer]:
    require_zookeeper()
    server = ZookeeperServer(home)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def four_letters(port: int, word: bytes) -> bytes:
    """What a server answers to one of its admin's words, such as `srvr`."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(word)
        reply = b""
        while chunk := connection.recv(4096):
            reply += chunk
        return reply
