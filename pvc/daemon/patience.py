"""How long a connection may stay open without a whole request: uvicorn itself waits for ever for the first one.

Without this a few hundred connections that say nothing, or half a line, would use up the daemon's files. For the same
reason an app may drop a connection whose client does not take what was written: closing it would wait for that client.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from pvc.gateway.auth import NODE_SHOWN
from pvc.gateway.event_stream import HANG_UP
from pvc.peers.certificates import node_shown

HEAD_DEADLINE_S = 20.0
"""For a request's line and headers, which fit into a few packets: many times what the worst line needs."""


class PatientProtocol(H11Protocol):
    """Hangs up on a client that has not sent the head of a request for so long."""

    head_deadline_s = HEAD_DEADLINE_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is waited for from here."""
        super().connection_made(transport)
        self.app = _with_what_is_known_of(self.app, transport)
        self._look_later(None)

    def _look_later(self, waited_after: RequestResponseCycle | object | None) -> None:
        """Look again when whoever waits now, after that request, will have had its time."""
        self.loop.call_later(self.head_deadline_s, self._look, waited_after)

    def _look(self, waited_after: RequestResponseCycle | object | None) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # gone, or a WebSocket by now
        if self.cycle is not None and not self.cycle.response_complete:
            self._look_later(_REPLYING)  # a client that got its long poll's reply just now has all its time before it
        elif self.cycle is waited_after:
            self.transport.close()
        else:
            self._look_later(self.cycle)


_REPLYING = object()


def _with_what_is_known_of(app: ASGIApp, transport: asyncio.Transport) -> ASGIApp:
    """The way to hang up, and which node has shown its certificate: known of a connection, and so of its requests."""
    known = {HANG_UP: transport.abort, NODE_SHOWN: node_shown(transport.get_extra_info("ssl_object"))}

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, **known}, receive, send)

    return serve
