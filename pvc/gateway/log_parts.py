"""What other nodes may fetch here: sealed segments, the newest snapshot, and what this node's replica of the log has.

These are the only things that a node's signature opens, and they only read. They need neither a cluster nor a fold that
is up to date: nodes help each other by them when ZooKeeper is gone. Large replies are few at once, and cut off where
their reader is slow, for each is held in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pvc.archive.base import DamagedCopy, parse_blob_name
from pvc.commands.access_table import Action
from pvc.errors import InvalidInput, NotFound, PvcError, Unavailable
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.queries import NoArguments
from pvc.gateway.services import GatewayServices
from pvc.peers.parts import (
    CONTENT_DIGEST,
    MAX_RECORDS,
    MAX_SNAPSHOT_BYTES,
    RECORDS_PATH,
    REPLICA_PATH,
    SEGMENT_PATH,
    SNAPSHOT_PATH,
    SNAPSHOT_POSITION,
    SNAPSHOT_VERSION,
    ReplicaInfo,
    content_digest,
    parse_segment,
)
from pvc.projections.snapshot import StaleSnapshot, snapshot_head
from pvc.proof.frames import encode_file

OCTETS = "application/octet-stream"

PORTION_S = 20.0
"""For a reader to take a portion: slower than 100 kbit/s is slower than asking another node."""

_PORTION_BYTES = 256 * 1024

Parcel = tuple[bytes, Mapping[str, str]]
"""A body and what is said of it."""


class ReplicaArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to look."""

    position: Annotated[int, Meta(ge=0, le=1 << 62, description="At this position; 0: at the replica's end.")] = 0


class ReplicaRecordsArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records."""

    first: Annotated[int, Meta(ge=1, le=1 << 62, description="Position of the first one.")] = 1
    limit: Annotated[int, Meta(ge=1, le=MAX_RECORDS, description="Records at most; they also end at some 4 MB.")] = (
        MAX_RECORDS
    )


class _ParcelReply(Response):
    """A reply of some megabytes: made when there is a free slot, given away in portions that are waited for."""

    def __init__(self, services: GatewayServices, make: Callable[[], Awaitable[Parcel]]) -> None:
        super().__init__(media_type=OCTETS)
        self._slots = services.peers.slots
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises PvcError before anything was sent; a reader that is too slow is cut off."""
        if self._slots.locked():
            raise Unavailable(
                "this node gives as many parts of the log away as it can at once",
                code="peers.busy",
                hint="try again in a moment, or ask another node",
            )
        async with self._slots:
            body, told = await self._make()
            headers = {
                "Content-Type": OCTETS,
                "Content-Length": str(len(body)),
                CONTENT_DIGEST: content_digest(body),
                **told,
            }
            raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            for begin in range(0, max(1, len(body)), _PORTION_BYTES):
                end = begin + _PORTION_BYTES
                portion = {"type": "http.response.body", "body": body[begin:end], "more_body": end < len(body)}
                try:
                    async with asyncio.timeout(PORTION_S):
                        await send(portion)
                except TimeoutError:
                    raise Unavailable(
                        f"the reader has not taken a portion within {PORTION_S:g} s",
                        code="peers.too_slow",
                        hint="ask again, over a better line, or ask another node",
                    ) from None


