"""What a node fetches from others: one node after the other is asked until one has it, and what it sends is right.

Nothing that comes from a node is believed for being a node's: each part is checked against what is known of it already.
"""

from __future__ import annotations

import asyncio
import functools
import io
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from pvc.archive.base import MAX_BLOB_BYTES
from pvc.clock import Clock, Rng
from pvc.errors import LogDamaged, NotFound, PvcError, Unavailable
from pvc.events.record import check_follows, unseal
from pvc.peers.certificates import NodeCertificate
from pvc.peers.credentials import Question, sign
from pvc.peers.http import Answer, fetch
from pvc.peers.parts import (
    CONTENT_DIGEST,
    MAX_PORTION_BYTES,
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
    segment_of,
)
from pvc.peers.secret import PeerSecret
from pvc.presence.base import Member
from pvc.presence.hello import read_hello
from pvc.proof.findings import Unproven
from pvc.proof.frames import Block, read_file, records_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

BASE_PATH = "/api/v1"

SHORT_S = 15.0
"""For an answer of some hundred bytes, or a portion of records."""

SEGMENT_S = 60.0
"""For a segment: half a megabyte, seldom two."""

SNAPSHOT_S = 300.0

MEMBERS_S = 3.0
"""For ZooKeeper to say who is there. Presence itself would wait longer; who was there last is as good then."""

MAX_ASKED = 5
"""Nodes that are asked for one thing: each may use up its whole time."""

MAX_INFO_BYTES = 64 * 1024

_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another node whose gateway can be reached."""

    name: str
    gateway: str
    certificate: str
    position: int
    """Up to which it said last to have folded."""
    archived: int
    """Up to which it said last to have everything in its archive."""


class PeerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Another node's folded state."""

    node: str
    position: int
    version: int
    """Of the fold that made it; another version's is of no use."""
    data: bytes
    """For `pvc.projections.snapshot.restore`."""


