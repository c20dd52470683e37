"""Runs a node and its gateway side by side until the daemon is told to stop, or one of them ends by itself.

The history index runs beside them and may fail: what it holds can still be asked, and VMs do not depend on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from asyncio import sslproto
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from pvc.daemon.config import Config, GatewayConfig
from pvc.daemon.crowd import Crowd, crowd_for_this_process
from pvc.daemon.patience import PatientProtocol
from pvc.daemon.sockets import open_tcp_socket, open_unix_socket
from pvc.daemon.spare_memory import SpareMemory
from pvc.daemon.strict_http import MAX_FRAME_BYTES, StrictWebSocket
from pvc.errors import PvcError, Unavailable
from pvc.gateway.app import create_app, local_app
from pvc.gateway.services import GatewayServices
from pvc.node.node import Node
from pvc.peers.certificates import ask_nodes
from pvc.peers.secret import PeerSecret

logger = logging.getLogger(__name__)

GRACE_S = 5
"""How long open requests (streams, consoles) may take to end when the daemon stops."""

HANDSHAKE_S = 10.0
"""For TLS to be agreed on, over a network that is there."""

TLS_BUFFER_BYTES = 32 * 1024
"""For what has come of one connection and is not decrypted yet: two of TLS's records."""

FAREWELL_S = 5.0
"""For a client to agree that TLS ends."""

ACCEPTED_AT_ONCE = 16
"""Connections; then the loop does what else there is to do."""

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""With TLS 1.2, whose others are broken or do not forget their keys; those of TLS 1.3 are all good."""


async def serve(config: Config, node: Node, gateway: GatewayServices, stop: asyncio.Event) -> None:
    """Run all until `stop` is set, then end all. Raises PvcError when a socket cannot be opened, and whatever ended
    the node or a server."""
    app = create_app(gateway)
    with contextlib.ExitStack() as doors:
        local = doors.enter_context(open_unix_socket(Path(config.gateway.socket)))
        listeners = [(make_server(local_app(app)), local)]
        if config.gateway.listen:
            crowd, secret = crowd_for_this_process(), gateway.peers.secret
            public = doors.enter_context(open_tcp_socket(config.gateway.listen, crowd))
            listeners.append((make_server(app, config.gateway, secret, crowd=crowd), public))
        await _run(listeners, node, gateway, stop)


async def _run(
    listeners: list[tuple[uvicorn.Server, socket.socket]], node: Node, gateway: GatewayServices, stop: asyncio.Event
) -> None:
    serving = [asyncio.create_task(server.serve(sockets=[door]), name="gateway") for server, door in listeners]
    parts = [*serving, asyncio.create_task(node.run(), name="node")]
    history = asyncio.create_task(_keep_history(gateway), name="history")
    operations = asyncio.create_task(_keep_operations(gateway), name="operations")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([*parts, stopping], return_when=asyncio.FIRST_COMPLETED)
        for part in done - {stopping}:
            part.result()  # its error is the daemon's
            raise PvcError(f"the {part.get_name()} has ended by itself", code="node.part_ended")
    finally:
        gateway.stopping.set()
        for server, _ in listeners:
            server.should_exit = True
        await asyncio.wait(serving, timeout=GRACE_S + 1)
        rest = (*parts, history, operations, stopping)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


async def _keep_history(gateway: GatewayServices) -> None:
    try:
        await gateway.history.run(gateway.log)
    except PvcError as error:
        logger.error("history: stopped position=%d code=%s error=%s", gateway.history.position, error.code, error)
    except Exception:
        # A defect in the index must not end the node either: /health tells that the index is behind.
        logger.exception("history: stopped by a defect position=%d", gateway.history.position)


async def _keep_operations(gateway: GatewayServices) -> None:
    try:
        await gateway.operations.run(gateway.history)
    except Exception:
        # As with the index: what is known of operations can still be asked, and whoever asks for more is told so.
        logger.exception("operations: stopped by a defect position=%d", gateway.operations.position)


class _Server(uvicorn.Server):
    """A server that leaves the process's signals to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on sockets that are open already; uvicorn would give TLS a minute, and close it as slowly."""
        settings, loop = self.config, asyncio.get_running_loop()
        assert isinstance(settings, _Settings), "made below"

        def make() -> asyncio.Protocol:
            return settings.protocol(settings, self.server_state, self.lifespan.state)

        tls = settings.ssl is not None
        # asyncio gives each TLS connection a quarter of a megabyte to read into, from its first byte on.
        sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
        if settings.crowd is not None:
            settings.crowd.thinned = SpareMemory().give_back_soon
        self.servers = [
            await loop.create_server(
                make,
                sock=door,
                ssl=settings.ssl,
                backlog=settings.backlog,
                ssl_handshake_timeout=HANDSHAKE_S if tls else None,
                ssl_shutdown_timeout=FAREWELL_S if tls else None,
            )
            for door in sockets or ()
        ]
        self.started = True


class _Settings(uvicorn.Config):
    """What a server goes by, and whose connections it has."""

    crowd: Crowd | None = None
    protocol: type[PatientProtocol] = PatientProtocol


def make_server(
    app: ASGIApp,
    public: GatewayConfig | None = None,
    secret: PeerSecret | None = None,
    *,
    crowd: Crowd | None = None,
    protocol: type[PatientProtocol] = PatientProtocol,
) -> uvicorn.Server:
    """A server for this app, over TLS where `public` has a certificate. Raises Unavailable where that is no good."""
    settings = _Settings(
        app,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=GRACE_S,
        http=protocol,
        ws=StrictWebSocket,
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
        backlog=ACCEPTED_AT_ONCE,
        ssl_ciphers=CIPHERS,
        ssl_certfile=(public.tls_cert or None) if public else None,
        ssl_keyfile=(public.tls_key or None) if public else None,
    )
    settings.crowd, settings.protocol = crowd, protocol
    try:
        settings.load()
    except OSError as error:
        assert public is not None, "only certificates are read"
        raise Unavailable(
            f"gateway.tls_cert {public.tls_cert} and gateway.tls_key {public.tls_key} cannot be used: {error}",
            code="gateway.tls_failed",
            hint="give a certificate and its key, both PEM files that pvcd may read",
        ) from error
    if settings.ssl is not None and secret is not None:
        ask_nodes(settings.ssl, secret)
    return _Server(settings)
