"""The API against its own description: schemathesis asks every endpoint, with right and with wrong data, and finds
nothing. That it would is shown on a description that is wrong, and on a gateway that is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pvc.gateway.app import all_endpoints
from tests.integration.cli_cluster import free_port
from tests.integration.daemon_process import DaemonProcess

HERE = Path(__file__).parent
SETTINGS = HERE / "schemathesis.toml"
DAEMON = HERE / "unhurried_daemon.py"
SEED = "20250131"
CASES_PER_ENDPOINT = "5"
TIMEOUT_S = 240.0
"""Against hanging; it takes some 40 s on two processors."""

ONLY_BY_OTHERS = {"vm.console", "health", "cluster.restore"}
"""What is tested elsewhere: a WebSocket, what needs no token, and what begins a log anew."""


DESCRIPTION = "api.openapi"
"""What schemathesis has fetched before it begins, and does not count."""


class Found(NamedTuple):
    """What a run of schemathesis said."""

    code: int
    text: str

    @property
    def cases(self) -> int:
        """How many requests it made up."""
        told = re.search(r"([0-9,]+) generated", self.text)
        assert told is not None, self.text[-3000:]
        return int(told[1].replace(",", ""))


class Target:
    """A daemon with a VM, people and an operation."""

    def __init__(self, directory: Path, program: Path = DAEMON) -> None:
        self.port = free_port()
        listen = f"127.0.0.1:{self.port}"
        self.daemon = DaemonProcess(directory, gateway={"socket": str(directory / "pvc.sock"), "listen": listen})
        self.daemon.start(program=program)
        with self.daemon.client() as client:
            self.token = str(client.command("cluster.init", {"name": "lab"}).get("token"))
            deadline = time.monotonic() + 20
            while not any(node["ready"] for node in client.nodes()):
                assert time.monotonic() < deadline, "hv1 does not become ready"
                time.sleep(0.1)
            for name in ("web01", "gone01", "other01"):
                client.command("vm.define", {"name": name, "memory_mib": 64, "vcpus": 1})
            begun = client.command("vm.start", {"vm": "web01"})["operation"]
            assert begun is not None
            self.operation = begun["id"]
            for name in ("mia", "otto"):
                client.command("access.add", {"principal": name, "grants": [{"role": "viewer"}]})
            made = client.command("access.create_token", {"principal": "mia"})
            self.other_token = str(made.get("token")).split("_")[1]

    def ask(self, *options: str, location: str = "") -> Found:
        """Run schemathesis."""
        url = f"http://127.0.0.1:{self.port}"
        words = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS), "run"]
        words += [location or f"{url}/api/v1/openapi.json", "--url", url, "-H", f"Authorization: Bearer {self.token}"]
        words += ["--seed", SEED, "--request-timeout", "20", "--continue-on-failure", "--no-shrink", "--no-color"]
        known = {"PVC_OPERATION": self.operation, "PVC_OTHER_TOKEN": self.other_token}
        ran = subprocess.run(
            [*words, *options],
            env={**os.environ, **known},
            cwd=self.daemon.directory,  # where it keeps what it found before, which is none of the next run's concern
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Found(ran.returncode, ran.stdout + ran.stderr)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    made = Target(tmp_path_factory.mktemp("api"))
    yield made
    made.daemon.stop()


def test_nothing_is_found_wrong_with_any_endpoint(
    target: Target, record_property: Callable[[str, object], None]
) -> None:
    left_out = [word for name in sorted(ONLY_BY_OTHERS) for word in ("--exclude-operation-id", name)]
    found = target.ask("--phases", "examples,fuzzing", "--max-examples", CASES_PER_ENDPOINT, *left_out)
    assert found.code == 0, found.text[-12_000:]
    tested = re.search(r"Tested: ([0-9]+)", found.text)
    asked = {endpoint.name for endpoint in all_endpoints()} - ONLY_BY_OTHERS - {DESCRIPTION}
    assert tested is not None and int(tested[1]) == len(asked), found.text[-3000:]
    assert found.cases > 400
    record_property("figure", f"schemathesis: {found.cases} requests, nothing found")
    assert "internal error" not in target.daemon.log_file.read_text()


@pytest.mark.parametrize("endpoint", ["vm.list", "operation.show", "vm.set_priority"])
def test_the_edges_of_each_field_are_as_described(target: Target, endpoint: str) -> None:
    found = target.ask("--phases", "coverage", "--include-operation-id", endpoint)
    assert found.code == 0, found.text[-8_000:]
    assert found.cases > 20


def test_a_description_that_is_wrong_is_found_out(target: Target, tmp_path: Path) -> None:
    document = json.loads((HERE.parents[1] / "schemas" / "openapi.json").read_text())
    document["components"]["schemas"]["WhoAmI"]["properties"]["position"] = {"type": "string"}
    wrong = tmp_path / "openapi.json"
    wrong.write_text(json.dumps(document))
    found = target.ask("--phases", "coverage", "--include-operation-id", "access.whoami", location=str(wrong))
    assert found.code == 1 and "is not of type" in found.text, found.text[-3000:]


def test_a_gateway_that_is_wrong_is_found_out(tmp_path: Path) -> None:
    wrong = Target(tmp_path, program=HERE / "wrong_daemon.py")
    try:
        found = wrong.ask("--phases", "fuzzing", "--max-examples", "30", "--include-operation-id", "vm.set_priority")
        assert found.code == 1 and "Server error" in found.text, found.text[-3000:]
    finally:
        wrong.daemon.stop()
