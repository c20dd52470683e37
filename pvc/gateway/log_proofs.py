"""Proofs through the API: that a record is in a log that was vouched for, and that an older log begins a newer one."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_table import Action
from pvc.commands.base import require_cluster
from pvc.errors import InvalidInput, NotFound, Rejected, Unavailable
from pvc.events.cluster import LogCheckpointed
from pvc.events.registry import decode_event
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.log import Position
from pvc.gateway.records import decode_record
from pvc.gateway.services import GatewayServices
from pvc.log.history import HistoryQuery
from pvc.projections.log_state import LogCheckpoint
from pvc.projections.state import Cluster
from pvc.proof.findings import Unproven
from pvc.proof.note import check_signature, parse_checkpoint, parse_key

_CHECKPOINTS = 64
"""Checkpoints that are looked through for one of a given size: it comes within moments of that size."""

Size = Annotated[int, Meta(ge=1, le=1 << 62, description="So many records, from the first on.")]


class ProofArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be proved."""

    position: Position
    size: Annotated[
        int, Meta(ge=0, le=1 << 62, description="Of the checkpoint; 0: the newest one that has the record.")
    ] = 0


class ConsistencyArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which two sizes."""

    old: Size
    new: Annotated[int, Meta(ge=0, le=1 << 62, description="0: the newest checkpoint.")] = 0


class InclusionProof(msgspec.Struct, frozen=True, kw_only=True):
    """That a record is in the log which a checkpoint vouches for: all that is needed to verify it elsewhere."""

    format: str
    position: int
    record: Annotated[bytes, Meta(description="Its stored bytes, in Base64.")]
    size: int
    root: str
    proof: Annotated[list[str], Meta(description="RFC 9162, 2.1.3: from the leaf up, in hex.")]
    checkpoint: Annotated[str, Meta(description="The signed note of this size; empty where none was signed.")]
    key: Annotated[str, Meta(description="What it is signed with, as the log says. Trust one that you have kept.")]


class ConsistencyProof(msgspec.Struct, frozen=True, kw_only=True):
    """That an older log is the beginning of a newer one."""

    format: str
    old: int
    new: int
    old_root: str
    new_root: str
    proof: Annotated[list[str], Meta(description="RFC 9162, 2.1.4, in hex.")]
    old_checkpoint: str
    new_checkpoint: str
    key: str


async def _prove(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, ProofArguments)
    cluster = require_cluster(services.world.state)
    position = arguments.position
    if position > services.world.position:
        raise NotFound(
            f"there is no record {position}",
            code="log.no_such_record",
            hint=f"the newest is {services.world.position}",
            field="position",
        )
    size = arguments.size or _newest(cluster).size
    if size < position or size > services.world.position:
        raise Rejected(
            f"record {position} is not in a checkpoint of size {size}",
            code="log.not_checkpointed",
            hint="the next checkpoint comes within a minute; then ask again",
            field="size",
        )
    proof = await _proved(services.history.inclusion(position, size))
    root, note = await services.history.root(size), await _note_of(services, size)
    (record,) = await services.history.read(position, 1)
    shown = InclusionProof(
        format="pvc-inclusion-1",
        position=position,
        record=record,
        size=size,
        root=root.hex(),
        proof=[each.hex() for each in proof],
        checkpoint=note,
        key=_key_of(cluster, note),
    )
    return json_response(shown, services.world.position)


async def _prove_consistency(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, ConsistencyArguments)
    cluster = require_cluster(services.world.state)
    old, new = arguments.old, arguments.new or _newest(cluster).size
    if not old <= new <= services.world.position:
        raise InvalidInput(
            f"a log of {old} records is no beginning of one of {new}",
            code="log.bad_sizes",
            hint=f"give the older size first; there are {services.world.position} records",
            field="old",
        )
    proof = await _proved(services.history.consistency(old, new))
    notes = await _note_of(services, old), await _note_of(services, new)
    shown = ConsistencyProof(
        format="pvc-consistency-1",
        old=old,
        new=new,
        old_root=(await services.history.root(old)).hex(),
        new_root=(await services.history.root(new)).hex(),
        proof=[each.hex() for each in proof],
        old_checkpoint=notes[0],
        new_checkpoint=notes[1],
        key=_key_of(cluster, notes[1]),
    )
    return json_response(shown, services.world.position)


async def _proved(made: Awaitable[list[bytes]]) -> list[bytes]:
    try:
        return await made
    except Unproven as error:
        raise InvalidInput(error.message, code="log.bad_sizes", hint=error.hint) from error


def _newest(cluster: Cluster) -> LogCheckpoint:
    if cluster.log.checkpoint is None:
        raise Unavailable(
            "no checkpoint of the log has been signed yet",
            code="log.no_checkpoint",
            hint="the first comes within a minute after a coordinator is ready: `pvc log keys`",
        )
    return cluster.log.checkpoint


async def _note_of(services: GatewayServices, size: int) -> str:
    """The signed note of this size; empty where there is none."""
    query = HistoryQuery(types=(LogCheckpointed.TYPE,), after=size, limit=_CHECKPOINTS, ascending=True)
    for found in await services.history.query(query):
        for raw in decode_record(found.data).events:
            event = decode_event(raw) if raw.type == LogCheckpointed.TYPE else None
            if isinstance(event, LogCheckpointed) and event.size == size:
                return event.note
    return ""


def _key_of(cluster: Cluster, note: str) -> str:
    if not note:
        return ""
    try:
        return str(check_signature(parse_checkpoint(note), [parse_key(key.key) for key in cluster.log.keys]))
    except Unproven:
        return ""


PROOFS = (
    Endpoint(
        name="log.prove",
        action=Action.LOG_READ,
        method="GET",
        path="/log/proof",
        handle=_prove,
        summary="The proof that a record is in the log which a checkpoint vouches for.",
        help="It can be verified anywhere, with the public key alone.",
        arguments=ProofArguments,
        reply=InclusionProof,
    ),
    Endpoint(
        name="log.consistency",
        action=Action.LOG_READ,
        method="GET",
        path="/log/consistency",
        handle=_prove_consistency,
        summary="The proof that an older checkpoint is of the beginning of the same log.",
        arguments=ConsistencyArguments,
        reply=ConsistencyProof,
    ),
)
