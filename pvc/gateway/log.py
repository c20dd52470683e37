"""The log itself through the API: its records as they are, the keys that vouch for it, and a verification of this copy.

A verification comes in portions that the client asks for one after the other: so nothing runs on when the client is
gone, and each portion keeps the node's disk and processor for some ten milliseconds only.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_table import Action
from pvc.commands.base import require_cluster
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.lists import MAX_ITEMS, Limit, ListArguments, ListOf, Next, by_attributes
from pvc.gateway.services import GatewayServices
from pvc.log.tree_file import RootAt
from pvc.projections.log_state import LogCheckpoint, SigningKey
from pvc.projections.state import Cluster
from pvc.proof.findings import Finding, Kind, Unproven
from pvc.proof.note import check_signature, origin_of, parse_checkpoint, parse_key
from pvc.proof.scan import TILE

PORTION = 4_096
"""Records of one portion at most: some 20 ms of hashing."""

INDEX_DEADLINE_S = 10.0

Position = Annotated[int, Meta(ge=1, le=1 << 62, description="A position of the log.")]


class PortionArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records."""

    first: Position = 1
    limit: Annotated[int, Meta(ge=1, le=PORTION, description="Records at most.")] = PORTION


class VerifyArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records are verified."""

    first: Annotated[
        int, Meta(ge=1, le=1 << 62, description="Begin here, or up to 255 records before it: where a subtree begins.")
    ] = 1
    log: Annotated[bool, Meta(description="Compare with the log's own bytes too, not this node's copy alone.")] = True


class RecordPortion(msgspec.Struct, frozen=True, kw_only=True):
    """Records as they are stored."""

    position: int
    first: int
    records: Annotated[list[bytes], Meta(description="Base64 of each, in order; none: that was all.")]


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key that checkpoints are or were signed with."""

    id: str
    node: str
    key: Annotated[str, Meta(description="The public half, as C2SP writes it.")]
    added_at: Annotated[int, Meta(description="Position of the record that announced it.")]
    added_us: int
    retired_at: Annotated[int, Meta(description="Position of the record that retired it; 0 while it is in use.")]
    retired_us: int
    rotating: Annotated[bool, Meta(description="The node is to replace it.")]


class KeyListArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which keys are listed."""

    limit: Limit = MAX_ITEMS
    retired: Annotated[bool | None, Meta(description="Only those that are retired, or only the others.")] = None


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """All keys there ever were, and the newest checkpoint."""

    position: int
    origin: Annotated[str, Meta(description="The first line of every checkpoint of this log.")]
    keys: list[KeyInfo]
    next: Next
    checkpoint: Annotated[LogCheckpoint | None, Meta(description="Null: none has been signed yet.")]


class VerifiedPortion(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in some records."""

    position: int
    first: int
    last: Annotated[
        int, Meta(description="The last record looked at; ask for the next one. Before `first`: all is done.")
    ]
    compared: Annotated[int, Meta(description="Records that were compared with the log's own bytes.")]
    checkpoints: Annotated[int, Meta(description="Checkpoints among them that hold.")]
    newest_checkpoint: Annotated[int, Meta(description="The size of the newest of these; 0: none.")]
    findings: list[Finding]


async def _records(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, PortionArguments)
    position = services.world.position
    await services.history.reach(position, INDEX_DEADLINE_S)
    found = await services.history.read(arguments.first, arguments.limit)
    return json_response(RecordPortion(position=position, first=arguments.first, records=found), position)


async def _keys(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, KeyListArguments)
    state = services.world.state
    cluster = require_cluster(state)
    keys = [_key_info(key) for key in cluster.log.keys if arguments.retired in (None, bool(key.retired_at))]
    found, following = KEYS.page(keys, arguments)
    shown = KeyList(
        position=state.position,
        origin=origin_of(cluster.id),
        keys=KEYS.cut(found, arguments.fields),
        next=following,
        checkpoint=cluster.log.checkpoint,
    )
    return json_response(shown, state.position)


async def _verify(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, VerifyArguments)
    first = (arguments.first - 1) // TILE * TILE + 1
    position = services.world.position
    await services.history.reach(position, INDEX_DEADLINE_S)
    if arguments.first > services.history.position:
        return _portion(services, first, first - 1)
    look = await services.history.look(first, PORTION)
    findings = list(look.findings)
    last = first + len(look.data) - 1 if look.data else first + PORTION - 1
    compared = 0
    if arguments.log and look.data:
        compared, differing = await _compare(services, first, look.data)
        findings += differing
    cluster = require_cluster(services.world.state)
    sizes: list[int] = []
    for checkpoint in look.checkpoints:
        finding = _judge(cluster, checkpoint)
        if finding is None:
            sizes.append(parse_checkpoint(checkpoint.note).checkpoint.size)
        else:
            findings.append(finding)
    return _portion(services, first, last, compared, sizes, findings)


