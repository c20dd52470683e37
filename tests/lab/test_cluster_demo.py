"""The story that `./dev demo --cluster` tells a newcomer comes true."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lab.lab_fixtures import new_name, require_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def test_the_demo_of_a_cluster_migrates_loses_a_host_recovers_and_tells_why() -> None:
    require_lab()
    demo = subprocess.run(
        [ROOT / "dev", "demo", "--cluster"],
        env={**os.environ, "PVC_DEMO_LAB": new_name()},
        capture_output=True,
        text=True,
        timeout=500,
        stdin=subprocess.DEVNULL,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    told = [line.strip() for line in demo.stdout.splitlines()]
    order = ["web01: runs on, on hv", "./dev lab kill hv3", "Both run again, ", "fenced (agent)", "recovered from hv3"]
    places = [next((at for at, line in enumerate(told) if words in line), -1) for words in order]
    assert -1 not in places and places == sorted(places), dict(zip(order, places, strict=True)) | {"out": demo.stdout}
    assert any(line.startswith("From nothing to here: ") for line in told)
