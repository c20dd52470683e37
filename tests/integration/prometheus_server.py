"""Debian's Prometheus and promtool, as ./dev test unpacks them; the server as a process of its own, for one test."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

UNPACKED = Path(__file__).parents[2] / ".cache" / "prometheus"

START_S = 30.0


def program(name: str) -> str:
    """Where it is. Skips without it, or fails where PVC_TEST_REQUIRE says that it must be there."""
    found = UNPACKED / name
    path = str(found) if os.access(found, os.X_OK) else shutil.which(name)
    if path is None:
        line = f"no {name}: `./dev test` unpacks it from Debian's package"
        (pytest.fail if "monitoring" in os.environ.get("PVC_TEST_REQUIRE", "") else pytest.skip)(line)
    assert path is not None, "skipped or failed above"
    return path


def promtool(*arguments: str, given: str = "") -> str:
    """Run it; what it said. Fails with that where it finds fault."""
    done = subprocess.run(
        [program("promtool"), *arguments], input=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class PrometheusServer:
    """Reads one target once a second."""

    def __init__(self, home: Path, target: str, token: str, rules: Path) -> None:
        self.home = home
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        home.mkdir()
        (home / "token").write_text(token)
        scrape = {
            "job_name": "pvc",
            "scheme": "https",
            "authorization": {"credentials_file": str(home / "token")},
            "tls_config": {"insecure_skip_verify": True},
            "static_configs": [{"targets": [target]}],
        }
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [scrape],
        }
        (home / "prometheus.yml").write_text(json.dumps(config))  # which is YAML
        promtool("check", "config", str(home / "prometheus.yml"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.home / "out").open("wb") as out:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={self.home}/prometheus.yml",
                    f"--storage.tsdb.path={self.home}/data",
                    "--storage.tsdb.retention.size=64MB",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=out,
                stderr=out,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self.home / "out").read_text()[-2000:])

    def ask(self, path: str, **arguments: str) -> Any:
        """What its API says."""
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=10) as reply:
            return json.load(reply)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each result."""
        return [(one["metric"], float(one["value"][1])) for one in self.ask("query", query=expression)["result"]]

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
