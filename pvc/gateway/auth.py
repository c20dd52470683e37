"""Who is asking, and may they: bearer tokens over TCP, root over the Unix socket, roles, a brake on failed logins."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections import OrderedDict

import msgspec
from starlette.requests import HTTPConnection

from pvc.clock import Clock, Rng
from pvc.errors import Forbidden, Unauthenticated
from pvc.events.record import Actor
from pvc.events.types import Role
from pvc.gateway.problems import TooManyFailures
from pvc.peers.credentials import Question, check, is_signed
from pvc.peers.secret import PeerSecret
from pvc.projections.state import ClusterState

logger = logging.getLogger(__name__)

LOCAL = "pvc.local"
"""The key that the Unix socket's wrapper sets in the ASGI scope; no request can set it."""

FAILURES_ALLOWED = 10
"""Failed logins in a row that an address may have before it has to wait; a person who mistypes has fewer."""

SECONDS_PER_FAILURE = 6.0
"""How long it takes until one failure is forgiven: ten a minute."""

MAX_ADDRESSES = 10_000
"""Addresses whose failures are remembered; the one not seen for longest is forgotten first."""

_ROLES = list(Role)
_NOBODY = hashlib.sha256(b"").hexdigest()
_TOKEN = re.compile(r"pvc_([0-9a-z]{8,32})_([\x21-\x7e]{16,128})")
_SOURCE = re.compile(r"[\x21-\x7e]{1,64}")


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking."""

    actor: Actor
    role: Role
    token: str = ""
    """The id of the token; empty for who came without one."""


class Doorkeeper:
    """Tells who is asking. A right token always opens, however many wrong ones came from the same address before:
    nobody can lock another out, and 256 random bits are not guessed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Address -> (failures not yet forgiven, when that was counted)."""

    def admit(self, connection: HTTPConnection, state: ClusterState) -> Principal:
        """Who sent this. Raises Unauthenticated, or TooManyFailures."""
        source = connection.headers.get("pvc-source", "api")
        source = source if _SOURCE.fullmatch(source) else "api"
        if connection.scope.get(LOCAL) is True:
            return Principal(actor=Actor(principal="root", method="socket", source=source), role=Role.ADMIN)
        address = connection.client.host if connection.client else ""
        if state.cluster is None:
            raise Unauthenticated(
                "there is no cluster yet",
                code="cluster.not_initialised",
                hint="`pvc cluster init NAME`, as root on the node, makes one and its first token",
            )
        return self._by_token(connection.headers.get("authorization", ""), address, source, state)

    def admit_peer(self, connection: HTTPConnection, node: str, secret: PeerSecret | None) -> Principal | None:
        """The other node that signed this for `node`; None where nobody says that. Raises Unauthenticated, or
        TooManyFailures. It needs no state, so that nodes can help each other while the log cannot be reached."""
        authorization = connection.headers.get("authorization", "")
        if not is_signed(authorization):
            return None
        address = connection.client.host if connection.client else ""
        query = connection.scope["query_string"].decode("latin-1")
        path = connection.scope.get("raw_path", b"").decode("latin-1")
        question = Question(method=connection.scope["method"], target=f"{path}?{query}" if query else path, to=node)
        try:
            if secret is None or not secret.value:
                raise Unauthenticated(
                    "this node has no secret in common with others",
                    code="access.peer_invalid",
                    hint="nodes have one where the log is in ZooKeeper",
                )
            peer = check(secret.value, question, authorization, now_s=self._clock.wall_us() // 1_000_000)
        except Unauthenticated as error:
            if secret is not None:
                secret.doubt()
            logger.warning("peer refused address=%s code=%s", address, error.code)
            self._count_failure(address)
            raise
        actor = Actor(principal=f"node/{peer}", method="peer", address=address, source="node")
        return Principal(actor=actor, role=Role.VIEWER)

    def _by_token(self, authorization: str, address: str, source: str, state: ClusterState) -> Principal:
        scheme, _, credentials = authorization.partition(" ")
        if not authorization or scheme.lower() != "bearer":
            raise Unauthenticated(
                "no token came with the request",
                hint="send `Authorization: Bearer pvc_...`; `pvc connection add` keeps the token for you",
            )
        found = _TOKEN.fullmatch(credentials.strip())
        token = state.tokens.get(found[1]) if found else None
        # The same work whether the id is known or not, so that the time tells nothing.
        given = hashlib.sha256((found[2] if found else "").encode()).hexdigest()
        right = hmac.compare_digest(given, token.secret_sha256 if token else _NOBODY)
        if token is None or not right:
            self._count_failure(address)
            logger.warning("login refused address=%s token=%s", address, token.id if token else "unknown")
            raise Unauthenticated(
                "the token is not valid",
                code="access.token_invalid",
                hint="use the token as it was shown when it was made, beginning with pvc_",
            )
        actor = Actor(principal=token.principal, method="token", address=address, source=source)
        return Principal(actor=actor, role=token.role, token=token.id)

    def _count_failure(self, address: str) -> None:
        now = self._clock.monotonic()
        failures, since = self._failures.pop(address, (0.0, now))
        failures = max(0.0, failures - (now - since) / SECONDS_PER_FAILURE)
        if failures + 1 > FAILURES_ALLOWED:
            self._failures[address] = (failures, now)
            raise TooManyFailures(1 + int((failures + 1 - FAILURES_ALLOWED) * SECONDS_PER_FAILURE))
        self._failures[address] = (failures + 1, now)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def require_role(principal: Principal, role: Role) -> None:
    """Raise Forbidden unless the principal has this role or a higher one."""
    if _ROLES.index(principal.role) < _ROLES.index(role):
        raise Forbidden(
            f"{principal.actor.principal} is {principal.role.value}; this needs {role.value}",
            hint="use a token with that role",
        )


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was just made."""

    id: str
    sha256: str
    """Hex SHA-256 of the secret: what the log keeps."""
    shown: str
    """The whole token, shown once and kept nowhere."""


def make_token(rng: Rng) -> NewToken:
    """A token of 256 random bits."""
    token_id, secret = rng.randbytes(6).hex(), rng.randbytes(32).hex()
    return NewToken(id=token_id, sha256=hashlib.sha256(secret.encode()).hexdigest(), shown=f"pvc_{token_id}_{secret}")