async def _compare(services: GatewayServices, first: int, replica: list[bytes]) -> tuple[int, list[Finding]]:
    """How many records were compared with the log's own, and those that differ."""
    findings: list[Finding] = []
    at = 0
    while at < len(replica):
        stored = await services.log.read(first + at, len(replica) - at)
        if not stored:
            break  # the log keeps only its newer records at hand
        for position, (theirs, ours) in enumerate(zip(stored, replica[at:], strict=False), first + at):
            if theirs != ours:
                message = f"record {position} of the log is not the one in this node's replica"
                findings.append(Finding(position=position, kind=Kind.COPY, message=message))
        at += len(stored)
    return at, findings


def _judge(cluster: Cluster, found: RootAt) -> Finding | None:
    """What is wrong with a checkpoint in the log, if anything."""
    try:
        signed = parse_checkpoint(found.note)
        if signed.checkpoint.origin != origin_of(cluster.id):
            raise Unproven(f"it is of another log: {signed.checkpoint.origin}", code="proof.other_log")
        check_signature(signed, [parse_key(key.key) for key in cluster.log.keys if _counts(key, found.position)])
    except Unproven as error:
        message = f"the checkpoint in record {found.position}: {error.message}"
        return Finding(position=found.position, kind=Kind.SIGNATURE, message=message)
    if found.root == signed.checkpoint.root:
        return None
    size = signed.checkpoint.size
    message = f"the checkpoint of size {size} vouches for other records than this node's replica has"
    return Finding(position=found.position, kind=Kind.ROOT, message=message)


def _counts(key: SigningKey, position: int) -> bool:
    return key.added_at < position and (not key.retired_at or position < key.retired_at)


def _portion(
    services: GatewayServices,
    first: int,
    last: int,
    compared: int = 0,
    sizes: list[int] | None = None,
    findings: list[Finding] | None = None,
) -> Response:
    position = services.world.position
    shown = VerifiedPortion(
        position=position,
        first=first,
        last=last,
        compared=compared,
        checkpoints=len(sizes or ()),
        newest_checkpoint=max(sizes or (0,)),
        findings=sorted(findings or (), key=lambda finding: finding.position),
    )
    return json_response(shown, position)


def _key_info(key: SigningKey) -> KeyInfo:
    return KeyInfo(
        id=key.id,
        node=key.node,
        key=key.key,
        added_at=key.added_at,
        added_us=key.added_us,
        retired_at=key.retired_at,
        retired_us=key.retired_us,
        rotating=bool(key.rotate),
    )


KEYS: ListOf[KeyInfo] = ListOf(
    item=KeyInfo,
    rows="keys",
    sorts=by_attributes("added_at", "retired_at", "node", "id"),
    order="added_at",
    key=lambda key: f"{key.id} {key.node} {key.added_at}",
)

LOG = (
    Endpoint(
        name="log.records",
        action=Action.LOG_READ,
        method="GET",
        path="/log/records",
        handle=_records,
        summary="Records of the log as they are stored.",
        help="From this node's replica. The chain and the tree are over exactly these bytes.",
        arguments=PortionArguments,
        reply=RecordPortion,
    ),
    Endpoint(
        name="log.keys",
        action=Action.LOG_READ,
        method="GET",
        path="/log/keys",
        handle=_keys,
        summary="The keys that vouch for the log, and the newest checkpoint.",
        help="Keep the keys outside of the cluster: a verification is worth as much as the way its keys came.",
        arguments=KeyListArguments,
        listing=KEYS,
        reply=KeyList,
    ),
    Endpoint(
        name="log.verify",
        action=Action.LOG_VERIFY,
        method="GET",
        path="/log/verify",
        handle=_verify,
        summary="Verify a portion of this node's copy of the log.",
        help="Every record is hashed anew: against the chain, the stored tree, the checkpoints and the log's own "
        "bytes. Ask on with `first` one past `last` until `last` is before `first`.",
        arguments=VerifyArguments,
        reply=VerifiedPortion,
    ),
)
