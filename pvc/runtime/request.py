"""What is asked of the appender, and what it answers."""

from __future__ import annotations

import msgspec

from pvc.commands.base import Decide, Decision
from pvc.errors import Rejected
from pvc.events.record import Actor, Entry, Record
from pvc.log.inbox import Forwarded


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """By what right a report is taken out of the inbox."""

    report: Forwarded
    epoch: int
    """Of the primary who takes it; nothing is committed once the log has a later one."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A command or report on its way into the log."""

    name: str
    command: msgspec.Struct
    decide: Decide
    actor: Actor
    command_id: str = ""
    """The idempotency key; one is made if it is empty."""
    digest: str = ""
    """A hash of what is asked for, to tell a repeated command from another one under the same key."""
    cause: str = ""
    audit_vm: str = ""
    """The id of the VM it is about, where it is known: a refusal is then part of that VM's history."""
    audit_refusal: bool = False
    told_by_caller: bool = False
    """Who asks tells the tracer of the whole, of which the record is a part."""
    taken: Taken | None = None
    """Set where it is another node's report out of the inbox."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request."""

    entry: Entry | None
    """Its record; None when nothing had to change, or for a dry run."""
    decision: Decision
    position: int
    """The position that has the outcome in it."""
    repeated: bool = False
    """The command had been committed before, under the same id; this is that record."""


def key_reused(request: Request, record: Record) -> Rejected | None:
    """The refusal of a request whose key stands for another command already; None where it is that very command."""
    command = record.command
    if (command.name, command.digest) == (request.name, request.digest):
        return None
    used_for = command.name if command.name != request.name else f"another {command.name}"
    return Rejected(
        f"the idempotency key {request.command_id!r} was used for {used_for} at position {record.position}",
        code="idempotency.key_reused",
        hint="use a new key for each new command",
    )
