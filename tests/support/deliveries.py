"""Deliverers on virtual time, over a log in memory, to a receiver that does what it is told; they can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

from pvc.commands.facts_webhook import WebhookReport
from pvc.errors import Rejected, Unavailable
from pvc.events.record import Record
from pvc.log.history import Found, FoundEvents, HistoryQuery
from pvc.log.history_keys import EventKeys, RecordKeys, about
from pvc.projections.state import ClusterState
from pvc.projections.webhook_state import Webhook
from pvc.sim.loop import VirtualClock
from pvc.spans import Tracer
from pvc.webhooks import cursor as c
from pvc.webhooks.course import Answer
from pvc.webhooks.deliverer import Deliverer, Parts
from pvc.webhooks.post import Outgoing
from pvc.webhooks.sender import Sender
from pvc.webhooks.signing import make_secret
from pvc.webhooks.store import MemoryStore, Stored
from tests.support.core import TinyCluster, command

URL = "https://hooks.example.com/pvc"


class Rng:
    """Seeded."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def random(self) -> float:
        return self._random.random()

    def randbytes(self, n: int) -> bytes:
        return self._random.randbytes(n)


class Replica:
    """The log in memory, as a history index gives it."""

    def __init__(self, cluster: TinyCluster) -> None:
        self._cluster = cluster

    async def reach(self, position: int, timeout_s: float) -> None:
        assert position <= len(self._cluster.entries)

    async def query(self, query: HistoryQuery) -> list[Found]:
        return [
            Found(entry.data, "")
            for entry in reversed(self._cluster.entries)
            if any(raw.type in query.types for raw in entry.record.events)
        ][: query.limit]

    async def data(self, position: int) -> bytes | None:
        return self._cluster.entries[position - 1].data

    async def events(self, query: HistoryQuery) -> list[FoundEvents]:
        """Without names and tags of then, which only the index knows."""
        assert query.after is not None and query.ascending
        found = self._cluster.entries[query.after : query.after + query.limit]
        return [FoundEvents(Found(entry.data, ""), keys_without_index(entry.record)) for entry in found]


def keys_without_index(record: Record) -> RecordKeys:
    none: frozenset[str] = frozenset()
    events = tuple(EventKeys(type_, str(subject), none, none) for subject, type_, _ in about(record))
    return RecordKeys(record.position, record.id, record.actor.principal, record.cause or record.id, events)


