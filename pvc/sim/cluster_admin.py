"""The admins of the simulated cluster: they ask any daemon for anything, and again until they have an answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pvc.commands.registry import BY_NAME
from pvc.errors import PvcError, Rejected
from pvc.events.record import Actor
from pvc.projections.state import ClusterState, NodeState
from pvc.runtime.appender import Request
from pvc.sim.cluster_machine import Machine

ADMIN = Actor(principal="admin", method="token", source="sim")
ANSWER_S = 30.0
"""So long a client waits for an answer."""

TRIES = 200


class Admin:
    """Asks, and keeps account of the answers."""

    def __init__(
        self,
        machines: Mapping[str, Machine],
        rng: random.Random,
        note: Callable[[str], object],
        truth: Callable[[], ClusterState],
        *,
        fenced: tuple[str, ...],
    ) -> None:
        self.acknowledged: dict[str, int] = {}
        self.refused: set[str] = set()
        self.vms = ("web01", "web02", "web03", "db01", "db02")
        self._machines = machines
        self._rng = rng
        self._note = note
        self._truth = truth
        self._fenced = fenced
        self._asked = 0
        self._seen = 0
        """The last position that an answer had; the next one is not to be older."""

    async def something(self) -> None:
        """One command, as admins give them."""
        kind = self._rng.choices(list(_ASKED), weights=[weight for weight, _ in _ASKED.values()])[0]
        fields = {key: self._rng.choice(values) for key, values in _ASKED[kind][1].items()}
        spec = BY_NAME[kind]
        wanted = spec.struct.__struct_fields__
        if kind == "vm.define":
            fields["name"] = self._rng.choice(self.vms)
        elif "vm" in wanted:
            fields["vm"] = self._rng.choice(self.vms)
        if kind in ("vm.migrate", "vm.move") and self._rng.random() < 0.5:
            fields["node"] = self._rng.choice(list(self._machines))
        elif kind.startswith("node."):
            fields["node"] = self._rng.choice(
                self._fenced if kind == "node.set_fence" and self._fenced else tuple(self._machines)
            )
        await self.ask(kind, **fields)

    async def confirm_fenced(self, cut_power: Callable[[str], None]) -> None:
        """Go there, pull the plug of a lost node, and say so."""
        lost = [node.name for node in self._truth().nodes.values() if node.state is NodeState.LOST]
        if lost:
            name = self._rng.choice(lost)
            cut_power(name)
            await asyncio.sleep(1)
            await self.ask("node.confirm_fenced", node=name)

    async def ask(self, command: str, /, **fields: Any) -> bool:
        """One command, asked again under the same id until the answer is definite; whether it was yes."""
        spec = BY_NAME[command]
        self._asked += 1
        request = Request(
            name=command,
            command=msgspec.convert(fields, spec.struct),
            decide=spec.decide,
            actor=ADMIN,
            command_id=f"c{self._asked}-{self._rng.getrandbits(32):08x}",
        )
        for tried in range(TRIES):
            answer = await self._try(request)
            if answer is not None:
                if not answer and not tried:
                    # Only then: an earlier try may still wait in a gateway that stands still.
                    self.refused.add(request.command_id)
                return answer
            await asyncio.sleep(self._rng.random() * 3)
        raise AssertionError(f"no definite answer to {command} in {TRIES} tries")

    async def _try(self, request: Request) -> bool | None:
        at_work = [machine for machine in self._machines.values() if machine.alive and machine.appender is not None]
        if not at_work:
            return None
        machine = self._rng.choice(at_work)
        assert machine.appender is not None
        try:
            async with asyncio.timeout(ANSWER_S):
                await machine.world.reach(self._seen, ANSWER_S)
                outcome = await machine.appender.submit(request)
        except Rejected as refusal:
            self._note(f"{_words(request)} refused by {machine.name}: {refusal.code}")
            return False
        except (PvcError, TimeoutError):
            return None
        self._seen = max(self._seen, outcome.position)
        if outcome.entry is not None:
            self.acknowledged[request.command_id] = outcome.position
        self._note(f"{_words(request)} -> {outcome.position}")
        return True


def _words(request: Request) -> str:
    shown = ("name", "vm", "node", "maintenance", "agent")
    fields = [str(getattr(request.command, field, None) or "") for field in shown]
    return f"{request.name} {' '.join(field for field in fields if field)}"


_ASKED: dict[str, tuple[int, dict[str, tuple[Any, ...]]]] = {
    "vm.define": (3, {"memory_mib": (512, 1024), "on_crash": ("restart", "stop"), "autostart": (True, False)}),
    "vm.start": (12, {}),
    "vm.shutdown": (2, {"timeout_s": (2, 20), "on_timeout": ("force", "leave")}),
    "vm.stop": (2, {}),
    "vm.restart": (2, {"timeout_s": (2, 20)}),
    "vm.reset": (1, {}),
    "vm.remove": (1, {}),
    "vm.migrate": (10, {"force_live": (True, False, False), "timeout_s": (2, 20)}),
    "vm.move": (5, {"timeout_s": (2, 20)}),
    "vm.unmigrate": (4, {"timeout_s": (2, 20)}),
    "vm.cancel_migration": (4, {}),
    "vm.set_migration_method": (1, {"migration_method": ("live", "live", "shutdown", "none")}),
    "node.flush": (4, {}),
    "node.ready": (5, {}),
    "node.set_fence": (1, {"agent": ("fence_ipmilan", "fence_ipmilan", "fence_redfish", "")}),
    "cluster.set_maintenance": (1, {"maintenance": (True, False, False)}),
}
"""Command -> how often it is asked for, relative to the others, and the values its fields are drawn from."""
