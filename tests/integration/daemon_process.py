"""A real `pvcd` in a process of its own, for tests: started, killed and started again on the same data directory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pvc.client.connections import Connection
from pvc.client.core import MAX_TRIES
from pvc.client.errors import ClientError
from pvc.client.json_client import JsonClient
from tests.support.frozen import freeze

START_S = 20.0
DYING = Path(__file__).with_name("dying_daemon.py")


class DaemonProcess:
    """`pvcd` with a configuration made from parts: `DaemonProcess(dir, hypervisor={"kind": "simulated"})`.

    `source` is where the package `pvc` is that it runs, when it is another than the tests' own.
    """

    def __init__(self, directory: Path, **parts: dict[str, Any]) -> None:
        self.directory = directory
        self.socket = directory / "pvc.sock"
        self.log_file = directory / "pvcd.out"
        self.config = directory / "pvc.toml"
        self.source: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        settings: dict[str, dict[str, Any]] = {
            "node": {"name": "hv1", "data_dir": str(directory / "data")},
            "hypervisor": {"kind": "simulated"},
            "log": {"kind": "sqlite"},
            "gateway": {"socket": str(self.socket), "listen": ""},
        }
        for part, values in parts.items():
            settings[part] = {**settings.get(part, {}), **values}
        directory.mkdir(parents=True, exist_ok=True)
        lines = []
        for part, values in settings.items():
            lines.append(f"[{part}]")
            # JSON's strings, numbers and lists are TOML's too.
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, *, kill_after: int = 0, program: Path | None = None) -> None:
        """Start it and wait until it serves. With `kill_after` it kills itself (-9) right after so many effects.

        `program`: another one that begins like `pvcd` does."""
        begun = [str(DYING)] if kill_after else [str(program)] if program else ["-m", "pvc.daemon.main"]
        environment = {**os.environ, "PVC_TEST_KILL_AFTER": str(kill_after)}
        if self.source is not None:
            environment["PYTHONPATH"] = str(self.source)
        with self.log_file.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, *begun, "--config", str(self.config)],
                stdout=out,
                stderr=out,
                env=environment,
                cwd=self.source,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.socket.exists() and self._answers():
                return
            if self._process.poll() is not None:
                if kill_after and self._process.returncode == -signal.SIGKILL:
                    return  # it got as far as its last effect before it served
                break
            time.sleep(0.05)
        raise AssertionError(f"pvcd does not serve:\n{self.log_file.read_text()[-2000:]}")

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it does nothing, and does not know it."""
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=20)

    def signal(self, number: int) -> None:
        """Send it this; SIGSTOP makes it hang, SIGCONT goes on."""
        assert self._process is not None, "it was started"
        self._process.send_signal(number)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process is not None and self._process.poll() is not None

    def client(self, *, tries: int = MAX_TRIES) -> JsonClient:
        """A client on its socket."""
        return JsonClient(Connection(name="test", url=f"unix://{self.socket}"), tries=tries)

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                client.get("/whoami")
            except ClientError as error:
                return getattr(error, "status", 0) >= 400
        return True


@contextlib.contextmanager
def two_daemons(hosts: str, cluster: str, folder: Path, *, coordinators: int) -> Iterator[dict[str, DaemonProcess]]:
    """hv1 and hv2 of one cluster on this ZooKeeper, one of them a coordinator, or both; ended after the block."""
    made = {
        name: DaemonProcess(
            folder / name,
            node={"name": name, "address": "127.0.0.1", "session_timeout_s": 4},
            log={"kind": "zookeeper", "hosts": hosts, "cluster": cluster},
        )
        for name in ("hv1", "hv2")
    }
    try:
        made["hv1"].start()
        with made["hv1"].client() as client:
            client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
            client.command("node.add", {"node": "hv2", "coordinator": coordinators == 2})
        made["hv2"].start()
        yield made
    finally:
        for daemon in made.values():
            daemon.stop()
