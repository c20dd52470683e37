"""A real `pvcd` on the simulated hypervisor and the embedded log, filled before it starts; and a bare HTTP client."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from pvc.events.record import Entry
from pvc.log.sqlite import SqliteLog
from tests.bench.records import FOREIGN, NODE
from tests.bench.running import fill

START_S = 60
"""A daemon with 10,000 VMs starts within seconds; a loaded machine may take many times as long."""


class Api(http.client.HTTPConnection):
    """One kept connection to the daemon's Unix socket; replies as decoded JSON."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def get(self, path: str, **query: str | int) -> Any:
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Any = None) -> Any:
        return self._ask("POST", path, msgspec.json.encode(body or {}))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.request(method, f"/api/v1{path}", body, headers)
        reply = self.getresponse()
        data = reply.read()
        assert reply.status == 200, f"{method} {path}: {reply.status} {data[:500]!r}"
        return msgspec.json.decode(data)


async def prepare(home: Path, entries: Iterable[Entry]) -> None:
    """Fill the log that a daemon at `home` will open."""
    home.mkdir(mode=0o700)
    log = await SqliteLog.open(home / "log.db")
    try:
        await fill(log, entries)
    finally:
        await log.close()


@contextlib.contextmanager
def daemon(home: Path) -> Iterator[Api]:
    """A daemon on the log at `home`, ready to serve; its socket is `home / "pvc.sock"`."""
    config, path = home / "pvc.toml", home / "pvc.sock"
    config.write_text(
        f'[node]\nname = "{NODE}"\ndata_dir = "{home}"\n[hypervisor]\nkind = "simulated"\n'
        f'[log]\nkind = "sqlite"\n[gateway]\nsocket = "{path}"\nlisten = ""\n'
    )
    with (home / "pvcd.log").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "pvc.daemon.main", "--config", config], stdout=out, stderr=out
        )
    api = Api(path)
    try:
        _wait_until_ready(api, process, home)
        yield api
    finally:
        api.close()
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        process.kill()
        process.wait()


def _wait_until_ready(api: Api, process: subprocess.Popen[bytes], home: Path) -> None:
    """Ready is who has announced itself since it started, and whose history index has caught up too."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
            ready = api.get(f"/nodes/{NODE}")["hypervisor"] != FOREIGN
            if ready and api.get("/history", limit=1)["records"]:
                return
        api.close()
        time.sleep(0.05)
    words = (home / "pvcd.log").read_text(errors="replace")[-2_000:]
    raise AssertionError(f"pvcd did not become ready within {START_S} s (exit {process.poll()}): {words}")


def environment(home: Path) -> dict[str, str]:
    """The environment in which `pvc` talks to the daemon at `home`."""
    return {**os.environ, "PVC_SOCKET": str(home / "pvc.sock"), "PVC_CONFIG_DIR": str(home)}
