"""A gateway in one process for tests: memory log, simulated hypervisor, two doors (root's and everybody's)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from pvc.clock import SystemClock, SystemRng
from pvc.commands.base import Context, Decision
from pvc.commands.facts import REPORTS, ReportNodeReady, ReportRunning
from pvc.commands.facts_cluster import ReportNodeLost, ReportPrimary
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.events.access import TokenCreated
from pvc.events.record import Actor
from pvc.events.types import Role
from pvc.gateway.app import create_app, local_app
from pvc.gateway.services import GatewayServices, PeerParts, WebhookPorts
from pvc.handlers.what_if import foresee
from pvc.keyring.memory import MemoryKeyring
from pvc.log.history import HistoryIndex
from pvc.log.memory import MemoryLog
from pvc.presence.alone import AlonePresence
from pvc.projections.state import ClusterState
from pvc.runtime.append_watch import AppendWatch
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.people import People
from pvc.runtime.telemetry import NodeFigures, Telemetry
from pvc.runtime.world import World
from pvc.spans import Tracer
from pvc.webhooks.course import Answer
from pvc.webhooks.post import Outgoing
from pvc.webhooks.sender import Sender
from pvc.webhooks.store import MemoryStore

NODE = "hv1"
NODE_ACTOR = Actor(principal=f"node/{NODE}", method="node")
WEB01 = {"name": "web01", "memory_mib": 512, "vcpus": 1}


class DeafPost:
    """A way to receivers that leads nowhere."""

    async def __call__(self, outgoing: Outgoing) -> Answer:
        return Answer(error="nobody listens")

    async def forget(self, hook: str) -> None:
        pass


class House:
    """The gateway, what it stands on, and clients of both its doors."""

    def __init__(self, services: GatewayServices, log: MemoryLog, hypervisor: SimulatedHypervisor) -> None:
        self.services = services
        self.log = log
        self.hypervisor = hypervisor
        self.app = create_app(services)
        self.root = _client(local_app(self.app))
        self.outside = _client(self.app)

    @property
    def state(self) -> ClusterState:
        return self.services.world.state

    def outside_with(self, token: str, address: str = "192.0.2.7") -> httpx.AsyncClient:
        """A client that comes over TCP with this token."""
        return _client(self.app, {"Authorization": f"Bearer {token}"}, address)

    async def be_ready(self, node: str, **changes: Any) -> None:
        """Let a node say that it is ready."""
        self_description: dict[str, Any] = {
            "memory_mib": 8192,
            "vcpus": 8,
            "accelerator": "simulated",
            "hypervisor": "simulated",
            "version": "0",
            "boot": "b1",
            **changes,
        }
        await self.report(ReportNodeReady(node=node, **self_description))

    async def second_node(self, node: str = "hv2", **changes: Any) -> None:
        """Let another node join and be ready."""
        reply = await self.root.post("/nodes", json={"node": node})
        assert reply.status_code == 200, reply.text
        await self.be_ready(node, **changes)

    async def lose(self, node: str) -> None:
        """Let the gateway's node be elected, and declare another one lost."""
        await self.report(ReportPrimary(node=NODE))
        assert self.state.cluster is not None
        epoch = self.state.cluster.primary_epoch
        ready_at = self.state.nodes[node].ready_at
        lost = ReportNodeLost(primary=NODE, epoch=epoch, node=node, reason="its session has ended", ready_at=ready_at)
        await self.report(lost)

    async def hear(self, **figures: Any) -> None:
        """Let the gateway's own node, in its place among the others, publish these figures."""
        presence = self.services.presence
        assert presence is not None
        if not presence.joined:
            await presence.join(NODE, b"{}")
        told = NodeFigures(**{"node": NODE, "time_us": self.services.clock.wall_us(), **figures})
        await presence.publish(msgspec.json.encode(told))

    async def init(self) -> str:
        """Initialise the cluster and let its node be ready; returns the admin token."""
        reply = await self.root.post("/cluster/init", json={"name": "main"})
        assert reply.status_code == 200, reply.text
        await self.be_ready(NODE)
        token: str = reply.json()["token"]
        return token

    async def token(self, role: Role) -> str:
        """Make a token with this role, as a later command will."""
        token_id, secret = f"{role.value:0<12}"[:12], "s" * 40 + role.value
        made = TokenCreated(
            token=token_id, principal=role.value, role=role, secret_sha256=hashlib.sha256(secret.encode()).hexdigest()
        )
        await self.submit("access.create_token", None, lambda *_: Decision(events=(made,)))
        return f"pvc_{token_id}_{secret}"

    async def member(self, name: str, *grants: dict[str, str], **fields: Any) -> str:
        """Add a principal with these grants, by the API; returns its token."""
        reply = await self.root.post("/access", json={"principal": name, "grants": list(grants)})
        assert reply.status_code == 200, reply.text
        reply = await self.root.post(f"/access/{name}/tokens", json=fields)
        assert reply.status_code == 200, reply.text
        token: str = reply.json()["token"]
        return token

    async def settle(self) -> None:
        """Let what is recorded by and by come into the log."""
        for _ in range(20):
            await asyncio.sleep(0.005)

    async def person(self, name: str, role: Role = Role.ADMIN) -> str:
        """Make a token for a person, whose name goes into the log sealed."""
        secret = "p" * 60
        token_id = hashlib.sha256(name.encode()).hexdigest()[:12]
        made = TokenCreated(
            token=token_id,
            principal=await self.services.people.seal(name),
            role=role,
            secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
        )
        await self.submit("access.create_token", None, lambda *_: Decision(events=(made,)))
        return f"pvc_{token_id}_{secret}"

    async def define(self, **fields: Any) -> dict[str, Any]:
        """Define a VM (web01 unless told otherwise)."""
        reply = await self.root.post("/vms", json={**WEB01, **fields})
        assert reply.status_code == 200, reply.text
        document: dict[str, Any] = reply.json()
        return document

    async def start(self, name: str = "web01") -> None:
        """Start a VM and let its node report that it runs."""
        reply = await self.root.post(f"/vms/{name}/start")
        assert reply.status_code == 200, reply.text
        vm = self.state.vms[self.state.vm_names[name]]
        await self.report(ReportRunning(vm=vm.id, node=NODE, epoch=vm.epoch), cause=vm.cause)

    async def report(self, report: Any, cause: str = "") -> None:
        name, decide = REPORTS[type(report)]
        await self.submit(name, report, decide, cause=cause)

    async def submit(self, name: str, command: Any, decide: Any, cause: str = "") -> Outcome:
        request = Request(name=name, command=command, decide=decide, actor=NODE_ACTOR, cause=cause)
        return await self.services.appender.submit(request)

    async def log_bytes(self) -> bytes:
        """Everything that was ever written."""
        return b"".join(await self.log.read(1, 100_000))


