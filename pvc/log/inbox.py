"""The Inbox protocol: where reports wait for the one appender that takes them into the log for all nodes.

A node in a crowd lays its reports in; the primary commits them. A report and its record change places in one step: it
leaves the inbox with the very append that has its record. So whoever dies, it is in the inbox, or in the log, or its
sender has taken it back. Every backend passes tests/contract/inbox_contract.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from pvc.errors import Conflict, Unavailable
from pvc.events.record import Actor, Entry, Head

MAX_REPORT_BYTES = 16 * 1024
"""One report as it lies in the inbox. The largest quote some hundred characters of a hypervisor's complaint."""

MAX_PUT = 32
"""Reports laid in together: so many of the largest fit into one of ZooKeeper's requests."""

MAX_WAITING = 200
"""Reports read from the inbox at once: as many as one append takes."""


class Forwarded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A report on its way to the one who appends for all. Never changed once it is laid in."""

    id: str
    """Its command id: the record that it becomes carries it, so nothing is ever recorded twice."""
    node: str
    """The node that found it out; the record's origin."""
    name: str
    """What kind of report it is: `vm.report_running`."""
    report: msgspec.Raw
    """Its fields, as JSON."""
    actor: Actor
    cause: str = ""
    seen: int
    """How far its node had folded the log when it made the report."""

    @property
    def key(self) -> str:
        """Its name in the inbox. The same report laid in again has the same, so it is there once."""
        return f"{self.node}-{self.id}"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the inbox."""

    key: str
    report: Forwarded | None
    """None: it cannot be read."""


class Overtaken(Conflict):
    """A report is no longer in the inbox: its sender took it back, or another committed it. Nothing was written."""

    default_code = "log.overtaken"


class Inbox(Protocol):
    """One process's client of the cluster's inbox.

    All calls may be repeated. They wait out an outage up to a deadline and then raise Unavailable (nothing was changed)
    or OutcomeUnknown; after `close` Unavailable (`log.closed`).
    """

    async def put(self, reports: Sequence[Forwarded]) -> None:
        """Lay in up to MAX_PUT reports; those that are there already stay as they are."""
        ...

    async def left(self, keys: Sequence[str]) -> list[bool]:
        """For each key whether its report still lies in the inbox."""
        ...

    async def remove(self, keys: Sequence[str]) -> None:
        """Take these out, where they are still there. Once this returns, nobody can commit them any more; whether
        somebody has before, the log tells."""
        ...

    async def keys(self) -> list[str]:
        """The keys of all that is in it."""
        ...

    async def waiting(self) -> list[Found]:
        """Up to MAX_WAITING of what is in it, the oldest first."""
        ...

    async def changed(self, timeout_s: float) -> None:
        """Return once something may have been laid in since the last `waiting`, or after `timeout_s`."""
        ...

    async def append(self, entries: Sequence[Entry], *, after: Head, taking: Sequence[Forwarded]) -> Head:
        """`Log.append`, and in the same step take out the reports that the entries came of. Raises Overtaken, with
        nothing written, where one of them is no longer there."""
        ...

    async def close(self) -> None:
        """Release everything."""
        ...


def overtaken() -> Overtaken:
    """The refusal of an append that takes along a report which is no longer in the inbox."""
    return Overtaken(
        "a forwarded report was taken back, or is in the log already", hint="look which are left, and decide again"
    )


def unreachable(deadline_s: float) -> Unavailable:
    """What a call gets when nobody answers in time and nothing was sent."""
    return Unavailable(
        f"no answer about forwarded reports within {deadline_s:g} s",
        code="log.unreachable",
        hint="see that a majority of the coordinators runs and can be reached",
    )


def encode(report: Forwarded) -> bytes:
    """As it lies in the inbox: JSON, so that `zkCli.sh get` shows an admin something."""
    return msgspec.json.encode(report)


def decode(key: str, data: bytes) -> Found:
    """What lies under this key. What cannot be read, or has another's name, is none of ours."""
    try:
        report = msgspec.json.decode(data, type=Forwarded)
    except msgspec.MsgspecError:
        return Found(key=key, report=None)
    return Found(key=key, report=report if report.key == key else None)
