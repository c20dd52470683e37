"""The client: commands that are never done twice, queries that see what was written before, and waiting for outcomes.

A command carries an idempotency key of its own from the first try, so after a lost connection it is simply sent again.
The client remembers the highest log position it was told and asks every query to be at least as fresh. Where the
connection leads to several gateways, it goes on to the next when one does not answer or cannot do its work.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlencode

from pvc import __version__
from pvc.client.api_types import (
    ClusterInfo,
    EventPage,
    FaultInfo,
    HistoryPage,
    NodeInfo,
    RecordView,
    Reply,
    ToldEvent,
    VmInfo,
    VmRow,
)
from pvc.client.cards import load_cards
from pvc.client.connections import Connection
from pvc.client.errors import ApiError, ClientError, Unreachable, WaitTimedOut
from pvc.client.gateways import Gateways
from pvc.client.transport import Answer, Lost, Moment, NoConnection

REQUEST_TIMEOUT_S = 65.0
"""Longer than a gateway takes to give up on its log (60 s), so that we hear its reason instead of guessing."""

QUERY_AMONG_SEVERAL_S = 15.0
"""For a query, where another gateway can be asked instead: longer than one waits for its fold to catch up (10 s)."""

MAX_TRIES = 4
RETRY_WITHIN_S = 60.0
"""No new try after this long; a person is waiting."""
RETRY_PAUSE_S = 0.25
"""Doubled with each try and drawn at random below that, so that many clients do not come back at once."""

LONG_POLL_S = 25
"""How long the gateway may hold an empty poll; below the idle time-out of any proxy between (usually 60 s)."""

PAGE = 1000
"""Items per page of a list."""

_AGAIN = frozenset({503, 504})
"""Nothing was written, or it is not known; with the same key trying again is safe in either case."""


class Outcome(NamedTuple):
    """What an accepted command has led to."""

    success: bool
    event: ToldEvent
    record: RecordView
    waited_s: float


Progress = Callable[[RecordView], None]


class Client:
    """Speaks to the gateways of one cluster. Not for use by several threads at once."""

    def __init__(
        self,
        connection: Connection,
        *,
        source: str = f"client/{__version__}",
        tries: int = MAX_TRIES,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self.connection = connection
        self.position = 0
        """The highest log position that any reply has told."""
        self.moment: Moment | None = None
        """The moment that the last reply was of, where that was not now."""
        self._source = source
        self._tries = tries
        self._timeout_s = timeout_s
        self._gateways = Gateways(connection, source, timeout_s=timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._gateways.transport.close()

    def command(self, name: str, fields: Mapping[str, Any], *, dry_run: bool = False, key: str = "") -> Reply:
        """Ask for a command by its name (`vm.start`). Raises ApiError, Unreachable.

        `key` is the idempotency key; one is made if it is empty. A field that is None is not sent.
        """
        card = load_cards()[name]
        given = {field: value for field, value in fields.items() if value is not None}
        path = card["path"]
        for field in [field for field in given if f"{{{field}}}" in path]:
            path = path.replace(f"{{{field}}}", quote(str(given.pop(field)), safe=""))
        query = {"dry_run": "true"} if dry_run else {}
        body = json.dumps(given).encode() if given or card["method"] != "DELETE" else None
        return cast("Reply", self._call(card["method"], path, query, body=body, key=key or os.urandom(16).hex()))

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
        query = {} if acknowledged is None else {"acknowledged": "true" if acknowledged else "false"}
        return cast("list[FaultInfo]", self.get("/faults", {**query, "at": at})["items"])

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
        filters = {"types": ",".join(types), "subject": subject, "actor": actor, "tag": tag, "correlation": correlation}
        return following.follow(
            Gateways(self.connection, self._source, timeout_s=self._timeout_s),
            filters,
            after=after,
            refusal=self._refusal,
            freshness=self._freshness,
            patience_s=following.PATIENCE_S if patience_s is None else patience_s,
        )

    def poll_events(self, filters: Mapping[str, str], *, after: int, wait_s: int = 0, limit: int = 100) -> EventPage:
        """One page of records after a position; the gateway holds the reply up to `wait_s` until there is one.

        Filters as for `events`, `types` with commas. For who waits until a deadline; `events` is for who goes on.
        """
        query = {**filters, "after": after, "wait_s": wait_s, "limit": limit, "min_position": self.position or ""}
        return cast("EventPage", self._call("GET", "/events", query, wait_s=wait_s))

    def wait_for(self, reply: Reply, *, timeout_s: float, on_progress: Progress | None = None) -> Outcome | None:
        """Wait for what a command leads to; None when there is nothing to wait for. Raises WaitTimedOut.

        Where its own record has the outcome (a VM at rest is moved at once), that is told without waiting.

        It follows all that happens to the command's subject, not its own consequences alone: when somebody else's
        command brings about the end, that ends the waiting too.
        """
        began = time.monotonic()
        if reply["record"] is None or not reply["outcomes"]:
            return None
        after = reply["position"]
        if any(event["type"] in reply["outcomes"] for event in reply["events"]):
            after -= 1  # its own record has it
        filters = _watched(reply)
        while (left_s := began + timeout_s - time.monotonic()) > 0:
            try:
                page = self.poll_events(filters, after=after, wait_s=min(math.ceil(left_s), LONG_POLL_S))
            except ClientError as error:
                if not _passes(error):
                    raise
                _pause(1)
                continue
            for record in page["records"]:
                if on_progress is not None and record["id"] != reply["record"]:
                    on_progress(record)
                for event in record["events"]:
                    if filters.get("subject", event["subject"]) != event["subject"]:
                        continue  # a record may be about many VMs
                    if event["type"] in reply["outcomes"] and _same_run(reply, event):
                        success = reply["outcomes"][event["type"]]
                        return Outcome(success, event, record, time.monotonic() - began)
            after = max(after, page["next_after"])
        raise WaitTimedOut(
            f"{reply['name']} was accepted, but its outcome did not come within {timeout_s:g} s",
            hint="it goes on; `pvc history all` shows what comes of it",
        )

    def vm_log(self, ref: str, *, lines: int = 100, follow: bool = False) -> Iterator[bytes]:
        """What a VM's guest wrote to its serial console, in pieces as they come."""
        query = {"lines": lines, "follow": "true" if follow else "false"}
        path = f"/vms/{quote(ref, safe='')}/log?{urlencode(query)}"
        response = self._gateways.try_each(lambda: self._stream(path))
        try:
            while piece := response.read1(65536):
                yield piece
        except (OSError, HTTPException):
            follow = True
        finally:
            self._gateways.transport.close()
        if follow:
            raise Unreachable(
                f"the gateway at {self._gateways.connection.url} has ended the log of {ref}: "
                "it stopped, the line broke, or the VM has gone to another node",
                hint=f"go on with: pvc vm log {ref} --follow",
            )

    def console(self, ref: str) -> Any:
        """A VM's serial console, as a connected `websockets.sync` connection of binary frames."""
        from pvc.client.console import open_console

        return self._gateways.try_each(lambda: open_console(self._gateways.connection, ref, self._source))

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Any query below /api/v1, at least as fresh as everything told before. Raises ApiError, Unreachable."""
        return self._call("GET", path, {**(query or {}), "min_position": self.position or ""})

    def post(self, path: str, *, body: Any = None, key: str = "", **query: str | int) -> dict[str, Any]:
        """Anything else below /api/v1. It may be sent twice: under one key where that matters."""
        return self._call("POST", path, query, body=None if body is None else json.dumps(body).encode(), key=key)

    def _all(self, path: str, filters: Mapping[str, str], limit: int) -> list[Any]:
        items: list[Any] = []
        after = ""
        while True:
            wanted = min(PAGE, limit - len(items)) if limit else PAGE
            page = self.get(path, {**filters, "limit": wanted, "after": after})
            if self.moment is not None:
                # Of all pages the same moment: "two hours ago" is another one with each.
                filters = {**filters, "at": str(self.moment.position)}
            items += page["items"]
            after = page.get("next") or ""
            if not after or (limit and len(items) >= limit):
                return items

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        *,
        body: bytes | None = None,
        key: str = "",
        wait_s: float = 0,
    ) -> dict[str, Any]:
        arguments = urlencode({name: value for name, value in query.items() if value not in ("", None)})
        target = f"{path}?{arguments}" if arguments else path
        timeout_s = wait_s + self._timeout_s
        if method == "GET" and self._gateways.others:
            timeout_s = wait_s + min(self._timeout_s, QUERY_AMONG_SEVERAL_S)
        give_up = time.monotonic() + RETRY_WITHIN_S
        sent = False
        turn, untried = 0, self._gateways.others
        while True:
            last = not untried and (turn >= self._tries - 1 or time.monotonic() > give_up)
            stale = self._gateways.transport.reused
            try:
                answer = self._gateways.transport.request(method, target, body=body, key=key, timeout_s=timeout_s)
            except NoConnection as error:
                if last or not (
                    sent or untried
                ):  # where nobody ever listened, somebody rarely begins to within a second
                    raise self._gateways.unreachable(error, sent=sent and bool(key)) from error
            except Lost as error:
                sent = True
                if last:
                    raise self._gateways.unreachable(error, sent=bool(key)) from error
                if stale:
                    turn += 1
                    continue  # it was idle too long, and the gateway hung up
            else:
                if last or answer.status not in _AGAIN:
                    return self._decoded(answer)
                sent = True
            self._gateways.next()
            if untried:
                untried -= 1
            else:
                _pause(turn)
                turn += 1

    def _stream(self, path: str) -> HTTPResponse:
        transport = self._gateways.transport
        transport.close()  # a stream begins on a fresh connection: a kept one may have died unnoticed
        try:
            answer, response = transport.stream(path, timeout_s=self._timeout_s)
        except (NoConnection, Lost) as error:
            raise self._gateways.unreachable(error) from error
        if response is None:
            self._decoded(answer)
            raise AssertionError("a refusal raises")
        return response

    def _decoded(self, answer: Answer) -> dict[str, Any]:
        self.position = max(self.position, answer.position)
        self.moment = answer.at
        try:
            document = json.loads(answer.body)
        except ValueError:
            document = None
        if not isinstance(document, dict) or (answer.status >= 400 and "detail" not in document):
            raise Unreachable(
                f"no PVC gateway answers at {self._gateways.connection.url} "
                f"(HTTP {answer.status}, {answer.content_type})",
                code="client.not_a_gateway",
                hint="check the URL and port of the connection: `pvc connection list` shows them",
            )
        self.position = max(self.position, int(document.get("position") or 0))
        if answer.status >= 400:
            raise ApiError(
                answer.status,
                document["detail"],
                code=document.get("code", ""),
                hint=document.get("hint", ""),
                field=document.get("field", ""),
            )
        return document

    def _refusal(self, answer: Answer) -> ClientError:
        """What an answer that was not wanted says."""
        try:
            self._decoded(answer)
        except ClientError as error:
            return error
        where = self._gateways.connection.url
        return Unreachable(f"the gateway at {where} knows no event stream", hint="update PVC on that node")

    def _freshness(self, position: int) -> int:
        self.position = max(self.position, position)
        return self.position


def _watched(reply: Reply) -> dict[str, str]:
    subjects = {event["subject"] for event in reply["events"]}
    if len(subjects) == 1:
        return {"subject": subjects.pop()}
    return {"correlation": str(reply["record"])}


def _same_run(reply: Reply, event: ToldEvent) -> bool:
    """Whether an outcome is about the run of the VM that the command asked for, where both say which."""
    asked = [told["data"]["epoch"] for told in reply["events"] if "epoch" in told["data"]]
    return not asked or event["data"].get("epoch", asked[0]) >= asked[0]


def _passes(error: ClientError) -> bool:
    """Whether it is of the kind that goes away by itself."""
    return isinstance(error, Unreachable) or (isinstance(error, ApiError) and error.status in _AGAIN)


def _pause(turn: int) -> None:
    import random

    time.sleep(random.uniform(0.2, 1.0) * RETRY_PAUSE_S * 2**turn)  # noqa: S311 - jitter, not a secret
