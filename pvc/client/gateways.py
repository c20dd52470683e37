"""The gateways that a connection leads to, one at a time: any of them can answer, so where one does not, the next may.

What a client was told by one it sees at the next as well: it sends along how fresh its answers have to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pvc.client.connections import Connection
from pvc.client.errors import ApiError, Unreachable
from pvc.client.transport import CONNECT_TIMEOUT_S, Transport

AMONG_SEVERAL_S = 2.0
"""To connect, where another gateway can be asked instead: a dead one costs little, and a far one still answers."""

ELSEWHERE = "vm.console_elsewhere"
"""What a gateway says of a VM whose console only another one has."""

T = TypeVar("T")


class Gateways:
    """Not for use by several threads at once."""

    def __init__(self, connection: Connection, source: str, *, timeout_s: float) -> None:
        self._connections = connection.each()
        self._source = source
        several = len(self._connections) > 1
        self._connect_timeout_s = min(timeout_s, AMONG_SEVERAL_S if several else CONNECT_TIMEOUT_S)
        self._at = 0
        self.transport = self._make()
        """To the one that is asked now."""

    @property
    def others(self) -> int:
        """How many there are beside the one that is asked now."""
        return len(self._connections) - 1

    @property
    def connection(self) -> Connection:
        """The way to the one that is asked now."""
        return self._connections[self._at]

    @property
    def spelt(self) -> str:
        """How a message names them."""
        urls = ", ".join(connection.url for connection in self._connections)
        return f"none of the gateways {urls}" if self.others else f"the gateway at {urls}"

    def next(self) -> None:
        """From now on ask the next one."""
        if self.others:
            self.transport.close()
            self._at = (self._at + 1) % len(self._connections)
            self.transport = self._make()

    def try_each(self, ask: Callable[[], T]) -> T:
        """Ask one after the other until one answers, and is the one that can. Raises ApiError, Unreachable."""
        elsewhere: ApiError | None = None
        for left in reversed(range(len(self._connections))):
            try:
                return ask()
            except ApiError as error:
                if error.code != ELSEWHERE:
                    raise
                elsewhere = error
            except Unreachable as error:
                if not left:
                    raise elsewhere or error from error
            if left:
                self.next()
        assert elsewhere is not None, "the last one returned, or said why not"
        raise elsewhere

    def unreachable(self, error: Exception, *, sent: bool = False) -> Unreachable:
        """What to tell a person when none answered; `sent` where a command may have arrived all the same."""
        where = self.connection.url
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

    def _make(self) -> Transport:
        return Transport(self.connection, self._source, connect_timeout_s=self._connect_timeout_s)
