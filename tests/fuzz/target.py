"""A real `pvcd` that is attacked, what it uses, and whether it is still well: its log, its VMs, its own words."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from pvc.daemon.own_certificate import make_certificate
from tests.integration.daemon_process import DaemonProcess

SETTLE_S = 60.0
"""For what the attackers have left to be closed: a deadline for a request's head, twice."""

FEW_FILES = 12
"""Open files more than before that are no leak: a database's, a thread's, a good client's."""

DEFECTS = re.compile(rb"Traceback|internal error|Fatal error|never retrieved|Exception in|out of system resource")


class Target:
    """A daemon with a cluster, two VMs and an admin's token, on loopback; with or without TLS."""

    def __init__(self, folder: Path, *, tls: bool) -> None:
        self.tls = tls
        self.port = _free_port()
        gateway: dict[str, Any] = {"listen": f"127.0.0.1:{self.port}"}
        folder.mkdir(parents=True, exist_ok=True)
        if tls:
            pem = folder / "gateway.pem"
            pem.write_bytes(make_certificate("hv1", ["localhost", "127.0.0.1"]))
            gateway |= {"tls_cert": str(pem), "tls_key": str(pem)}
        self.daemon = DaemonProcess(folder, gateway=gateway)
        self.daemon.start()
        self.pid = int((folder / "data" / "lock").read_text())
        self.token = str(self.ask("POST", "/cluster/init", {"name": "main"})["token"])
        self.ask("POST", "/access", {"principal": "good", "kind": "service", "grants": [{"role": "viewer"}]})
        self.good_token = str(self.ask("POST", "/access/good/tokens", {})["token"])
        for name in ("web01", "web02"):
            self._define(name)
        self.ask("POST", "/vms/web01/start")

    @property
    def context(self) -> ssl.SSLContext | None:
        """For a client who looks at nothing."""
        if not self.tls:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def close(self) -> None:
        """Stop it."""
        self.daemon.stop()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Root asks, through the socket."""
        connection = _Local(str(self.daemon.socket))
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, f"/api/v1{path}", data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            told: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        assert answer.status < 400, (method, path, answer.status, told)
        return told

    def files(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_mib(self) -> float:
        """Of its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    def await_files(self, before: int) -> int:
        """Wait until it has closed what the attackers have left; how many files are open then."""
        deadline = time.monotonic() + SETTLE_S
        while self.files() > before + FEW_FILES and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.files()

    def defects(self) -> list[str]:
        """What it has said that only a defect says."""
        lines = self.daemon.log_file.read_bytes().splitlines()
        return [line.decode(errors="replace")[:300] for line in lines if DEFECTS.search(line)]

    def assert_well(self) -> int:
        """It runs, its log verifies, and a VM that is to run runs soon. Returns how many records were verified."""
        assert not self.daemon.ended
        first = 1
        while (portion := self.ask("GET", f"/log/verify?first={first}"))["last"] >= portion["first"]:
            assert portion["findings"] == [], portion
            first = portion["last"] + 1
        name = f"after-{first}"
        self._define(name)
        self.ask("POST", f"/vms/{name}/start")
        deadline = time.monotonic() + 30
        while self.ask("GET", f"/vms/{name}")["state"] != "running":
            assert time.monotonic() < deadline, "a VM does not come to run"
            time.sleep(0.1)
        return int(first) - 1

    def _define(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.ask("POST", "/vms", {"name": name, "memory_mib": 64})
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)  # the node is about to say that it is ready


class _Local(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port: int = door.getsockname()[1]
        return port
