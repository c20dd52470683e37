"""Clients that work with the cluster while it is broken: seeded commands, and reads that must see what was written."""

from __future__ import annotations

import json
import random
import threading
import time
from http import HTTPStatus
from typing import Any

from pvc.client.transport import Lost, NoConnection
from pvc.lab.chaos.gateway import Asked, ask, command
from pvc.lab.chaos.journal import Journal
from pvc.lab.guest import GuestImage
from pvc.lab.lab import Lab

THINK_S = (0.4, 2.0)
"""Between two commands of a client."""
MEMORY_MIB = 96
"""The tiny guest is content with it."""

WEIGHTS = {
    "vm.start": 7,
    "vm.stop": 1,
    "vm.shutdown": 1,
    "vm.restart": 1,
    "vm.reset": 1,
    "vm.migrate": 4,
    "vm.move": 2,
    "vm.unmigrate": 2,
    "vm.cancel_migration": 1,
    "vm.add_tag": 2,
    "vm.remove_tag": 1,
    "vm.modify": 1,
    "vm.define": 1,
    "vm.remove": 1,
    "node.flush": 0.4,
    "node.ready": 1.2,
}


class Workload:
    """Several clients, each with a seed of its own, until stopped."""

    def __init__(self, lab: Lab, journal: Journal, guest: GuestImage, *, seed: int, clients: int, vms: int) -> None:
        self.asked: list[Asked] = []
        self.reads = 0
        self.reads_unanswered = 0
        self._lab = lab
        self._journal = journal
        self._guest = guest
        self._vms = [f"c{number}" for number in range(1, vms + 1)]
        self._stopping = threading.Event()
        self._clients = [
            threading.Thread(target=self._work, args=(random.Random(f"{seed}/{number}"), number), daemon=True)  # noqa: S311 - to be repeated
            for number in range(clients)
        ]
        self._lock = threading.Lock()

    def prepare(self, rng: random.Random) -> None:
        """Define the VMs and start them."""
        for name in self._vms:
            self.do(rng, "vm.define", self._definition(name))
            self.do(rng, "vm.start", {"vm": name})

    def start(self) -> None:
        """Begin to work."""
        for client in self._clients:
            client.start()

    def stop(self) -> None:
        """Finish what is under way."""
        self._stopping.set()
        for client in self._clients:
            if client.is_alive():
                client.join()

    def do(self, rng: random.Random, name: str, fields: dict[str, Any], *, dry_run: bool = False) -> Asked:
        """Ask for a command, and put down what came of it."""
        asked = command(rng, self._lab.hosts, name, fields, dry_run=dry_run)
        with self._lock:
            self.asked.append(asked)
        self._journal.note("command", asked.sentence)
        return asked

    def _work(self, rng: random.Random, number: int) -> None:
        scratch = f"s{number}"
        while not self._stopping.wait(rng.uniform(*THINK_S)):
            [name] = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
            asked = self.do(rng, name, self._fields(rng, name, scratch), dry_run=rng.random() < 0.05)
            if asked.verdict == "acknowledged" and "vm" in asked.fields and name != "vm.remove":
                self._read_back(rng, asked)

    def _fields(self, rng: random.Random, name: str, scratch: str) -> dict[str, Any]:
        if name.startswith("node."):
            return {"node": rng.choice(self._lab.hosts).name}
        if name == "vm.define":
            return self._definition(scratch)
        if name == "vm.remove":
            return {"vm": scratch}
        fields: dict[str, Any] = {"vm": rng.choice(self._vms)}
        match name:
            case "vm.shutdown" | "vm.restart":
                fields["timeout_s"] = rng.choice((5, 15))
            case "vm.migrate" | "vm.move" if rng.random() < 0.5:
                fields["node"] = rng.choice(self._lab.hosts).name
            case "vm.add_tag" | "vm.remove_tag":
                fields["tag"] = rng.choice(("red", "green", "blue"))
            case "vm.modify":
                fields["description"] = f"seen {rng.randrange(1000)}"
        return fields

    def _definition(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "memory_mib": MEMORY_MIB,
            "vcpus": 1,
            "kernel": str(self._guest.kernel),
            "initrd": str(self._guest.initrd),
            # Emulated CPUs do not survive every migration in the middle of a boot: a kernel that panics boots again.
            "cmdline": f"console=ttyS0 oops=panic panic=-1 pvc.name={name} pvc.beat=0.5",
        }

    def _read_back(self, rng: random.Random, asked: Asked) -> None:
        """Any gateway must show what was acknowledged, or say that it cannot."""
        host = rng.choice(self._lab.hosts)
        self.reads += 1
        began_s = time.time()
        try:
            answer = ask(host, "GET", f"/vms/{asked.fields['vm']}?min_position={asked.position}")
        except (Lost, NoConnection):
            self.reads_unanswered += 1
            return
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.reads_unanswered += 1
            return
        what = f"read of {asked.sentence} at {host.name} after {time.time() - began_s:.1f} s"
        if answer.status != HTTPStatus.OK:
            self._journal.violation(f"{what}: HTTP {answer.status} {answer.body[:200]!r}")
            return
        shown = json.loads(answer.body)
        if answer.position < asked.position or shown["position"] < asked.position:
            self._journal.violation(f"{what}: it shows position {answer.position}, the VM at {shown['position']}")
