"""How long a connection may stay open without a whole request, or without taking its reply: uvicorn waits for ever.

Without this a few thousand connections that say nothing, half a line, or never read would use up the daemon's files.
For the same reason an app may drop a connection whose client does not take what was written: closing it would wait for
that client.
"""

from __future__ import annotations

import asyncio

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import RequestResponseCycle

from pvc.daemon.strict_http import StrictProtocol, StrictWebSocket
from pvc.gateway.auth import KNOWN, NODE_SHOWN
from pvc.gateway.event_stream import HANG_UP
from pvc.peers.certificates import node_shown

HEAD_DEADLINE_S = 20.0
"""For a request's line and headers, which fit into a few packets: many times what the worst line needs."""

MIN_TAKEN_BYTES = 16 * 1024
"""Of a reply within that time, from who has not taken all of it: slower than 1 KB/s is nobody who needs the reply."""


class PatientProtocol(StrictProtocol):
    """Hangs up on a client that has not sent the head of a request for so long, or takes nothing of a reply."""

    head_deadline_s = HEAD_DEADLINE_S
    min_taken_bytes = MIN_TAKEN_BYTES

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is waited for from here."""
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._pauses = 0
        self._looked_in_pause = 0
        crowd, peer = getattr(self.config, "crowd", None), transport.get_extra_info("peername")
        self.app = _with_what_is_known_of(
            self.app,
            {
                HANG_UP: transport.abort,
                KNOWN: lambda whose: crowd.tell(peer, whose, transport.abort) if crowd is not None else None,
                NODE_SHOWN: node_shown(transport.get_extra_info("ssl_object")),
            },
        )
        self._look_later(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """A timer would keep all that belongs to the connection until it is due."""
        self._look_no_more()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From now on the connection's end is told to somebody else."""
        super().handle_websocket_upgrade(event)
        protocol = self.transport.get_protocol()
        if isinstance(protocol, StrictWebSocket):
            protocol.app = self.app  # with what is known of the connection; uvicorn gives it the bare one
            protocol.when_lost = self._look_no_more

    def pause_writing(self) -> None:
        """The client takes less than there is for it."""
        self._pauses += 1
        super().pause_writing()

    def _look_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self, waited_after: RequestResponseCycle | object | None) -> None:
        """Look again when whoever waits now, after that request, will have had its time."""
        self._timer = self.loop.call_later(self.head_deadline_s, self._look, waited_after)

    def _look(self, waited_after: RequestResponseCycle | object | None) -> None:
        if self._takes_nothing():
            self.transport.abort()
        elif self.transport.get_protocol() is not self:
            self._look_at_websocket(self.transport.get_protocol())
        elif self.transport.is_closing():
            self._look_later(waited_after)  # that waits for the client to take the rest
        elif self.cycle is not None and not self.cycle.response_complete:
            self._look_later(_REPLYING)  # a client that got its long poll's reply just now has all its time before it
        elif self.cycle is waited_after:
            self.transport.close()
            self._look_later(waited_after)
        else:
            self._look_later(self.cycle)

    def _look_at_websocket(self, protocol: asyncio.BaseProtocol) -> None:
        if getattr(protocol, "handshake_complete", True):
            self._look_later(None)
        else:
            self.transport.abort()

    def _takes_nothing(self) -> bool:
        """Whether next to nothing was taken since the last look, of what was waiting to be taken then already.

        While a transport is paused, or closing, nothing is added to what waits.
        """
        transport = self.transport
        writable = getattr(transport.get_protocol(), "writable", None)  # a WebSocket has a flow of its own
        paused = not writable.is_set() if isinstance(writable, asyncio.Event) else self.flow.write_paused
        before, self._unsent = (
            self._unsent,
            transport.get_write_buffer_size() if paused or transport.is_closing() else 0,
        )
        same, self._looked_in_pause = self._looked_in_pause == self._pauses, self._pauses
        return same and self._unsent > 0 and before > 0 and before - self._unsent < self.min_taken_bytes


_REPLYING = object()


def _with_what_is_known_of(app: ASGIApp, known: Scope) -> ASGIApp:
    """The ways to hang up and to be known, and which node has shown its certificate: of a connection, and so of its
    requests."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, **known}, receive, send)

    return serve