@contextlib.asynccontextmanager
async def a_house(
    folder: Path,
    *,
    initialised: bool = True,
    node: str = NODE,
    peers: PeerParts | None = None,
    tracer: Tracer | None = None,
) -> AsyncIterator[House]:
    """A gateway that runs until the block ends, with what it has for other nodes."""
    world, log, clock, rng = World(), MemoryLog(), SystemClock(), SystemRng()
    hypervisor = SimulatedHypervisor(console_dir=folder)
    history = await HistoryIndex.open(folder / "history.db")
    presence = AlonePresence()
    watch = AppendWatch(clock, node=node, tracer=tracer)
    appender = Appender(world, log, origin=NODE, clock=clock, rng=rng, watch=watch)
    store = MemoryStore(rng)
    services = GatewayServices(
        world=world,
        appender=appender,
        log=log,
        history=history,
        hypervisor=hypervisor,
        clock=clock,
        rng=rng,
        node=node,
        foresee=foresee,
        telemetry=Telemetry(presence, clock),
        presence=presence,
        people=People(MemoryKeyring(), world, clock, rng),
        peers=peers or PeerParts(),
        watch=watch,
        places={"data": folder},
        webhooks=WebhookPorts(store=store, sender=Sender(store, DeafPost(), _as_it_is, clock, rng)),
    )
    running = [asyncio.create_task(appender.run()), asyncio.create_task(history.run(log))]
    house = House(services, log, hypervisor)
    stack = contextlib.ExitStack()
    stack.enter_context(world.listening(watch.folded))
    try:
        if initialised:
            await house.init()
        yield house
    finally:
        stack.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await hypervisor.close()
        await history.close()
        await house.root.aclose()
        await house.outside.aclose()


async def _as_it_is(body: bytes) -> bytes:
    return body


def a_context() -> Context:
    return Context(command_id="c", time_us=1, actor=NODE_ACTOR)


def _client(app: Any, headers: dict[str, str] | None = None, address: str = "192.0.2.7") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 12345))
    return httpx.AsyncClient(transport=transport, base_url="http://pvc/api/v1", headers=headers or {})
