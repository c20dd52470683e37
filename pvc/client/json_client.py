"""The client in plain JSON: replies as dictionaries, as they came. It is the CLI's, which starts fast by it.

For programs `pvc.client.Client` is the better one: it has a method with types for everything. Both are thin over
`pvc.client.core`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode

from pvc.client.api_types import (
    ClusterInfo,
    FaultInfo,
    HistoryPage,
    NodeInfo,
    OperationInfo,
    RecordView,
    Reply,
    VmInfo,
    VmRow,
)
from pvc.client.blocking import BlockingIo
from pvc.client.connections import Connection
from pvc.client.core import DEADLINE_S, MAX_TRIES, REQUEST_TIMEOUT_S, SOURCE, Core, Patience, each_page
from pvc.client.errors import Unreachable
from pvc.client.ports import finish
from pvc.client.transport import Answer, Lost, Moment
from pvc.client.waiting import OnChange, Outcome, Progress, follow_operation, wait_for

if TYPE_CHECKING:
    from pvc.client.following import Reading

PAGE = 1000
"""Items per page of a list."""


class JsonClient:
    """Speaks to the gateways of one cluster. Not for use by several threads at once."""

    def __init__(
        self,
        connection: Connection,
        *,
        source: str = SOURCE,
        tries: int = MAX_TRIES,
        timeout_s: float = REQUEST_TIMEOUT_S,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self.connection = connection
        self.moment: Moment | None = None
        """The moment that the last reply was of, where that was not now."""
        self.core = Core(BlockingIo(), connection, source=source, patience=Patience(tries, timeout_s, deadline_s))

    def __enter__(self) -> JsonClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self.core.close()

    @property
    def position(self) -> int:
        """The highest log position that any reply has told."""
        return self.core.position

    def command(self, name: str, fields: Mapping[str, Any], *, dry_run: bool = False, key: str = "") -> Reply:
        """Ask for a command by its name (`vm.start`). Raises ApiError, Unreachable.

        `key` is the idempotency key; one is made if it is empty. A field that is None is not sent.
        """
        answer = finish(self.core.command(name, fields, dry_run=dry_run, key=key))
        return cast("Reply", self._document(answer))

    def cluster(self, *, at: str = "") -> ClusterInfo:
        """The cluster at one look. Here and below, `at` is a moment of the past: a position, a time, or how long ago;
        `moment` then says which one the reply is of."""
        return cast("ClusterInfo", self.get("/cluster", {"at": at}))

    def nodes(self, *, at: str = "") -> list[NodeInfo]:
        """All nodes."""
        return cast("list[NodeInfo]", self._all("/nodes", {"at": at}, 0))

    def node(self, name: str, *, at: str = "") -> NodeInfo:
        """One node."""
        return cast("NodeInfo", self.get(f"/nodes/{quote(name, safe='')}", {"at": at}))

    def faults(self, *, acknowledged: bool | None = None, at: str = "") -> list[FaultInfo]:
        """What is wrong, the newest first: all, or only what somebody has taken notice of, or only the rest."""
        return cast("list[FaultInfo]", self._all("/faults", {"acknowledged": acknowledged, "at": at}, 0))

    def vms(
        self, *, state: str = "", tag: str = "", node: str = "", name: str = "", limit: int = 0, at: str = ""
    ) -> list[VmRow]:
        """The VMs that have all of this, by name; `name` may hold `*` and `?`. `limit` 0 means all."""
        filters = {"state": state, "tag": tag, "node": node, "name": name, "at": at}
        return cast("list[VmRow]", self._all("/vms", filters, limit))

    def vm(self, ref: str, *, at: str = "") -> VmInfo:
        """One VM, by name or id."""
        return cast("VmInfo", self.get(f"/vms/{quote(ref, safe='')}", {"at": at}))

    def whoami(self) -> dict[str, Any]:
        """Who the gateway takes us for."""
        return self.get("/whoami")

    def history(self, *, limit: int = 50, **filters: str | int) -> HistoryPage:
        """Records, newest first; `subject`, `actor`, `type`, `since`, `until`, `correlation`, `before` and so on."""
        return cast("HistoryPage", self.get("/history", {**filters, "limit": limit}))

    def events(
        self,
        *,
        after: int | None = None,
        types: Sequence[str] = (),
        subject: str = "",
        actor: str = "",
        tag: str = "",
        correlation: str = "",
        patience_s: float | None = None,
    ) -> Iterator[RecordView]:
        """Records as they come, oldest first, endlessly: after a position (0: from the beginning), or from now on.

        Those with an event that matches everything given. Outlives restarts and losses of gateways, without a gap and
        without a repeat, as long as one answers within `patience_s`. Other calls of this client go on beside it.
        Raises ApiError, Unreachable.
        """
        from pvc.client import following

        if after is None:
            self.whoami()
            after = self.position
        filters = {"types": list(types), "subject": subject, "actor": actor, "tag": tag, "correlation": correlation}
        patience_s = following.PATIENCE_S if patience_s is None else patience_s
        return _records(following.Following(self.core, filters, after=after, patience_s=patience_s))

    def wait_for(self, reply: Reply, *, timeout_s: float, on_progress: Progress | None = None) -> Outcome | None:
        """Wait for the end of the operation that a command has begun; None where it has begun none.

        `on_progress` is told each record about the command's subject. Raises WaitTimedOut, ApiError.
        """
        return finish(wait_for(self.core, reply, timeout_s=timeout_s, on_progress=on_progress))

    def follow_operation(self, operation: str, *, timeout_s: float, on_change: OnChange) -> OperationInfo | None:
        """Follow an operation: how it stands at its end, or when the time is over; None where no gateway answered.

        `on_change` is told how it stands whenever that has changed. Raises ApiError.
        """

        async def tell(info: OperationInfo) -> None:
            on_change(info)

        return finish(follow_operation(self.core, operation, timeout_s=timeout_s, on_change=tell))

    def vm_log(self, ref: str, *, lines: int = 100, follow: bool = False) -> Iterator[bytes]:
        """What a VM's guest wrote to its serial console, in pieces as they come."""
        query = {"lines": lines, "follow": "true" if follow else "false"}
        wire = finish(self.core.open(f"/vms/{quote(ref, safe='')}/log?{urlencode(query)}"))
        try:
            while piece := finish(wire.piece(None)):  # a guest may say nothing for days
                yield piece
        except Lost:
            follow = True
        finally:
            wire.close()
        if follow:
            raise Unreachable(
                f"the gateway at {self.core.gateways.connection.url} has ended the log of {ref}: "
                "it stopped, the line broke, or the VM has gone to another node",
                hint=f"go on with: pvc vm log {ref} --follow",
            )

    def console(self, ref: str) -> Any:
        """A VM's serial console, as a connected `websockets.sync` connection of binary frames."""
        from pvc.client.console import open_console

        async def ask() -> Any:
            return open_console(self.core.gateways.connection, ref, self.core.source)

        return finish(self.core.gateways.try_each(ask))

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Any query below /api/v1, at least as fresh as everything told before. Raises ApiError, Unreachable."""
        return self._document(finish(self.core.query(path, query or {})))

    def post(self, path: str, *, body: Any = None, key: str = "", **query: str | int) -> dict[str, Any]:
        """Anything else below /api/v1. It may be sent twice: under one key where that matters."""
        data = None if body is None else json.dumps(body).encode()
        return self._document(finish(self.core.call("POST", path, query, body=data, key=key)))

    def _all(self, path: str, filters: Mapping[str, Any], limit: int) -> list[Any]:
        async def fetch(query: Mapping[str, Any]) -> tuple[Answer, list[Any], Any]:
            answer = await self.core.query(path, query)
            page = self._document(answer)
            return answer, page["items"], page.get("next")

        return finish(each_page(fetch, filters, "after", limit or None, PAGE))

    def _document(self, answer: Answer) -> dict[str, Any]:
        self.moment = answer.at
        return self.core.document(answer)


def _records(reading: Reading) -> Iterator[RecordView]:
    try:
        while (record := finish(reading.next())) is not None:
            yield cast("RecordView", record)
    finally:
        reading.close()
