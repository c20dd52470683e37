"""What a node says of itself in its place among the others."""

from __future__ import annotations

import msgspec


class Contact(msgspec.Struct, frozen=True, kw_only=True):
    """How other nodes reach a node's gateway; empty where they cannot."""

    gateway: str = ""
    """Its URL: `https://ADDRESS:PORT`."""
    certificate: str = ""
    """Hex SHA-256 of its TLS certificate (DER): the only one to be believed there."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself to the others."""

    version: str
    position: int
    state_hash: str
    """Of its state at that position: equal on all nodes."""
    fault: str = ""
    """The code of what has stopped its fold there, if anything has."""
    unready: str = ""
    """What keeps it from saying that it is ready, if it has tried to and something does."""
    gateway: str = ""
    """See `Contact`."""
    certificate: str = ""
    archived: int = 0
    """Up to this position everything is in its own archive."""


def read_hello(data: bytes) -> Hello | None:
    """What a node says of itself; None where it is of another version and cannot be read."""
    try:
        return msgspec.json.decode(data, type=Hello)
    except msgspec.MsgspecError:
        return None


def why_unready(data: bytes) -> str:
    """What keeps the node from being ready, in words for people; empty where nothing does, or it does not say."""
    hello = read_hello(data)
    if hello is None:
        return ""
    return f"its fold has stopped: {hello.fault}" if hello.fault else hello.unready
