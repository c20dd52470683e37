"""The Presence protocol: which nodes are there, who is first among them, and how surely I am still one of them.

A node's place is tied to a session that dies of silence. What the others see of a place (`members`) and what its holder
knows of it (`lease_left_s`) err on opposite sides: the holder's lease is over before anyone can see the place gone.
Nothing in here is part of the history; what matters in it is appended to the log by whoever acts on it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from pvc.errors import Conflict, Unavailable

SESSION_TIMEOUT_S = 10.0
"""A node that is silent for so long is gone. Shorter would take a busy machine for a dead one."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is there."""

    name: str
    session: str
    """Another one whenever the node came anew, however quickly."""
    hello: bytes
    """What the node says of itself."""


class Presence(Protocol):
    """One daemon's session with those who watch over the living.

    A client is made for one machine: `machine` is a random text that the machine keeps. A daemon that was started anew
    on it takes its predecessor's place at once, while another machine of the same name is refused.
    All calls may be repeated. They raise Unavailable (`presence.unreachable`) when no majority of the servers answers
    within the session's time-out, and (`presence.closed`) after `close`.
    """

    @property
    def session_timeout_s(self) -> float:
        """How long a session outlives its last sign of life, as granted; before the first contact, as asked for."""
        ...

    async def join(self, name: str, hello: bytes) -> None:
        """Take the place of node `name`, or replace this machine's earlier one without a moment's absence.

        Raises Conflict (`presence.name_taken`) when a live session of another machine has the place.
        """
        ...

    async def leave(self) -> None:
        """Give place and primaryship up at once, for a node that is removed. Not for a daemon that stops."""
        ...

    async def update(self, hello: bytes) -> None:
        """Say something else in the place held; no hint to others. Raises Unavailable (`presence.not_joined`)."""
        ...

    @property
    def joined(self) -> bool:
        """Whether the present session holds our place as far as is known: no longer after expiry, until `join`.

        Without a connection nothing new becomes known: it stays True, and only `lease_left_s` runs down.
        """
        ...

    def lease_left_s(self) -> float:
        """For so long the place held is surely ours, whatever becomes of the network; 0.0 if that is not sure.

        Never optimistic; see `pvc.presence.lease`. A process may be stopped between this answer and the act that it
        allows, so an act that lasts or comes late needs a fence as well.
        """
        ...

    async def members(self) -> dict[str, Member]:
        """Who is there, by name: not behind anything that was acknowledged to anyone before the call."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Hints that members, primary or own session may have changed: one at once, then one after each change.

        Several changes may come as one hint, and a hint may mean nothing; updated hellos and telemetry give none.
        Outages are waited out. Raises Unavailable (`presence.closed`) after `close`.
        """
        ...

    async def claim_primary(self, name: str) -> bool:
        """Be the primary if there is none, or if it is an earlier session of this machine. Whether this session is it.

        Only a suggestion: a primary that was cut off does not know at once that it was followed by another. False
        without a place of our own.
        """
        ...

    async def resign_primary(self) -> None:
        """Let another be primary; nothing if this session is not."""
        ...

    async def primary(self) -> str:
        """The primary's name, as up to date as `members`; empty if there is none."""
        ...

    async def publish(self, telemetry: bytes) -> None:
        """Replace this node's telemetry. Raises Unavailable (`presence.not_joined`)."""
        ...

    async def telemetry(self) -> dict[str, bytes]:
        """The last telemetry of each node, there or not; perhaps a moment old."""
        ...

    async def forget(self, name: str) -> None:
        """Delete the telemetry of a removed node; nothing if there is none."""
        ...

    async def close(self, *, expire: bool = True) -> None:
        """Go. With `expire` the place stays until the session dies of silence, so that a restart may go unnoticed.

        Without, the session ends, and with it the place and primaryship.
        """
        ...


def name_taken(name: str) -> Conflict:
    """The refusal of a place that another machine holds."""
    return Conflict(
        f"another machine is there as node {name!r}",
        code="presence.name_taken",
        hint="stop the daemon there, or give this node another name; a machine that is gone is forgotten in seconds",
    )


def not_joined() -> Unavailable:
    """What needs a place of our own, while there is none."""
    return Unavailable(
        "this node has no place in the cluster at the moment",
        code="presence.not_joined",
        hint="its session expired; it comes back by itself",
    )


def unreachable(deadline_s: float) -> Unavailable:
    """What a call gets when nobody answers in time."""
    return Unavailable(
        f"no answer about presence within {deadline_s:g} s",
        code="presence.unreachable",
        hint="see that a majority of ZooKeeper's servers runs and can be reached",
    )


def closed() -> Unavailable:
    """What every call gets after `close`."""
    return Unavailable("presence is closed: the daemon is stopping", code="presence.closed", hint="open it again")
