"""The client: a method with types for everything that a gateway can be asked, for blocking programs and for asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Self, TypeVar

from pvc.client.blocking import BlockingIo
from pvc.client.calls import Calls
from pvc.client.connections import Connection, check_token, check_url, choose_connection
from pvc.client.core import DEADLINE_S, MAX_TRIES, REQUEST_TIMEOUT_S, SOURCE, Core, Patience
from pvc.client.following import PATIENCE_S, Catching, Following, Reading
from pvc.client.generated.blocking import Groups
from pvc.client.generated.suspending import AsyncGroups
from pvc.client.ports import Io
from pvc.client.streams import AsyncEvents, Events

E = TypeVar("E")


class _Client(Generic[E]):
    """What both kinds of client share."""

    def __init__(
        self,
        url: str | Sequence[str] | Connection,
        *,
        token: str = "",
        ca_file: str = "",
        fingerprints: Sequence[str] = (),
        source: str = SOURCE,
        tries: int = MAX_TRIES,
        timeout_s: float = REQUEST_TIMEOUT_S,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        connection = connection_to(url, token=token, ca_file=ca_file, fingerprints=fingerprints)
        patience = Patience(tries=tries, timeout_s=timeout_s, deadline_s=deadline_s)
        self._core = Core(self._io(), connection, source=source, patience=patience)
        self._group(Calls(self._core))

    @classmethod
    def from_connection(
        cls,
        name: str = "",
        *,
        source: str = SOURCE,
        tries: int = MAX_TRIES,
        timeout_s: float = REQUEST_TIMEOUT_S,
        deadline_s: float = DEADLINE_S,
    ) -> Self:
        """By a connection that `pvc connection add` has stored; without a name by the one that `pvc` would use."""
        chosen = choose_connection(name)
        return cls(chosen, source=source, tries=tries, timeout_s=timeout_s, deadline_s=deadline_s)

    @property
    def position(self) -> int:
        """The highest position of the log that any reply has told: every answer from now on is at least as fresh."""
        return self._core.position

    def events(
        self,
        *,
        after: int | None = None,
        types: Sequence[str] = (),
        subject: str = "",
        actor: str = "",
        tag: str = "",
        correlation: str = "",
        follow: bool = True,
        patience_s: float = PATIENCE_S,
    ) -> E:
        """Records, oldest first, each once: after a position (0: from the beginning), or from now on.

        Those with an event that matches everything given. It outlives restarts and losses of gateways, as long as one
        answers within `patience_s`. Without `follow` it ends with what there is when it begins; where no position is
        given it then begins at the beginning.
        """
        filters = {"types": list(types), "subject": subject, "actor": actor, "tag": tag, "correlation": correlation}
        if follow:
            return self._iterated(Following(self._core, filters, after=after, patience_s=patience_s))
        return self._iterated(Catching(self._core, filters, after=after or 0))

    def _io(self) -> Io:
        raise NotImplementedError

    def _group(self, calls: Calls) -> None:
        raise NotImplementedError

    def _iterated(self, source: Reading) -> E:
        raise NotImplementedError


class Client(_Client[Events], Groups):
    """Speaks to the gateways of one cluster; blocks. Threads may share it.

    `url` is that of a gateway, or of several of the same cluster: the next is asked where one does not answer.
    `deadline_s` bounds a call with all its tries. `source` says through what a command comes, for the history.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._core.close()

    def _io(self) -> Io:
        return BlockingIo()

    def _group(self, calls: Calls) -> None:
        Groups.__init__(self, calls)

    def _iterated(self, source: Reading) -> Events:
        return Events(source)


class AsyncClient(_Client[AsyncEvents], AsyncGroups):
    """Speaks to the gateways of one cluster; for one event loop of asyncio. Any number of tasks may share it.

    `url` is that of a gateway, or of several of the same cluster: the next is asked where one does not answer.
    `deadline_s` bounds a call with all its tries. `source` says through what a command comes, for the history.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections."""
        self._core.close()
        await self._core.io.sleep(0)  # so that the event loop gets to close them

    def _io(self) -> Io:
        from pvc.client.nonblocking import AsyncIo  # which a blocking program need not load

        return AsyncIo()

    def _group(self, calls: Calls) -> None:
        AsyncGroups.__init__(self, calls)

    def _iterated(self, source: Reading) -> AsyncEvents:
        return AsyncEvents(source)


def connection_to(
    url: str | Sequence[str] | Connection, *, token: str = "", ca_file: str = "", fingerprints: Sequence[str] = ()
) -> Connection:
    """The connection that these arguments describe. Raises ConfigError."""
    if isinstance(url, Connection):
        return url._replace(token=check_token(token)) if token else url
    urls = [check_url(one) for one in ([url] if isinstance(url, str) else url)]
    if fingerprints:
        from pvc.client.pins import check_fingerprint

        fingerprints = [check_fingerprint(one) for one in fingerprints]
    return Connection(
        "",
        urls[0],
        token=check_token(token) if token else "",
        ca_file=ca_file,
        others=tuple(urls[1:]),
        fingerprints=tuple(fingerprints),
    )
