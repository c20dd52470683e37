"""How a node proves to another's gateway that it is one of the cluster: a keyed hash over the request. Pure.

    Authorization: PVC-Peer <node> <seconds since 1970> <hex HMAC-SHA256>

The hash is over what is asked, of whom, by whom and when. So the secret itself never goes over the wire, and what was
overheard can be repeated only for the same question to the same node, for some minutes. All questions only read.
"""

from __future__ import annotations

import hashlib
import hmac
import re

import msgspec

from pvc.errors import Unauthenticated

SCHEME = "PVC-Peer"

MAX_SKEW_S = 300
"""Between the clocks of two nodes; many times what an unsynchronised clock drifts in a day."""

_CONTEXT = "PVC-Peer 1"
"""What is hashed begins with this, so that no other use of the secret can ever make the same text."""

_CREDENTIALS = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?) ([0-9]{1,12}) ([0-9a-f]{64})")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request of one node to another."""

    method: str
    target: str
    """Path and query, as they stand in the request's first line."""
    to: str
    """The node that is asked."""


def sign(secret: bytes, question: Question, *, node: str, now_s: int) -> str:
    """The value of the header `Authorization`."""
    return f"{SCHEME} {node} {now_s} {_digest(secret, question, node, str(now_s))}"


def is_signed(authorization: str) -> bool:
    """Whether somebody says that it is a node."""
    return authorization.partition(" ")[0].lower() == SCHEME.lower()


def check(secret: bytes, question: Question, authorization: str, *, now_s: int) -> str:
    """The name of the node that signed this. Raises Unauthenticated."""
    found = _CREDENTIALS.fullmatch(authorization.partition(" ")[2])
    node, said_s, given = (found[1], found[3], found[4]) if found else ("?", "0", "")
    # The same work whether it can be read or not, so that the time tells nothing.
    if not hmac.compare_digest(_digest(secret, question, node, said_s), given):
        raise Unauthenticated(
            "this is not signed by a node of this cluster, or not for this one",
            code="access.peer_invalid",
            hint="nodes of one cluster read the same secret in ZooKeeper; `pvcd` reads it again by itself",
        )
    if abs(int(said_s) - now_s) > MAX_SKEW_S:
        raise Unauthenticated(
            f"node {node} signed this {now_s - int(said_s)} s ago by this node's clock",
            code="access.peer_clock",
            hint=f"the clocks of two nodes may differ by {MAX_SKEW_S} s; see that both are synchronised",
        )
    return node


def _digest(secret: bytes, question: Question, node: str, said_s: str) -> str:
    parts = (_CONTEXT, question.method, question.target, question.to, node, said_s)
    return hmac.new(secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()