class Peers:
    """The other nodes of the cluster, as seen from `node`."""

    def __init__(
        self,
        node: str,
        members: Callable[[], Awaitable[Mapping[str, Member]]],
        secret: PeerSecret,
        *,
        clock: Clock,
        rng: Rng,
    ) -> None:
        self._node = node
        self._members = members
        self._secret = secret
        self._clock = clock
        self._rng = rng
        self._known: tuple[Peer, ...] = ()
        self._certificate = NodeCertificate(node, secret, clock)

    async def others(self) -> tuple[Peer, ...]:
        """The nodes that are there and can be reached, in no order; those of the last time while ZooKeeper is away."""
        try:
            async with asyncio.timeout(MEMBERS_S):
                members = await self._members()
        except (Unavailable, TimeoutError):
            return self._known
        self._known = tuple(peer for name, member in members.items() if (peer := _peer(name, member)) is not None)
        self._known = tuple(peer for peer in self._known if peer.name != self._node)
        return self._known

    async def segment(self, first: int, last: int, check: Callable[[bytes], T]) -> T:
        """What `check` makes of the blob with these records, from a node that has it in its archive.

        `check` runs in a thread and raises LogDamaged for what is not the segment; then another node is asked. Raises
        Unavailable (`peers.none`).
        """
        target = SEGMENT_PATH.format(segment=segment_of(first, last))

        async def ask(peer: Peer) -> T:
            answer = await self._get(peer, target, MAX_BLOB_BYTES, SEGMENT_S)
            return await asyncio.to_thread(check, answer.body)

        return await self._first_good(f"the records {first} to {last}", lambda peer: peer.archived >= last, ask)

    async def snapshot(self, *, after: int, version: int) -> PeerSnapshot:
        """A snapshot past position `after`, made by this version of the fold. Raises Unavailable (`peers.none`)."""

        async def ask(peer: Peer) -> PeerSnapshot:
            answer = await self._get(peer, SNAPSHOT_PATH, MAX_SNAPSHOT_BYTES, SNAPSHOT_S)
            said = [answer.headers.get(name.lower(), "") for name in (SNAPSHOT_POSITION, SNAPSHOT_VERSION)]
            if not all(text.isascii() and text.isdigit() and len(text) <= 18 for text in said):
                raise _wrong(peer, "it does not say of which position it is")
            found = PeerSnapshot(node=peer.name, position=int(said[0]), version=int(said[1]), data=answer.body)
            if found.version != version or found.position <= after:
                raise _wrong(peer, f"it is of position {found.position} and version {found.version} of the fold")
            return found

        return await self._first_good("a snapshot", lambda peer: peer.position > after, ask)

    async def replica(self, peer: Peer, position: int = 0) -> ReplicaInfo:
        """What that node's replica has at a position; 0: at its end. Raises Unavailable, NotFound."""
        answer = await self._get(peer, f"{REPLICA_PATH}?position={position}", MAX_INFO_BYTES, SHORT_S, digest=False)
        try:
            return msgspec.json.decode(answer.body, type=ReplicaInfo)
        except msgspec.MsgspecError as error:
            raise _wrong(peer, f"it cannot be read: {error}") from error

    async def records(self, peer: Peer, first: int, limit: int = MAX_RECORDS) -> list[bytes]:
        """Records from that node's replica, from `first` on, at least one: dense, and each continues the one before.

        That the first one continues what the caller has is for the caller to see. Raises Unavailable, NotFound.
        """
        target = f"{RECORDS_PATH}?first={first}&limit={min(limit, MAX_RECORDS)}"
        answer = await self._get(peer, target, MAX_PORTION_BYTES, SHORT_S)
        try:
            return await asyncio.to_thread(_read_records, answer.body, first)
        except (LogDamaged, Unproven) as error:
            raise _wrong(peer, error.message) from error

    async def _first_good(self, what: str, has_it: Callable[[Peer], bool], ask: Callable[[Peer], Awaitable[T]]) -> T:
        tried: list[str] = []
        others = sorted(await self.others(), key=lambda peer: (not has_it(peer), self._rng.random()))
        for peer in others[:MAX_ASKED]:
            try:
                return await ask(peer)
            except NotFound:
                tried.append(f"{peer.name} does not have it")
            except LogDamaged as error:
                logger.warning("peers: a bad copy what=%r node=%s error=%s", what, peer.name, error.message)
                tried.append(f"{peer.name}: {error.message}")
            except PvcError as error:
                tried.append(f"{peer.name}: {error.message}")
        raise Unavailable(
            f"no other node could give {what}: {'; '.join(tried) or 'none can be reached'}",
            code="peers.none",
            hint="bring a node back that has it; nodes reach each other at gateway.listen, which needs TLS",
        )

    async def _get(self, peer: Peer, path: str, max_bytes: int, deadline_s: float, *, digest: bool = True) -> Answer:
        target = f"{BASE_PATH}{path}"
        question = Question(method="GET", target=target, to=peer.name)
        signed = sign(self._secret.value, question, node=self._node, now_s=self._clock.wall_us() // 1_000_000)
        ask = functools.partial(
            fetch,
            peer.gateway,
            peer.certificate,
            target=target,
            headers={"Authorization": signed},
            max_bytes=max_bytes,
            deadline_s=deadline_s,
        )
        try:
            answer = await ask(show=self._certificate.show_in)
        except Unavailable as error:
            if error.code != "peers.hung_up":
                raise
            # One of us has a secret that was replaced. Asked without a certificate the other one refuses, and looks.
            self._secret.doubt()
            answer = await ask()
        if answer.status != _OK:
            if answer.status == _UNAUTHORIZED:
                self._secret.doubt()
            raise _refusal(peer, answer)
        if digest and answer.headers.get(CONTENT_DIGEST.lower()) != content_digest(answer.body):
            raise _wrong(peer, "its bytes are not those that its digest says")
        return answer


def _peer(name: str, member: Member) -> Peer | None:
    hello = read_hello(member.hello)
    if hello is None or not hello.gateway or not hello.certificate:
        return None
    return Peer(
        name=name,
        gateway=hello.gateway,
        certificate=hello.certificate,
        position=hello.position,
        archived=hello.archived,
    )


def _read_records(data: bytes, first: int) -> list[bytes]:
    """The records of a portion, which begins with the one at `first`. Raises Unproven, LogDamaged."""
    blocks = [part for part in read_file(io.BytesIO(data)) if isinstance(part, Block)]
    records = list(itertools.chain.from_iterable(map(records_of, blocks)))
    _check_chain(records, first)
    return records


def _check_chain(records: Sequence[bytes], first: int) -> None:
    entries = [unseal(data) for data in records]
    if not entries or entries[0].position != first:
        raise LogDamaged(f"it does not begin with record {first}", code="log.gap")
    for before, entry in itertools.pairwise(entries):
        check_follows(entry, before.head)


def _refusal(peer: Peer, answer: Answer) -> PvcError:
    try:
        told = msgspec.json.decode(answer.body)
        why = str(told["detail"])[:300]
    except (msgspec.MsgspecError, KeyError, TypeError):
        why = f"it answers {answer.status}"
    if answer.status == _NOT_FOUND:
        return NotFound(f"{peer.name}: {why}", code="peers.not_found", hint="another node may have it")
    return Unavailable(
        f"{peer.name} refuses: {why}",
        code="peers.refused",
        hint="see that the clocks of both nodes are right, and that both are of this cluster",
    )


def _wrong(peer: Peer, why: str) -> Unavailable:
    return Unavailable(
        f"what {peer.name} sent cannot be used: {why}",
        code="peers.bad_answer",
        hint="see that the node there is well and of the same version: `pvc node list`",
    )
