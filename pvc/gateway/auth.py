"""Who is asking: bearer tokens over TCP, root over the Unix socket, other nodes; and a brake on failed logins.

What they may do is decided in `pvc.gateway.warden`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from starlette.requests import HTTPConnection
from starlette.types import Scope

from pvc.clock import Clock, Rng
from pvc.commands.access_rights import Asker
from pvc.errors import Unauthenticated
from pvc.events.record import Actor
from pvc.gateway.problems import TooManyFailures
from pvc.peers.credentials import Question, check, is_signed
from pvc.peers.secret import PeerSecret
from pvc.projections.access_state import Token
from pvc.projections.state import ClusterState

logger = logging.getLogger(__name__)

LOCAL = "pvc.local"
"""The key that the Unix socket's wrapper sets in the ASGI scope; no request can set it."""

KNOWN = "pvc.known"
"""The key of a function that the server sets in the ASGI scope: to be called with the principal once the caller has
shown who they are, so that the connection is not taken for a stranger's; with None where it is, or is again."""

ADMITTED = "pvc.admitted"
"""The key that is set in the ASGI scope once the caller has shown who they are: nobody else is told people's names."""

NODE_SHOWN = "pvc.node_shown"
"""The key in the ASGI scope of the node whose certificate came in the TLS handshake; set by the server alone."""

FAILURES_ALLOWED = 10
"""Failed logins in a row that an address may have before it has to wait; a person who mistypes has fewer."""

SECONDS_PER_FAILURE = 6.0
"""How long it takes until one failure is forgiven: ten a minute."""

MAX_ADDRESSES = 10_000
"""Addresses whose failures are remembered; the one not seen for longest is forgotten first."""

NO_TOKEN = "-"  # noqa: S105 - no secret
"""In place of a token's id, for who has none and is not root: it is allowed nothing by any role."""

_NOBODY = hashlib.sha256(b"").hexdigest()
_TOKEN = re.compile(r"pvc_([0-9a-z]{8,32})_([\x21-\x7e]{16,128})")
_SOURCE = re.compile(r"[\x21-\x7e]{1,64}")


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking."""

    actor: Actor
    asker: Asker
    """As the decision about access knows them."""


Refused = Callable[[str, str, str], None]
"""Told of a refused login: the token's id where there is such a token, why, and the address."""


