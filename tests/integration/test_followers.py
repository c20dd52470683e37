"""Those who follow a log or the events while the daemon stops, is killed, and comes back."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli_process import PVC, Cli
from tests.integration.daemon_process import DaemonProcess

GRACE_S = 3.0
"""A daemon whose followers do not let go takes five seconds and more."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    made = DaemonProcess(tmp_path)
    made.start()
    client = made.client()
    client.command("cluster.init", {"name": "main"})
    _until(lambda: any(node["ready"] for node in client.nodes()))
    client.command("vm.define", {"name": "web01", "memory_mib": 64})
    client.command("vm.start", {"vm": "web01"})
    _until(lambda: b"heartbeat" in b"".join(client.vm_log("web01")))
    client.close()
    yield made
    made.stop()


def test_a_daemon_that_is_stopped_waits_for_no_follower(daemon: DaemonProcess, tmp_path: Path) -> None:
    followers = [follow(daemon, tmp_path, *words) for words in (("vm", "log", "web01", "-f"), ("event", "follow"))]
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < GRACE_S
    assert "Traceback" not in daemon.log_file.read_text()
    for process in followers:
        process.kill()
        process.wait()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_followed_log_ends_with_a_reason_when_the_daemon_does(
    daemon: DaemonProcess, tmp_path: Path, end: str
) -> None:
    process = follow(daemon, tmp_path, "vm", "log", "web01", "-f")
    getattr(daemon, end)()
    out, err = process.communicate(timeout=10)
    assert "heartbeat" in out
    assert process.returncode == 5
    assert "has ended the log of web01" in err and "pvc vm log web01 --follow" in err
    daemon.start()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_followed_events_go_on_without_gap_or_repeat_when_the_daemon_is_back(
    daemon: DaemonProcess, tmp_path: Path, end: str
) -> None:
    process = follow(daemon, tmp_path, "event", "follow", "--after", "0", "-o", "json")
    getattr(daemon, end)()
    daemon.start()
    last = daemon.client().command("vm.modify", {"vm": "web01", "description": "seen"})["position"]
    assert process.stdout is not None
    positions = []
    while not positions or positions[-1] < last:
        positions.append(json.loads(process.stdout.readline())["position"])
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    assert positions == list(range(1, last + 1))


def follow(daemon: DaemonProcess, home: Path, *words: str) -> subprocess.Popen[str]:
    """`pvc` following, when it has begun to: its request is under way."""
    env = Cli(home, {"PVC_SOCKET": str(daemon.socket)}).env
    process = subprocess.Popen([*PVC, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    assert process.poll() is None
    return process


def _until(condition: object, patience_s: float = 15.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
