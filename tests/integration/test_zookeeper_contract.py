"""A real ZooKeeper, by the real bridge, does what the contract says: so the simulated one may be believed."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from pvc.zookeeper.bridge import Bridge
from pvc.zookeeper.port import ZookeeperSession
from pvc.zookeeper.types import Create, Credentials
from tests.contract.zookeeper_contract import ALL, ZookeeperContract
from tests.integration.tcp_proxy import TcpProxy
from tests.integration.zookeeper_ensemble import Ensemble
from tests.integration.zookeeper_server import ZookeeperServer, require_zookeeper, zookeeper

__all__ = ["zookeeper"]
pytestmark = pytest.mark.zookeeper


class RealWorld:
    timeout_s = 2.0

    def __init__(self, *ports: int) -> None:
        self.root = f"/t{uuid.uuid4().hex[:12]}"
        self._ports = ports
        """Of the servers; each client is at the next one."""
        self._sessions: list[ZookeeperSession] = []
        self._proxies: dict[str, TcpProxy] = {}
        self._open = contextlib.AsyncExitStack()

    async def session(
        self,
        name: str,
        *,
        credentials: Credentials | None = None,
        also: Credentials | None = None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> ZookeeperSession:
        if name not in self._proxies:
            port = self._ports[len(self._proxies) % len(self._ports)]
            self._proxies[name] = await self._open.enter_async_context(TcpProxy.to(port))
        session: ZookeeperSession = Bridge(
            self._proxies[name].hosts,
            credentials=credentials,
            also=also,
            session_timeout_s=self.timeout_s,
            on_connected=on_connected,
        )
        self._sessions.append(session)
        session.start()
        await session.wait_connected()
        return session

    def swallow(self, name: str, what: str) -> None:
        proxy = self._proxies[name]
        proxy.swallow_requests = proxy.swallow_requests or what in ("requests", "both")
        proxy.swallow_replies = proxy.swallow_replies or what in ("replies", "both")

    def restore(self, name: str) -> None:
        self._proxies[name].heal()

    async def close(self) -> None:
        for proxy in self._proxies.values():
            proxy.heal()
        for session in self._sessions:
            await session.close()
        await self._open.aclose()


@contextlib.asynccontextmanager
async def world_of(*ports: int) -> AsyncIterator[RealWorld]:
    world = RealWorld(*ports)
    founder = Bridge(f"127.0.0.1:{ports[0]}")
    founder.start()
    await founder.wait_connected()
    await founder.multi([Create(world.root, b"", ALL)])
    await founder.close()
    yield world
    await world.close()


class TestRealZookeeper(ZookeeperContract):
    @pytest.fixture
    async def world(self, zookeeper: ZookeeperServer) -> AsyncIterator[RealWorld]:
        async with world_of(zookeeper.port) as world:
            yield world


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    require_zookeeper()
    ensemble = Ensemble(tmp_path_factory.mktemp("ensemble"))
    try:
        ensemble.start()
        yield ensemble
    finally:
        ensemble.kill()


class TestRealEnsemble(ZookeeperContract):
    """Each client at another of three servers."""

    @pytest.fixture
    async def world(self, ensemble: Ensemble) -> AsyncIterator[RealWorld]:
        async with world_of(*ensemble.ports.values()) as world:
            yield world
