"""The simulated ZooKeeper keeps the contract of the real one; and the log and presence keep theirs on top of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest

from pvc.log.base import Log
from pvc.log.inbox import Inbox
from pvc.log.inbox_zookeeper import ZookeeperInbox
from pvc.log.zookeeper import ZookeeperLog
from pvc.presence.base import Presence
from pvc.presence.zookeeper import ZookeeperPresence
from pvc.sim.loop import VirtualClock
from pvc.sim.zookeeper_ensemble import Ensemble
from pvc.zookeeper.port import ZookeeperSession
from pvc.zookeeper.types import Credentials
from tests.contract.inbox_contract import InboxContract, Place
from tests.contract.log_contract import LogContract, OpenLog
from tests.contract.presence_contract import PresenceContract
from tests.contract.virtual_policy import VirtualPolicy
from tests.contract.zookeeper_contract import ZookeeperContract

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture:DeprecationWarning")

SIZES = (1, 3, 5)


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return VirtualPolicy()


@pytest.fixture(params=SIZES)
async def ensemble(request: pytest.FixtureRequest) -> Ensemble:
    return Ensemble(random.Random(7), [f"s{number}" for number in range(1, request.param + 1)])


class SimulatedWorld:
    timeout_s = 10.0
    root = ""

    def __init__(self, ensemble: Ensemble) -> None:
        self.swallow, self.restore = ensemble.swallow, ensemble.restore
        self.sessions: list[ZookeeperSession] = []
        self._ensemble = ensemble

    async def session(
        self,
        name: str,
        *,
        credentials: Credentials | None = None,
        also: Credentials | None = None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> ZookeeperSession:
        session = self._ensemble.client(name)(
            "simulated", credentials=credentials, also=also, session_timeout_s=self.timeout_s, on_connected=on_connected
        )
        self.sessions.append(session)
        session.start()
        await session.wait_connected()
        return session


class TestSimulatedZookeeper(ZookeeperContract):
    @pytest.fixture
    async def world(self, ensemble: Ensemble) -> AsyncIterator[SimulatedWorld]:
        world = SimulatedWorld(ensemble)
        yield world
        for session in world.sessions:
            await session.close()


class TestZookeeperLogOnIt(LogContract):
    @pytest.fixture
    async def open_log(self, ensemble: Ensemble) -> AsyncIterator[OpenLog]:
        opened: list[ZookeeperLog] = []

        async def open_log() -> ZookeeperLog:
            name = f"client {len(opened)}"
            opened.append(await ZookeeperLog.open("simulated", "test", bridge=ensemble.client(name)))
            return opened[-1]

        yield open_log
        for log in opened:
            await log.close()


class TestZookeeperInboxOnIt(InboxContract):
    @pytest.fixture
    async def place(self, ensemble: Ensemble) -> AsyncIterator[Place]:
        opened: list[ZookeeperLog | ZookeeperInbox] = []

        class Clients:
            async def client(self) -> tuple[Log, Inbox]:
                bridge = ensemble.client(f"client {len(opened)}")
                log = await ZookeeperLog.open("simulated", "test", bridge=bridge)
                inbox = await ZookeeperInbox.open("simulated", "test", log, bridge=bridge)
                opened.extend((log, inbox))
                return log, inbox

        yield Clients()
        for port in opened:
            await port.close()


class PresenceWorld:
    timeout_s = 10.0
    poll_s = 0.05

    def __init__(self, ensemble: Ensemble) -> None:
        self.clock = VirtualClock()
        self.clients: list[ZookeeperPresence] = []
        self._ensemble = ensemble
        self.restore = ensemble.restore

    async def client(self, name: str, machine: str = "") -> Presence:
        client = await ZookeeperPresence.open(
            "simulated",
            "test",
            machine=machine or name,
            session_timeout_s=self.timeout_s,
            clock=self.clock,
            bridge=self._ensemble.client(name),
        )
        self.clients.append(client)
        return client

    def cut(self, name: str) -> None:
        self._ensemble.swallow(name, "both")

    def lose_replies(self, name: str) -> None:
        self._ensemble.swallow(name, "replies")


class TestZookeeperPresenceOnIt(PresenceContract):
    @pytest.fixture
    async def world(self, ensemble: Ensemble) -> AsyncIterator[PresenceWorld]:
        world = PresenceWorld(ensemble)
        yield world
        for client in world.clients:
            await client.close(expire=False)