class MortalStore:
    """A node's way to the cursors, which ends when it is killed."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.dead = False
        self.writes = 0

    async def key(self) -> bytes:
        return await self._store.key()

    async def read(self, hook: str) -> Stored | None:
        self._alive()
        return await self._store.read(hook)

    async def write(self, hook: str, data: bytes, version: int) -> int:
        self._alive()
        self.writes += 1
        return await self._store.write(hook, data, version)

    async def hooks(self) -> list[str]:
        return await self._store.hooks()

    async def remove(self, hook: str) -> None:
        await self._store.remove(hook)

    async def close(self) -> None:
        pass

    def _alive(self) -> None:
        if self.dead:
            raise Unavailable("it is dead", code="webhook.store_unreachable")


class World:
    """A cluster with one webhook, a receiver, and whoever delivers."""

    def __init__(self, answer: Callable[[list[str]], Answer], seed: int = 1, **settings: Any) -> None:
        self.cluster = TinyCluster()
        self.cluster.do("cluster.init", name="main", token_id="abcdefgh", token_sha256="5f" * 32)
        self.cluster.says_ready()
        self.rng = Rng(seed)
        self.store = MemoryStore(self.rng)
        self.answer = answer
        self.posted: list[list[str]] = []
        self.taken: list[str] = []
        self.nodes: list[tuple[Deliverer, asyncio.Task[None], MortalStore]] = []
        self.epoch = 0
        self.replica: Any = Replica(self.cluster)
        self.settings = settings
        self.in_flight = 0
        self.tracer: Tracer | None = None

    async def begin(self) -> None:
        made = make_secret(self.settings.get("signature", "hmac"), "billing", await self.store.key(), self.rng)
        given = command("webhook.add", **{"name": "billing", "url": URL, **self.settings})
        sealed = made.sealed
        from msgspec.structs import replace

        self.cluster.decide_and_record(replace(given, secret_id=sealed.id, secret_box=sealed.box))

    @property
    def state(self) -> ClusterState:
        return self.cluster.state

    @property
    def hook(self) -> Webhook:
        [hook] = self.state.webhooks.values()
        return hook

    async def __call__(self, outgoing: Outgoing) -> Answer:
        """The receiver."""
        document = json.loads(outgoing.body)
        events = document if isinstance(document, list) else [document]
        if events[0]["type"] == "webhook.ping":
            return Answer(status=200, body=events[0]["data"]["challenge"])
        ids = [event["id"] for event in events]
        self.in_flight += 1
        try:
            await asyncio.sleep(0.01)
        finally:
            self.in_flight -= 1
        answer = self.answer(ids)
        self.posted.append(ids)
        if answer.good:
            self.taken += ids
        return answer

    async def forget(self, hook: str) -> None:
        pass

    def elect(self) -> None:
        """A new primary begins to deliver; who delivered before does not know yet."""
        carried = self.cluster.elect()
        self.epoch = epoch = carried["epoch"]
        mortal = MortalStore(self.store)
        clock = VirtualClock()

        async def readable(body: bytes) -> bytes:
            return body

        async def report(given: WebhookReport, cause: str) -> object:
            return self.cluster.report(given)

        parts = Parts(
            node="hv1",
            state=lambda: self.state,
            history=self.replica,
            store=mortal,
            sender=Sender(mortal, self, readable, clock, self.rng),
            report=report,
            clock=clock,
            rng=self.rng,
            tracer=self.tracer,
        )
        deliverer = Deliverer(self.hook.id, epoch, parts, lambda: not mortal.dead)
        task = asyncio.get_running_loop().create_task(self._run(deliverer))
        self.nodes.append((deliverer, task, mortal))

    async def _run(self, deliverer: Deliverer) -> None:
        with contextlib.suppress(Unavailable, Rejected):  # whoever is not the primary any more may not report
            await deliverer.run()

    async def kill(self) -> None:
        """The newest deliverer's process ends here and now, its cursor as it was last written."""
        _, task, store = self.nodes[-1]
        store.dead = True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def happen(self, number: int = 1) -> None:
        """Something happens in the cluster."""
        for _ in range(number):
            self.cluster.do("vm.define", name=f"web{len(self.cluster.entries):05}", memory_mib=64)
        self.wake()

    def wake(self) -> None:
        for deliverer, _, _ in self.nodes:
            deliverer.wake()

    async def cursor(self) -> c.Cursor:
        stored = await self.store.read(self.hook.id)
        assert stored is not None, "nobody has taken it"
        return c.decode(stored.data)

    def wanted(self) -> list[str]:
        """The ids of all events that the endpoint wants, in the order of the log."""
        assert self.state.cluster is not None
        return [
            f"{self.state.cluster.id}-{entry.position}-{index}"
            for entry in self.cluster.entries
            if entry.position > self.hook.after
            for index, raw in enumerate(entry.record.events)
            if raw.type.startswith("vm.")
        ]

    def parked(self) -> list[str]:
        assert self.state.cluster is not None
        return [f"{self.state.cluster.id}-{one.position}-{one.index}" for one in self.hook.parked]

    async def until_done(self, patience_s: float = 1e7) -> None:
        """All that is wanted is delivered or parked, and the cursor says so."""
        async with asyncio.timeout(patience_s):
            while set(self.wanted()) - set(self.taken) - set(self.parked()):
                if self.hook.disabled:
                    self.cluster.do("webhook.resume", hook="billing")
                    self.wake()
                await asyncio.sleep(600)