async def _segment(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    text = call.request.path_params["segment"]
    archive, span = services.peers.archive, parse_segment(text)
    if span is None:
        raise InvalidInput(
            f"{text[:60]!r} is no segment", hint="give its first and last position: 1-4096", field="segment"
        )

    async def make() -> Parcel:
        problem: PvcError = NotFound(
            f"this node's archive does not have the records {span[0]} to {span[1]}",
            code="archive.not_found",
            hint="another node's may have it",
        )
        if archive is None:
            raise problem
        for name in await archive.names():
            said = parse_blob_name(name)
            if said is not None and (said.first, said.last) == span:
                try:
                    return await archive.get(name), {}
                except (DamagedCopy, NotFound) as error:
                    problem = error  # there may be another copy, compressed by another node
        raise problem

    return _ParcelReply(services, make)


async def _snapshot(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)

    def read() -> Parcel:
        file = services.peers.snapshots
        try:
            data = file.read() if file is not None else b""
            head = snapshot_head(data)
        except (OSError, StaleSnapshot) as error:
            raise _no_snapshot(str(getattr(error, "strerror", None) or error)) from error
        if len(data) > MAX_SNAPSHOT_BYTES:
            raise _no_snapshot(f"it has {len(data):,} bytes")
        told = {SNAPSHOT_POSITION: str(head.head.position), SNAPSHOT_VERSION: str(head.projection_version)}
        return data, told

    return _ParcelReply(services, lambda: asyncio.to_thread(read))


async def _replica(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, ReplicaArguments)
    history, newest = services.history, services.history.position
    position = arguments.position or newest
    data = await history.data(position) if position else None
    if position and data is None:
        raise _no_record(position, newest)
    shown = ReplicaInfo(
        position=position,
        hash=hashlib.sha256(data).hexdigest() if data is not None else "",
        root=(await history.root(position)).hex() if position else "",
        newest=newest,
        incarnation=services.peers.incarnation(),
    )
    return json_response(shown, services.world.position)


async def _records(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, ReplicaRecordsArguments)

    async def make() -> Parcel:
        found = await services.history.read(arguments.first, arguments.limit)
        if not found:
            raise _no_record(arguments.first, services.history.position)
        return await asyncio.to_thread(encode_file, arguments.first, found), {}

    return _ParcelReply(services, make)


def _no_snapshot(why: str) -> NotFound:
    return NotFound(
        f"this node has no snapshot to give: {why}",
        code="snapshot.none",
        hint="it stores one every 4,096 records, every hour, and when it stops",
    )


def _no_record(position: int, newest: int) -> NotFound:
    return NotFound(
        f"there is no record {position} in this node's replica",
        code="log.no_such_record",
        hint=f"the newest is {newest}",
        field="position",
    )


LOG_PARTS = (
    Endpoint(
        name="log.segment",
        action=Action.LOG_COPY,
        secret=True,
        method="GET",
        path=SEGMENT_PATH,
        places={
            "segment": {"type": "string", "pattern": "^[1-9][0-9]{0,17}-[1-9][0-9]{0,17}$", "examples": ["1-4096"]}
        },
        peers=True,
        before_init=True,
        handle=_segment,
        summary="A sealed segment of the log, from this node's archive.",
        help="The path says which: `1-4096`. In the format of an exported log.",
        arguments=NoArguments,
        media_type=OCTETS,
    ),
    Endpoint(
        name="log.snapshot",
        action=Action.LOG_COPY,
        secret=True,
        method="GET",
        path=SNAPSHOT_PATH,
        peers=True,
        before_init=True,
        handle=_snapshot,
        summary="This node's newest stored state.",
        help=f"`{SNAPSHOT_POSITION}` says of which position it is, `{SNAPSHOT_VERSION}` which version of the fold can "
        "read it. It has the hashes of the tokens in it.",
        arguments=NoArguments,
        media_type=OCTETS,
    ),
    Endpoint(
        name="log.replica",
        action=Action.LOG_COPY,
        method="GET",
        path=REPLICA_PATH,
        peers=True,
        before_init=True,
        handle=_replica,
        summary="What this node's copy of the log is: hash and root at a position.",
        help="Two copies that agree on both are the same up to there.",
        arguments=ReplicaArguments,
        reply=ReplicaInfo,
    ),
    Endpoint(
        name="log.replica_records",
        action=Action.LOG_COPY,
        secret=True,
        method="GET",
        path=RECORDS_PATH,
        peers=True,
        before_init=True,
        handle=_records,
        summary="Records of this node's copy of the log, in the format of an exported log.",
        help="At least one; 404 past the end.",
        arguments=ReplicaRecordsArguments,
        media_type=OCTETS,
    ),
)
