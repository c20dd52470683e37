"""Nodes for tests of what they fetch from each other: real gateways over TLS, with replica, archive and snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import uvicorn

from pvc.archive.directory import DirectoryArchive
from pvc.clock import SystemClock, SystemRng
from pvc.daemon.patience import PatientProtocol
from pvc.gateway.services import PeerParts
from pvc.peers.certificates import ask_nodes
from pvc.peers.client import Peer, Peers
from pvc.peers.secret import PeerSecret
from pvc.presence.base import Member
from pvc.presence.hello import Hello
from pvc.runtime.snapshots import SnapshotFile
from tests.support.certificates import Certificate, a_certificate
from tests.unit.gateway_house import House, a_house

SECRET = bytes(range(32))
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeClock(SystemClock):
    """The machine's clock, set wrong."""

    def __init__(self, ahead_s: int = 0) -> None:
        self.ahead_s = ahead_s

    def wall_us(self) -> int:
        return super().wall_us() + self.ahead_s * 1_000_000


class Cluster:
    """Who is there, and the secret that they share."""

    def __init__(self) -> None:
        self.hellos: dict[str, Hello] = {}

    async def members(self) -> Mapping[str, Member]:
        return {
            name: Member(name=name, session="1", hello=msgspec.json.encode(hello))
            for name, hello in self.hellos.items()
        }

    def join(self, name: str, port: int, fingerprint: str, **said: int) -> None:
        self.hellos[name] = Hello(
            version="1", state_hash="x", gateway=f"https://127.0.0.1:{port}", certificate=fingerprint,
            **{"position": 0, **said},
        )  # fmt: skip

    async def seen_from(self, node: str, *, secret: bytes = SECRET, clock_ahead_s: int = 0) -> Peers:
        return Peers(
            node, self.members, await a_secret(secret), clock=FakeClock(clock_ahead_s), rng=SystemRng()
        )  # fmt: skip

    async def peer(self, name: str) -> Peer:
        others = await (await self.seen_from("nobody")).others()
        return next(peer for peer in others if peer.name == name)


class PeerNode:
    """One node, its gateway served over TLS."""

    def __init__(self, house: House, archive: DirectoryArchive, snapshots: SnapshotFile, port: int) -> None:
        self.house = house
        self.archive = archive
        self.snapshots = snapshots
        self.port = port


async def a_secret(value: bytes = SECRET) -> PeerSecret:
    async def read() -> bytes:
        return value

    secret = PeerSecret(read, SystemClock())
    await secret.load()
    return secret


@contextlib.asynccontextmanager
async def a_node(folder: Path, cluster: Cluster, name: str = "hv1", **said: int) -> AsyncIterator[PeerNode]:
    """A node that has joined the cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate = a_certificate(folder, name)
    archive, snapshots = DirectoryArchive(folder / "archive"), SnapshotFile(folder / "snapshot")
    secret = await a_secret()
    parts = PeerParts(secret=secret, archive=archive, snapshots=snapshots, incarnation=lambda: "the-incarnation")
    async with a_house(folder, node=name, peers=parts) as house:
        listener = socket.create_server(("127.0.0.1", 0))
        async with served(house.app, listener, certificate, secret):
            port = listener.getsockname()[1]
            await house.define(name="first")
            cluster.join(name, port, certificate.fingerprint, **said)
            yield PeerNode(house, archive, snapshots, port)
    await archive.close()


@contextlib.asynccontextmanager
async def served(
    app: object, listener: socket.socket, certificate: Certificate, secret: PeerSecret | None = None
) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
        ssl_certfile=certificate.cert,
        ssl_keyfile=str(certificate.key),
        http=PatientProtocol,
    )
    config.load()
    assert config.ssl is not None
    ask_nodes(config.ssl, secret or await a_secret())
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait_for(running, 10)


@contextlib.asynccontextmanager
async def a_liar(folder: Path, cluster: Cluster, name: str, handle: Handler, **said: int) -> AsyncIterator[int]:
    """A node whose gateway is `handle`: it has the certificate that it announced, and answers what it likes."""
    certificate = a_certificate(folder, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port: int = server.sockets[0].getsockname()[1]
    cluster.join(name, port, certificate.fingerprint, **said)
    try:
        yield port
    finally:
        server.close()