class Doorkeeper:
    """Tells who is asking. A right token always opens, however many wrong ones came from the same address before:
    nobody can lock another out, and 256 random bits are not guessed."""

    def __init__(self, clock: Clock, on_refused: Refused = lambda *_: None) -> None:
        self._clock = clock
        self._on_refused = on_refused
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Address -> (failures not yet forgiven, when that was counted)."""

    def admit(self, connection: HTTPConnection, state: ClusterState) -> Principal:
        """Who sent this. Raises Unauthenticated, or TooManyFailures."""
        connection.scope.pop(ADMITTED, None)  # who waited is asked again
        source = connection.headers.get("pvc-source", "api")
        source = source if _SOURCE.fullmatch(source) else "api"
        if connection.scope.get(LOCAL) is True:
            connection.scope[ADMITTED] = True
            return Principal(actor=Actor(principal="root", method="socket", source=source), asker=Asker())
        address = connection.client.host if connection.client else ""
        if state.cluster is None:
            raise Unauthenticated(
                "there is no cluster yet",
                code="cluster.not_initialised",
                hint="`pvc cluster init NAME`, as root on the node, makes one and its first token",
            )
        principal = self._by_token(connection.headers.get("authorization", ""), address, source, state)
        _is_known(connection, principal.asker.shown)
        return principal

    def stranger(self, connection: HTTPConnection) -> Principal:
        """Who sent this, where it is for those who are not known yet."""
        source = connection.headers.get("pvc-source", "api")
        address = connection.client.host if connection.client else ""
        actor = Actor(
            principal="", method="none", address=address, source=source if _SOURCE.fullmatch(source) else "api"
        )
        return Principal(actor=actor, asker=Asker(token=NO_TOKEN, shown="somebody"))

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
            if connection.scope.get(NODE_SHOWN, "") != peer:
                raise Unauthenticated(
                    f"node {peer} has signed this, but has not shown its certificate in the TLS handshake",
                    code="access.peer_certificate",
                    hint="nodes ask each other directly, with no proxy between that ends TLS, and by the same secret",
                )
            _is_known(connection, f"node/{peer}")
        except Unauthenticated as error:
            if secret is not None:
                secret.doubt()
            logger.warning("peer refused address=%s code=%s", address, error.code)
            self.count_failure(address)
            raise
        actor = Actor(principal=f"node/{peer}", method="peer", address=address, source="node")
        return Principal(actor=actor, asker=Asker(token=NO_TOKEN, shown=actor.principal))

    def _by_token(self, authorization: str, address: str, source: str, state: ClusterState) -> Principal:
        scheme, _, credentials = authorization.partition(" ")
        if not authorization or scheme.lower() != "bearer":
            raise Unauthenticated(
                "no token came with the request",
                hint="send `Authorization: Bearer pvc_...`; `pvc connection add` keeps a token for you, and "
                "`pvc login` gets one where people log in at an issuer",
            )
        found = _TOKEN.fullmatch(credentials.strip())
        token = state.tokens.get(found[1]) if found else None
        # The same work whether the id is known or not, so that the time tells nothing.
        given = hashlib.sha256((found[2] if found else "").encode()).hexdigest()
        right = hmac.compare_digest(given, token.secret_sha256 if token else _NOBODY)
        if token is None or not right:
            logger.warning("login refused address=%s token=%s", address, token.id if token else "unknown")
            self._on_refused(token.id if token else "", "access.token_invalid", address)
            self.count_failure(address)
            raise Unauthenticated(
                "the token is not valid",
                code="access.token_invalid",
                hint="use the token as it was shown when it was made, beginning with pvc_",
            )
        if token.expired(self._clock.wall_us()):
            # Told to who has the secret alone. It does not count as a failure: nobody guesses here.
            logger.warning("login refused address=%s token=%s expired", address, token.id)
            self._on_refused(token.id, "access.token_expired", address)
            raise Unauthenticated(
                f"the token {token.id} has expired",
                code="access.token_expired",
                hint=_after_expiry(token, state),
            )
        actor = Actor(principal=token.principal, method="token", address=address, source=source)
        return Principal(actor=actor, asker=Asker(token=token.id, shown=token.principal))

    def count_failure(self, address: str) -> None:
        """Note a failed login from this address. Raises TooManyFailures where there were too many of late."""
        now = self._clock.monotonic()
        failures, since = self._failures.pop(address, (0.0, now))
        failures = max(0.0, failures - (now - since) / SECONDS_PER_FAILURE)
        if failures + 1 > FAILURES_ALLOWED:
            self._failures[address] = (failures, now)
            raise TooManyFailures(1 + int((failures + 1 - FAILURES_ALLOWED) * SECONDS_PER_FAILURE))
        self._failures[address] = (failures + 1, now)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def _is_known(connection: HTTPConnection, whose: str) -> None:
    connection.scope[ADMITTED] = True
    tell_whose(connection.scope, whose)


def tell_whose(scope: Scope, whose: str | None) -> None:
    """Tell the server whose connection a request came by; None: a stranger's, whoever it was before."""
    tell = scope.get(KNOWN)
    if callable(tell):
        tell(whose)


def _after_expiry(token: Token, state: ClusterState) -> str:
    owner = state.principals.get(token.principal)
    if owner is not None and owner.identity:
        return "log in again: pvc login"
    if token.replaced_by:
        return f"use {token.replaced_by}, which has taken its place"
    return "an admin makes a new one: pvc access token create NAME"


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
