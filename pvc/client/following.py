"""The events from a position on: a stream that is taken up again where it broke off, at whichever gateway answers.

Nothing is lost and nothing comes twice: the position of the last record (or of a bookmark, which says how far all was
looked through) is where the next gateway is asked to go on.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from pvc.client.core import AGAIN, Core, target
from pvc.client.errors import ApiError, ClientError, ReplyTooLarge, Unreachable, refusal
from pvc.client.gateways import Gateways
from pvc.client.transport import Answer, Lost, NoConnection, Request, Wire

PATIENCE_S = 60.0
"""A stream outlives this long a silence of all gateways, such as a restart of the only one."""

HEAD_TIMEOUT_S = 20.0
"""For the reply's head: a gateway that is behind waits 10 s for what the client has seen elsewhere."""

SILENCE_S = 40.0
"""A gateway says something every 15 s; after this long its line is dead."""

PAUSE_S = 0.25
"""Doubled up to MAX_PAUSE_S after each round in which no gateway answered, and drawn at random below that."""

MAX_PAUSE_S = 5.0

MAX_LINE_BYTES = 4 << 20
"""Of one line of the stream: the largest record has 256 KB, and a sentence for each of its events."""

PAGE = 1000
"""Records of a page, where the past alone is read."""

NDJSON = "application/x-ndjson"


class Reading(Protocol):
    """Records, one after the other."""

    position: int
    """Everything up to here was considered: give it as `after` to go on another time."""

    async def start(self) -> None:
        """Find out what "now" is, where it begins there. Otherwise `next` does so. Raises ApiError, Unreachable."""

    async def next(self) -> dict[str, Any] | None:
        """The next record; None where there are no more. Raises ApiError, Unreachable."""

    def close(self) -> None:
        """End it, also for another thread or task that waits for the next."""


