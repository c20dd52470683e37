"""Two `pvcd` on one ZooKeeper trace to a real receiver: what one node was asked and another did is one trace."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.spans import span_id_of, trace_id_of
from tests.integration.daemon_process import DaemonProcess
from tests.integration.zookeeper_server import ZookeeperServer

pytestmark = pytest.mark.zookeeper

ROOT = Path(__file__).parents[2]

PATIENCE_S = 40.0
"""The library sends every five seconds."""


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    file = tmp_path / "spans"
    file.touch()
    program = [sys.executable, "-m", "tests.integration.otlp_receiver", str(file)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), file
        process.kill()


@pytest.fixture
def daemons(
    zookeeper: ZookeeperServer, cluster: str, receiver: tuple[int, Path], tmp_path: Path
) -> Iterator[dict[str, DaemonProcess]]:
    made = {
        name: DaemonProcess(
            tmp_path / name,
            node={"name": name, "address": "127.0.0.1"},
            log={"kind": "zookeeper", "hosts": zookeeper.hosts, "cluster": cluster},
            tracing={"endpoint": f"http://127.0.0.1:{receiver[0]}/v1/traces"},
            logging={"format": "json"},
        )
        for name in ("hv1", "hv2")
    }
    yield made
    for daemon in made.values():
        daemon.stop()


def test_a_command_at_one_node_and_its_effect_on_another_are_one_trace(
    daemons: dict[str, DaemonProcess], receiver: tuple[int, Path]
) -> None:
    daemons["hv1"].start()
    with daemons["hv1"].client() as client:
        client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
        client.command("node.add", {"node": "hv2", "coordinator": False})
        daemons["hv2"].start()
        until(lambda: client.get("/nodes/hv2")["ready"], "hv2 is ready")
        client.command("vm.define", {"name": "web01", "memory_mib": 64, "vcpus": 1, "node": "hv2"})
        reply = client.command("vm.start", {"vm": "web01"})
        until(lambda: client.get("/vms/web01")["state"] == "running", "web01 runs")
    record = reply["record"]
    assert record is not None
    trace = f"{trace_id_of(record):032x}"
    wanted = {("POST /vms/{vm}/start", "hv1"), ("append", "hv1"), ("fold", "hv1"), ("fold", "hv2"), ("vm.start", "hv2")}
    until(lambda: wanted <= {(span["name"], span["node"]) for span in spans(receiver[1], trace)}, "the spans are there")
    found = {(span["name"], span["node"]): span for span in spans(receiver[1], trace)}
    root = found["POST /vms/{vm}/start", "hv1"]
    assert (root["span"], root["parent"]) == (f"{span_id_of(record):016x}", "")
    assert found["vm.start", "hv2"]["parent"] == root["span"]
    assert ("vm.report_running", "hv2") in found, "what came of it is part of it"

    lines = daemons["hv1"].log_file.read_text().splitlines()
    told = [json.loads(line) for line in lines]
    (line,) = [one for one in told if one.get("fields", {}).get("command") == "vm.start"]
    assert (line["fields"]["record"], line["fields"]["result"]) == (record, "ok")
    assert line["fields"]["request"] and line["level"] == "info"


def spans(file: Path, trace: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [span for span in found if span["trace"] == trace]


def until(true: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"not so in {PATIENCE_S:g} s: {what}"
        time.sleep(0.2)
