"""The events as an endless iterator: a stream that is taken up again where it broke off, at whichever gateway answers.

Nothing is lost and nothing comes twice: the position of the last record (or of a bookmark, which says how far all was
looked through) is where the next gateway is asked to go on.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import urlencode

from pvc.client.api_types import RecordView
from pvc.client.errors import ApiError, ClientError, Unreachable
from pvc.client.gateways import Gateways
from pvc.client.transport import Answer, Lost, NoConnection

PATIENCE_S = 60.0
"""A stream outlives this long a silence of all gateways, such as a restart of the only one."""

HEAD_TIMEOUT_S = 20.0
"""For the reply's head: a gateway that is behind waits 10 s for what the client has seen elsewhere."""

SILENCE_S = 40.0
"""A gateway says something every 15 s; after this long its line is dead."""

PAUSE_S = 0.25
"""Doubled up to MAX_PAUSE_S after each round in which no gateway answered, and drawn at random below that."""

MAX_PAUSE_S = 5.0

NDJSON = "application/x-ndjson"

AGAIN = frozenset({503, 504})
"""What another gateway, or this one in a moment, may be able to do."""

Refusal = Callable[[Answer], ClientError]


def follow(
    gateways: Gateways,
    filters: Mapping[str, str],
    *,
    after: int,
    refusal: Refusal,
    freshness: Callable[[int], int],
    patience_s: float = PATIENCE_S,
) -> Iterator[RecordView]:
    """Records after a position. `freshness` is told each position that is reached, and says which one the client was
    told of at all. Raises ApiError, Unreachable."""
    heard, round_, untried = False, 0, gateways.others
    patient_until = time.monotonic() + patience_s
    try:
        while True:
            try:
                query = {**filters, "after": after, "min_position": freshness(after)}
                for document in _documents(gateways, query, refusal):
                    if document is not None and "end" in document:
                        raise _ended(document["end"])  # one that says no more than this has not been heard
                    heard, round_, untried = True, 0, gateways.others
                    patient_until = time.monotonic() + patience_s
                    if document is None:
                        continue
                    after = max(after, document["position"])
                    freshness(after)
                    if "bookmark" not in document:
                        yield cast("RecordView", document)
            except ClientError as error:
                passes = isinstance(error, Unreachable) or (isinstance(error, ApiError) and error.status in AGAIN)
                # Where nobody ever answered, somebody rarely begins to within a minute.
                if not passes or (not untried and (not heard or time.monotonic() > patient_until)):
                    raise
            gateways.next()
            if untried:
                untried -= 1
            else:
                time.sleep(random.uniform(0.2, 1.0) * min(PAUSE_S * 2**round_, MAX_PAUSE_S))  # noqa: S311 - jitter
                round_ += 1
    finally:
        gateways.transport.close()


def _documents(gateways: Gateways, query: Mapping[str, Any], refusal: Refusal) -> Iterator[dict[str, Any] | None]:
    """What one gateway says, document by document, and None for a sign of life; ends when the line does."""
    transport = gateways.transport
    transport.close()  # a stream begins on a fresh connection: a kept one may have died unnoticed
    path = f"/events?{urlencode({name: value for name, value in query.items() if value != ''})}"
    try:
        answer, response = transport.stream(path, timeout_s=HEAD_TIMEOUT_S, accept=NDJSON, silence_s=SILENCE_S)
    except (NoConnection, Lost) as error:
        raise gateways.unreachable(error) from error
    if response is None or answer.content_type != NDJSON:
        raise refusal(answer)
    for line in _lines(response):
        yield json.loads(line) if line else None


def _lines(response: HTTPResponse) -> Iterator[bytes]:
    """Whole lines; what a broken line leaves of one is dropped, as it comes again."""
    rest = b""
    try:
        while piece := response.read1(65536):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
    except (OSError, HTTPException):
        return


def _ended(problem: Mapping[str, Any]) -> ApiError:
    return ApiError(
        int(problem["status"]), problem["detail"], code=problem["code"], hint=problem["hint"], field=problem["field"]
    )
