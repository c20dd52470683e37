"""The gateways that a connection leads to: any of them can answer, so where one does not, the next may.

What a client was told by one it sees at the next as well: it sends along how fresh its answers have to be. Connections
are kept for the next request. Any number of requests may be under way at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pvc.client.connections import Connection
from pvc.client.errors import ApiError, ClientError, ConfigError, Unreachable
from pvc.client.ports import Io
from pvc.client.transport import CONNECT_TIMEOUT_S, Answer, Lost, Request, Wire, connect

AMONG_SEVERAL_S = 2.0
"""To connect, where another gateway can be asked instead: a dead one costs little, and a far one still answers."""

ELSEWHERE = "vm.console_elsewhere"
"""What a gateway says of a VM whose console only another one has."""

MAX_IDLE = 16
"""Connections kept for later: a program that asks for a hundred things at once rarely goes on like that."""

T = TypeVar("T")


class Gateways:
    """One of them is asked until it fails; then the next."""

    def __init__(self, io: Io, connection: Connection, source: str, *, timeout_s: float) -> None:
        self.io = io
        self._connections = connection.each()
        self._source = source
        several = len(self._connections) > 1
        self._connect_timeout_s = min(timeout_s, AMONG_SEVERAL_S if several else CONNECT_TIMEOUT_S)
        self.at = 0
        """The number of the one that is asked now."""
        self._idle: deque[tuple[int, Wire]] = deque()
        self._closed = False

    @property
    def others(self) -> int:
        """How many there are beside the one that is asked now."""
        return len(self._connections) - 1

    @property
    def connection(self) -> Connection:
        """The way to the one that is asked now."""
        return self._connections[self.at]

    @property
    def spelt(self) -> str:
        """How a message names them."""
        urls = ", ".join(connection.url for connection in self._connections)
        return f"none of the gateways {urls}" if self.others else f"the gateway at {urls}"

    def leave(self, at: int) -> None:
        """From now on ask the one after this, unless that was done already for another request."""
        if self.others and self.at == at:
            self.at = (at + 1) % len(self._connections)

    def close(self) -> None:
        """End all connections that are kept, and keep no more."""
        self._closed = True
        self._forget()

    async def ask(self, request: Request, timeout_s: float) -> Answer:
        """One request to the one that is asked now. Raises NoConnection, Lost, ReplyTooLarge, ConfigError."""
        at = self.at
        kept = self._take(at)
        wire = kept or await self._connect(at)
        try:
            answer = await wire.exchange(request, timeout_s)
        except BaseException as error:
            wire.close()
            if kept is not None and isinstance(error, Lost):
                error.stale = True
                self._forget()  # the others are as old
            raise
        if wire.fit and len(self._idle) < MAX_IDLE and not self._closed:
            self._idle.append((at, wire))
        else:
            wire.close()
        return answer

    async def open(self, request: Request, timeout_s: float) -> tuple[Answer, Wire]:
        """Ask for what may be endless: the head of the reply, and what to read from. The body of a refusal is read.

        Raises NoConnection, Lost, ReplyTooLarge, ConfigError.
        """
        wire = await self._connect(self.at)  # a kept one may have died unnoticed
        try:
            answer = await wire.begin(request, timeout_s)
            if answer.status >= 400:
                answer = answer._replace(body=await wire.rest(timeout_s))
        except BaseException:
            wire.close()
            raise
        return answer, wire

    async def try_each(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask one after the other until one answers, and is the one that can. Raises ApiError, Unreachable."""
        elsewhere: ApiError | None = None
        for left in reversed(range(len(self._connections))):
            try:
                return await ask()
            except ApiError as error:
                if error.code != ELSEWHERE:
                    raise
                elsewhere = error
            except Unreachable as error:
                if not left:
                    raise elsewhere or error from error
            if left:
                self.leave(self.at)
        assert elsewhere is not None, "the last one returned, or said why not"
        raise elsewhere

    def unreachable(self, error: Exception, *, sent: bool = False) -> ClientError:
        """What to tell a person when none answered; `sent` where a command may have arrived all the same."""
        where = self.connection.url
        if type(error.__cause__).__name__ == "SSLCertVerificationError":  # by name: to load ssl costs time
            return ConfigError(
                f"no authority known here vouches for the certificate of {where} ({error})",
                code="client.unknown_certificate",
                hint="give the authority's `ca_file`, or the fingerprint that `pvcd --fingerprint` shows on the node",
            )
        if isinstance(error.__cause__, PermissionError):
            return Unreachable(
                f"you may not use the socket {where}",
                code="client.socket_forbidden",
                hint="become root (sudo), or use a connection with a token: pvc connection add NAME URL",
            )
        if sent:
            return Unreachable(
                f"the gateway at {where} took the command but has not answered ({error})",
                code="client.no_reply",
                hint="it may have been carried out: `pvc history all` shows it once the gateway answers again",
            )
        hint = (
            "on this node, pvcd must run: systemctl status pvcd"
            if self.connection.is_unix
            else "check its address, the network, and that pvcd runs there"
        )
        can = "can" if self.others else "cannot"
        return Unreachable(f"{self.spelt} {can} be reached ({error})", hint=hint)

    def _take(self, at: int) -> Wire | None:
        while (kept := self._pop()) is not None:
            if kept[0] == at:
                return kept[1]
            kept[1].close()
        return None

    def _forget(self) -> None:
        while (kept := self._pop()) is not None:
            kept[1].close()

    def _pop(self) -> tuple[int, Wire] | None:
        try:
            return self._idle.pop()
        except IndexError:  # another thread may have taken the last one just now
            return None

    async def _connect(self, at: int) -> Wire:
        return await connect(self.io, self._connections[at], self._source, self._connect_timeout_s)
