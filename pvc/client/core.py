"""The client's heart: requests that are never done twice, answers that are never older than what was told before.

A command carries an idempotency key of its own from the first try, so after a lost connection it is simply sent again.
The highest log position that was told goes along with every query, which has to be at least as fresh. Where the
connection leads to several gateways, the next is asked when one does not answer or cannot do its work. It is written
once, over `pvc.client.ports`; `Client`, `AsyncClient` and `JsonClient` are thin.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from pvc import __version__
from pvc.client.cards import load_cards
from pvc.client.connections import Connection
from pvc.client.errors import ApiError, ClientError, Unreachable, refusal
from pvc.client.gateways import Gateways
from pvc.client.ports import Io
from pvc.client.transport import Answer, Lost, NoConnection, Request, Wire

SOURCE = f"client/{__version__}"

REQUEST_TIMEOUT_S = 65.0
"""Longer than a gateway takes to give up on its log (60 s), so that we hear its reason instead of guessing."""

QUERY_AMONG_SEVERAL_S = 15.0
"""For a query, where another gateway can be asked instead: longer than one waits for its fold to catch up (10 s)."""

MAX_TRIES = 4

DEADLINE_S = 120.0
"""For a call with all its tries: two that take as long as a gateway may take, nearly."""

RETRY_PAUSE_S = 0.25
"""The longest pause before the second try. Doubled with each try and drawn at random below that ("full jitter"), so
that many clients do not come back at once."""

MAX_PAUSE_S = 5.0

AGAIN = frozenset({503, 504})
"""Nothing was written, or it is not known; with the same key trying again is safe in either case."""

TOO_MANY = 429
LOCKED_OUT = "access.too_many_failures"
"""Of a token that is wrong: waiting does not make it right."""

T = TypeVar("T")


class Patience(NamedTuple):
    """How long to go on trying."""

    tries: int = MAX_TRIES
    timeout_s: float = REQUEST_TIMEOUT_S
    """For one try; a long poll takes its wait in addition."""
    deadline_s: float = DEADLINE_S
    """For a call with all its tries and pauses; a long poll takes its wait in addition."""


class Core:
    """Speaks to the gateways of one cluster. Any number of calls may be under way at once."""

    def __init__(self, io: Io, connection: Connection, *, source: str = SOURCE, patience: Patience) -> None:
        self.io = io
        self.connection = connection
        self.source = source
        self.patience = patience
        self._seeing = threading.Lock()
        self.position = 0
        """The highest log position that any reply has told."""
        self.gateways = Gateways(io, connection, source, timeout_s=patience.timeout_s)

    def close(self) -> None:
        """End the connections."""
        self.gateways.close()

    def saw(self, position: int) -> int:
        """Remember a position that was told; the highest so far."""
        with self._seeing:  # or one thread would undo what another was told
            self.position = max(self.position, position)
            return self.position

    async def command(
        self, name: str, fields: Mapping[str, Any], *, dry_run: bool = False, key: str = "", if_match: str = ""
    ) -> Answer:
        """Ask for a command by its name (`vm.start`). A field that is None is not sent."""
        card = load_cards()[name]
        path, given = placed(card["path"], fields)
        query = {"dry_run": "true"} if dry_run else {}
        body = json.dumps(given).encode() if given or card["method"] != "DELETE" else None
        return await self.call(card["method"], path, query, body=body, key=key or new_key(), if_match=if_match)

    async def query(
        self, path: str, query: Mapping[str, Any], *, wait_s: float = 0, within_s: float | None = None
    ) -> Answer:
        """Any query below /api/v1, at least as fresh as everything told before. A gateway may hold it for `wait_s`."""
        query = {**query, "min_position": self.position or ""}
        return await self.call("GET", path, query, wait_s=wait_s, within_s=within_s)

    async def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        *,
        body: bytes | None = None,
        key: str = "",
        if_match: str = "",
        wait_s: float = 0,
        within_s: float | None = None,
    ) -> Answer:
        """A request, sent again until it is answered. Raises ApiError, Unreachable.

        `within_s` is for who has less time than the client's deadline: for all tries, with what a gateway holds them.
        """
        request = Request(method, target(path, query), body=body, key=key, if_match=if_match)
        longest_s = self.patience.deadline_s + wait_s
        until = self.io.now() + (longest_s if within_s is None else min(longest_s, within_s))
        among_several = method == "GET" and self.gateways.others > 0
        sent = False
        turn, untried = 0, self.gateways.others
        while True:
            left_s = until - self.io.now()
            last = left_s <= 0 or (not untried and turn >= self.patience.tries - 1)
            at, later_s = self.gateways.at, 0.0
            timeout_s = self.patience.timeout_s
            if among_several:  # each is to get its share of what time there is
                timeout_s = min(timeout_s, QUERY_AMONG_SEVERAL_S, max(left_s - wait_s, 0.0) / (untried + 1))
            try:
                answer = await self.gateways.ask(request, min(wait_s + timeout_s, max(left_s, 0.0)))
            except NoConnection as error:
                # Where nobody ever listened, somebody rarely begins to within a second.
                if last or not (sent or untried):
                    raise self.gateways.unreachable(error, sent=sent and bool(key)) from error
            except Lost as error:
                sent = True
                if error.stale and left_s > 0:
                    continue  # it was idle too long, and the gateway hung up; the next is made anew
                if last:
                    raise self.gateways.unreachable(error, sent=bool(key)) from error
            else:
                passes = answer.status in AGAIN or (answer.status == TOO_MANY and not _locked_out(answer))
                later_s = answer.retry_after_s or 0.0
                if not passes or last or self.io.now() + later_s >= until:
                    return self.checked(answer)
                sent = True
                if answer.status == TOO_MANY:
                    await self.io.sleep(later_s + _jitter(turn))
                    turn += 1
                    continue  # to ask another one would be to ask for even more
            self.gateways.leave(at)
            if untried:
                untried -= 1
            else:
                await self.io.sleep(min(later_s + _jitter(turn), max(until - self.io.now(), 0.0)))
                turn += 1

    def checked(self, answer: Answer) -> Answer:
        """The answer, where it is one of a gateway and says yes. Raises ApiError, Unreachable."""
        self.saw(answer.position)
        if answer.status < 400:
            if answer.content_type.startswith("text/html"):
                raise self.not_a_gateway(answer)
            return answer
        try:
            problem = json.loads(answer.body)
            self.saw(int(problem.get("position") or 0))
            error = refusal(answer.status, problem, answer.retry_after_s)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self.not_a_gateway(answer) from None
        raise error

    def document(self, answer: Answer) -> dict[str, Any]:
        """The JSON object of an answer. Raises ApiError, Unreachable."""
        self.checked(answer)
        try:
            document = json.loads(answer.body)
        except (ValueError, RecursionError):  # brackets within brackets, deeper than any reply
            document = None
        if not isinstance(document, dict) or not isinstance(position := document.get("position") or 0, int):
            raise self.not_a_gateway(answer)
        self.saw(position)
        return document

    async def open(self, path: str) -> Wire:
        """What is endless, from whichever gateway has it. Raises ApiError, Unreachable."""
        return await self.gateways.try_each(lambda: self._open(path))

    async def _open(self, path: str) -> Wire:
        try:
            answer, wire = await self.gateways.open(Request("GET", path), self.patience.timeout_s)
        except (NoConnection, Lost) as error:
            raise self.gateways.unreachable(error) from error
        try:
            self.checked(answer)
        except ClientError:
            wire.close()
            raise
        return wire

    def not_a_gateway(self, answer: Answer) -> Unreachable:
        """What to say of an answer that no gateway gives."""
        error = Unreachable(
            f"no PVC gateway answers at {self.gateways.connection.url} (HTTP {answer.status}, {answer.content_type})",
            code="client.not_a_gateway",
            hint="check the URL and port of the connection: `pvc connection list` shows them",
        )
        error.other_kind = answer.status < 400
        return error


async def each_page(
    fetch: Callable[[Mapping[str, Any]], Awaitable[tuple[Answer, list[T], Any]]],
    query: Mapping[str, Any],
    cursor: str,
    limit: int | None,
    page: int,
) -> list[T]:
    """The items of all pages, or the first `limit`. `fetch` gives a page's answer, items, and what to ask for next."""
    items: list[T] = []
    query, following = dict(query), query.get(cursor)
    while True:
        wanted = page if limit is None else min(page, limit - len(items))
        answer, more, following = await fetch({**query, "limit": wanted, cursor: following})
        if answer.at is not None:
            # Of all pages the same moment: "two hours ago" is another one with each.
            query["at"] = str(answer.at.position)
        items += more
        if following in (None, "") or (limit is not None and len(items) >= limit):
            return items


