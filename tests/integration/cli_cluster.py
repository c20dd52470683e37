"""A cluster of one node with the simulated hypervisor, for each module of tests that type `pvc`."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli_process import Cli
from tests.integration.daemon_process import DaemonProcess


class Cluster:
    """A cluster of one node, initialised by the CLI."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.daemon = DaemonProcess(
            directory, gateway={"socket": str(directory / "pvc.sock"), "listen": f"127.0.0.1:{self.port}"}
        )
        self.daemon.start()
        self.cli = Cli(directory, {"PVC_SOCKET": str(self.daemon.socket)})
        self.before = self.cli("vm", "list")
        self.init = self.cli("cluster", "init", "lab")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        found = re.search(r"pvc_[0-9a-z]+_[0-9a-f]+", self.init.out)
        assert found is not None, self.init
        return found[0]

    def remote(self, home: Path) -> Cli:
        """Somebody elsewhere, who has no socket and no connection yet."""
        return Cli(home, {})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cli"))
    yield made
    made.daemon.stop()


@pytest.fixture
def cli(cluster: Cluster) -> Cli:
    return cluster.cli
