"""How the sampler of the chaos suite tells on which host a guest runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pvc.lab import processes
from pvc.lab.chaos import sampler as module
from pvc.lab.chaos.journal import Journal
from pvc.lab.chaos.sampler import Sampler


class Machine:
    """Processes, each with its start time and the number of its PID namespace; inits by their host's name."""

    def __init__(self) -> None:
        self.started: dict[int, str] = {}
        self.namespace: dict[int, str] = {}
        self.inits: dict[str, int] = {}

    def boot(self, host: str, init: int, namespace: str) -> None:
        self.started[init], self.namespace[init] = f"start of {init}", namespace
        self.inits[host] = init

    def power_off(self, host: str) -> None:
        init = self.inits.pop(host)
        del self.started[init], self.namespace[init]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(processes, "find_inits", lambda directory: dict(made.inits))
    monkeypatch.setattr(module, "_start_time", lambda pid: made.started.get(pid, ""))
    monkeypatch.setattr(os, "readlink", lambda path: made.namespace[int(Path(path).parts[2])])
    return made


def test_a_namespaces_number_that_is_given_out_again_is_told_from_the_old_one(machine: Machine, tmp_path: Path) -> None:
    class Lab:
        directory = tmp_path

    lab: Any = Lab()
    sampler = Sampler(lab, Journal())
    machine.boot("hv1", 100, "pid:[7]")
    machine.boot("hv2", 200, "pid:[8]")
    machine.namespace[101] = "pid:[7]"
    assert sampler._host_of(101) == "hv1"
    machine.power_off("hv1")
    machine.power_off("hv2")
    machine.boot("hv2", 300, "pid:[7]")
    machine.boot("hv1", 400, "pid:[9]")
    machine.namespace[301] = "pid:[7]"
    assert sampler._host_of(301) == "hv2"