def placed(path: str, fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A path with its fields filled in, and the fields that are left. What is None is left out."""
    given = {field: value for field, value in fields.items() if value is not None}
    for field in [field for field in given if f"{{{field}}}" in path]:
        path = path.replace(f"{{{field}}}", quote(str(given.pop(field)), safe=""))
    return path, given


def target(path: str, query: Mapping[str, Any]) -> str:
    """A path with its query. Lists go with commas; what is None or empty is left out."""
    arguments = urlencode({name: _spelt(value) for name, value in query.items() if value not in ("", None, (), [])})
    return f"{path}?{arguments}" if arguments else path


def new_key() -> str:
    """An idempotency key that nobody has used."""
    return os.urandom(16).hex()


def passes(error: ClientError) -> bool:
    """Whether it is of the kind that goes away by itself."""
    return isinstance(error, Unreachable) or (isinstance(error, ApiError) and error.status in AGAIN)


def _spelt(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(_spelt, value)) if isinstance(value, list | tuple | set | frozenset) else str(value)


def _locked_out(answer: Answer) -> bool:
    return LOCKED_OUT.encode() in answer.body


def _jitter(turn: int) -> float:
    return random.uniform(0, min(RETRY_PAUSE_S * 2**turn, MAX_PAUSE_S))  # noqa: S311 - jitter, not a secret
