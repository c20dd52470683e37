"""A record to be undone, and the command that does it: what the inverses of all commands are found with. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pvc.commands.base import CommandSpec, Context
from pvc.commands.registry import BY_NAME
from pvc.errors import Rejected
from pvc.events.record import Record
from pvc.events.registry import Event
from pvc.projections.access_state import PrincipalState
from pvc.projections.fold import EVOLVE
from pvc.projections.state import ClusterState, Node, Vm
from pvc.projections.webhook_state import Webhook


class Inverse(msgspec.Struct, frozen=True, kw_only=True):
    """A command that takes back what a record did."""

    spec: CommandSpec
    command: msgspec.Struct
    notes: tuple[str, ...] = ()
    """What it does not bring back."""


class ChangedSince(Rejected):
    """What the record did was changed again since."""

    default_code = "undo.changed_since"

    def __init__(self, what: str, subject: str, types: tuple[str, ...] = ()) -> None:
        super().__init__(
            f"{what} was changed since", hint="see what happened to it first; the newest change can be undone first"
        )
        self.subject = subject
        """What the later record is about, to find it by."""
        self.types = types
        """The types of its event; empty: any."""


def no_inverse(name: str, why: str) -> Rejected:
    """The refusal of an undo that would be none."""
    return Rejected(
        f"{name} cannot be undone: {why}", code="undo.no_inverse", hint="see docs/time-travel.md for what can"
    )


class Undoing:
    """A record to be undone: what was before it, what it did, and what is now."""

    def __init__(self, before: ClusterState, record: Record, events: tuple[Event, ...], now: ClusterState) -> None:
        self.before = before
        self.events = events
        self.now = now
        self.record = record
        self.name = record.command.name
        self.after = before.fork()
        for event in events:
            EVOLVE[type(event)](self.after, event, record)

    def vm(self) -> tuple[Vm, Vm, Vm]:
        """The VM before the record, after it and now. Raises ChangedSince where it is gone."""
        vm_id: str = getattr(self.events[0], "vm", "")
        before, after, now = (state.vms.get(vm_id) for state in (self.before, self.after, self.now))
        assert before is not None and after is not None, f"{self.name} is about a VM that there was"
        if now is None:
            raise ChangedSince(before.name, f"vm/{vm_id}", ("vm.removed",))
        return before, after, now

    def node(self) -> tuple[Node | None, Node | None, Node]:
        """The node before the record, after it and now. Raises ChangedSince where it is gone."""
        name: str = getattr(self.events[0], "node", "")
        now = self.now.nodes.get(name)
        if now is None:
            raise ChangedSince(f"node {name}", f"node/{name}", ("node.removed",))
        return self.before.nodes.get(name), self.after.nodes.get(name), now

    def hook(self) -> tuple[Webhook | None, Webhook, Webhook]:
        """The webhook before the record, after it and now. Raises ChangedSince where it is gone."""
        hook_id: str = getattr(self.events[0], "hook", "")
        before, after, now = (state.webhooks.get(hook_id) for state in (self.before, self.after, self.now))
        assert after is not None, f"{self.name} is about a webhook that there was"
        if now is None:
            raise ChangedSince(f"webhook {after.name}", f"webhook/{hook_id}", ("webhook.removed",))
        return before, after, now

    def principal(self) -> tuple[PrincipalState | None, PrincipalState, PrincipalState]:
        """The principal before the record, after it and now. Raises ChangedSince where it is gone."""
        name: str = getattr(self.events[0], "principal", "")
        before, after, now = (state.principals.get(name) for state in (self.before, self.after, self.now))
        assert after is not None, f"{self.name} is about a principal that there was"
        if now is None or now.id != after.id:
            raise ChangedSince(f"the principal {name}", f"access/{after.id}", ("access.principal_removed",))
        return before, after, now

    def inverse(self, name: str, /, *notes: str, **fields: Any) -> Inverse:
        """The inverse with these fields."""
        spec = BY_NAME[name]
        return Inverse(spec=spec, command=spec.struct(**fields), notes=notes)

    def unchanged(self, what: str, after: object, now: object) -> None:
        """Raise ChangedSince unless what the record set is still so."""
        if after != now:
            first = self.events[0]
            kind, _, _ = first.TYPE.partition(".")
            ref = next((ref for field in _SUBJECTS if (ref := getattr(first, field, ""))), "")
            raise ChangedSince(what, f"{kind}/{ref}" if ref else kind, tuple(event.TYPE for event in self.events))

    def exactly(self, inverse: Inverse, look: Callable[[ClusterState], object]) -> Inverse:
        """The inverse, if it brings back just what was before. Raises what it would be refused with, too."""
        ahead = self.now.fork()
        context = Context(command_id="undo", time_us=self.record.time_us, actor=self.record.actor)
        for event in inverse.spec.decide(ahead, inverse.command, context).events:
            EVOLVE[type(event)](ahead, event, self.record)
        if look(ahead) != look(self.before):
            raise no_inverse(self.name, "no command brings back exactly what was before")
        return inverse


Find = Callable[[Undoing], Inverse]

_SUBJECTS = ("vm", "node", "hook", "id")
"""Fields of events that say what they are about; the last is a principal's."""