class Following:
    """Records after a position, without an end."""

    def __init__(
        self, core: Core, filters: Mapping[str, Any], *, after: int | None, patience_s: float = PATIENCE_S
    ) -> None:
        self.position = after or 0
        self._from_now = after is None
        self._core = core
        self._gateways = Gateways(core.io, core.connection, core.source, timeout_s=core.patience.timeout_s)
        self._filters = filters
        self._patience_s = patience_s
        self._patient_until: float | None = None
        """Counted while we listen: what the program does between two records is no silence of the gateways."""
        self._heard = False
        self._round, self._untried = 0, self._gateways.others
        self._wire: Wire | None = None
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._closed = False

    async def start(self) -> None:
        """See `Reading`."""
        if self._from_now:
            await self._core.query("/whoami", {})
            self.position, self._from_now = self._core.position, False

    async def next(self) -> dict[str, Any] | None:
        """See `Reading`."""
        await self.start()
        while not self._closed:
            if self._patient_until is None:
                self._patient_until = self._core.io.now() + self._patience_s
            try:
                line = await self._line()
                document = self._document(line) if line else {}
                if "end" in document:
                    raise _ended(document["end"])  # one that says no more than this has not been heard
                if line is None:
                    raise Unreachable(f"the gateway at {self._gateways.connection.url} has ended the stream of events")
            except ClientError as error:
                if self._closed:
                    break
                passes = isinstance(error, Unreachable) or (isinstance(error, ApiError) and error.status in AGAIN)
                # Where nobody ever answered, somebody rarely begins to within a minute.
                patient = self._heard and self._core.io.now() <= self._patient_until
                if not passes or not (self._untried or patient):
                    raise
                await self._to_the_next()
                continue
            self._heard, self._round, self._untried = True, 0, self._gateways.others
            self._patient_until = None
            if not document:
                continue  # a sign of life
            self.position = max(self.position, document["position"])
            self._core.saw(self.position)
            if "bookmark" not in document:
                return document
        self._hang_up()
        return None

    def close(self) -> None:
        """See `Reading`."""
        self._closed = True
        if (wire := self._wire) is not None:
            wire.close()  # the rest is for who reads from it, perhaps in another thread

    def __del__(self) -> None:
        # Left in the middle of a loop. Where the event loop has ended too, there is nothing left to close.
        with contextlib.suppress(RuntimeError, AttributeError):
            self._hang_up()

    async def _to_the_next(self) -> None:
        self._hang_up()
        self._gateways.leave(self._gateways.at)
        if self._untried:
            self._untried -= 1
            return
        longest_s = min(PAUSE_S * 2**self._round, MAX_PAUSE_S)
        self._round += 1
        await self._core.io.sleep(random.uniform(0, longest_s))  # noqa: S311 - jitter, not a secret

    async def _line(self) -> bytes | None:
        """The next whole line; None where the line broke: what it leaves of one is dropped, as it comes again."""
        try:
            while not self._lines:
                wire = self._wire
                if wire is None:
                    wire = self._wire = await self._open()
                piece = b"" if self._closed else await wire.piece(SILENCE_S)
                if not piece:
                    return None
                *lines, self._rest = (self._rest + piece).split(b"\n")
                self._lines += lines
                if len(self._rest) > MAX_LINE_BYTES:
                    where = self._gateways.connection.url
                    raise ReplyTooLarge(f"a line of the events of {where} has more than {MAX_LINE_BYTES >> 20} MiB")
        except Lost:
            return None
        except BaseException:
            self._hang_up()  # given up in the middle, by a timeout or a cancellation: it can be asked for more later
            raise
        return self._lines.popleft()

    def _document(self, line: bytes) -> dict[str, Any]:
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            return document
        where = self._gateways.connection.url
        raise Unreachable(f"what {where} tells is no stream of events", code="client.not_a_gateway")

    async def _open(self) -> Wire:
        query = {**self._filters, "after": self.position, "min_position": self._core.saw(self.position)}
        request = Request("GET", target("/events", query), accept=NDJSON)
        try:
            answer, wire = await self._gateways.open(request, HEAD_TIMEOUT_S)
        except (NoConnection, Lost) as error:
            raise self._gateways.unreachable(error) from error
        if answer.status >= 400 or answer.content_type != NDJSON:
            wire.close()
            raise self._refusal(answer)
        return wire

    def _refusal(self, answer: Answer) -> ClientError:
        try:
            self._core.checked(answer)
        except ClientError as error:
            return error
        where = self._gateways.connection.url
        return Unreachable(f"the gateway at {where} knows no event stream", hint="update PVC on that node")

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._lines.clear()
        self._rest = b""


class Catching:
    """Records after a position, up to what there is when the reading begins."""

    def __init__(self, core: Core, filters: Mapping[str, Any], *, after: int | None) -> None:
        self.position = after or 0
        self._core = core
        self._filters = filters
        self._until: int | None = None
        self._records: deque[dict[str, Any]] = deque()
        self._closed = False

    async def start(self) -> None:
        """See `Reading`."""

    async def next(self) -> dict[str, Any] | None:
        """See `Reading`."""
        wait_s = 0
        while not self._closed and not self._records:
            if self._until is not None and self.position >= self._until:
                return None
            query = {**self._filters, "after": self.position, "wait_s": wait_s, "limit": PAGE}
            page = self._core.document(await self._core.query("/events", query))
            if self._until is None:
                self._until = page["position"]
            self._records += [record for record in page["records"] if record["position"] <= self._until]
            if not self._records:
                # A gateway looks through the past in portions; where it got no further, it is to take its time.
                wait_s = 0 if page["next_after"] > self.position else 1
                self.position = max(self.position, min(page["next_after"], self._until))
        if self._closed:
            return None
        record = self._records.popleft()
        self.position = record["position"]
        return record

    def close(self) -> None:
        """See `Reading`."""
        self._closed = True


def _ended(problem: dict[str, Any]) -> ApiError:
    return refusal(int(problem["status"]), problem)
