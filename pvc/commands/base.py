"""What a command is made of: its fields, its decide, and the card that the API, the CLI and the docs are made from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec

from pvc.commands.access_table import Action
from pvc.errors import InvalidInput, NotFound, Rejected
from pvc.events.record import Actor
from pvc.events.registry import Event
from pvc.projections.operations import Course, OperationKind
from pvc.projections.state import Cluster, ClusterState, Node, Vm

MAX_COMPARED = 500
"""Names that a mistyped one is compared with letter by letter: a typo must not hold up a node with 10,000 VMs."""

MAX_NAME = 63
"""The longest name there is. A longer text is no slip of one, and its neighbours would fill the memory of a node."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"


class Utilisation(msgspec.Struct, frozen=True, kw_only=True):
    """What a node last said of itself; not part of the log, so only a hint."""

    memory_free_mib: int
    load: float
    """Of its processors: 1.0 is all of them busy."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision may know besides state and command."""

    command_id: str
    """Unique per command; ids of new things are derived from it, so deciding again gives the same ids."""
    time_us: int
    """The time that the record will carry."""
    actor: Actor
    usage: Mapping[str, Utilisation] = {}
    """What nodes last said of themselves, where it is known; a choice of nodes may rest on it."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a command leads to. No events: it is already so."""

    events: tuple[Event, ...]
    notes: tuple[str, ...] = ()
    """What the admin should know, such as that a change needs a restart."""


Decide = Callable[[ClusterState, Any, Context], Decision]


class CommandSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The card of a command: everything the outer layers derive from.

    The summary and help are the struct's docstring; the fields' types, constraints, help and examples are its
    annotations.
    """

    name: str
    """`vm.start`: aggregate and verb; stands in records and in the audit."""
    struct: type[msgspec.Struct]
    decide: Decide
    action: Action
    """What kind of thing it is in the table of who may do what."""
    method: str = "POST"
    path: str
    """Below /api/v1; `{field}` takes a field from the path, all others come in the body, a form or the query."""
    cli: tuple[str, ...]
    """The words after `pvc`."""
    args: tuple[str, ...] = ()
    """Fields that are positional on the command line; all others are options."""
    example: Mapping[str, Any]
    """Field values of a typical call; becomes the API's and the CLI's example."""
    outcomes: Mapping[str, bool] = {}
    """Event types that end the operation, caused by its record -> whether that is success. Empty: it ends at once."""
    begins: frozenset[str] = frozenset()
    """Where it may as well be done at once: the event types with one of which it begins what the outcomes end."""
    anywhere: bool = False
    """Whether the outcomes end it whatever they are about, and whatever has caused them."""
    course: Course = Course.OUTCOME
    """How what it begins goes on; where that is over with one of the outcomes, `OUTCOME`."""
    internal: tuple[str, ...] = ()
    """Fields that only the gateway sets: no body may name them, no reader is shown them."""
    personal: tuple[str, ...] = ()
    """Fields that name a person: the gateway seals them, so that neither decide nor the log ever has the name."""
    known: tuple[str, ...] = ()
    """Fields that name a principal there is: the gateway looks up how the name stands in the log."""
    confirm: str = ""
    """Where it can do damage: the question that the CLI asks first, with `{field}`s. `--yes` answers it."""

    @property
    def operation(self) -> OperationKind | None:
        """What its operations end with; None where it is done as soon as it is recorded."""
        if not self.outcomes and self.course is Course.OUTCOME:
            return None
        return OperationKind(course=self.course, outcomes=self.outcomes, begins=self.begins, anywhere=self.anywhere)

    def begun_with(self, types: Iterable[str]) -> bool:
        """Whether it has begun something that takes time, where it has led to events of these types."""
        kind = self.operation
        return kind is not None and kind.begun_with(types)


def find_vm(state: ClusterState, ref: str) -> Vm:
    """The VM with this name or id. Raises NotFound, with near names as a hint."""
    vm_id = state.vm_names.get(ref, ref)
    vm = state.vms.get(vm_id)
    if vm is None:
        near = near_names(ref, state.vm_names)
        hint = f"did you mean {' or '.join(near)}?" if near else "`pvc vm list` shows the VMs there are"
        raise NotFound(f"there is no VM {quoted(ref)}", code="vm.not_found", hint=hint, field="vm")
    return vm


def find_node(state: ClusterState, name: str, *, field: str = "node") -> Node:
    """The node with this name. Raises NotFound, with near names as a hint."""
    node = state.nodes.get(name)
    if node is None:
        near = near_names(name, state.nodes)
        hint = f"did you mean {' or '.join(near)}?" if near else "`pvc node list` shows the nodes there are"
        raise NotFound(f"there is no node {quoted(name)}", code="node.not_found", hint=hint, field=field)
    return node


def quoted(name: str) -> str:
    """A name as a message shows it, however long somebody made it."""
    return repr(name if len(name) <= MAX_NAME + 1 else f"{name[:MAX_NAME]}…")


def near_names(given: str, names: Mapping[str, object]) -> list[str]:
    """Up to three names that may have been meant: those one slip away, and the most alike of the first few."""
    if len(given) > MAX_NAME + 1:
        return []
    one_slip = [name for name in sorted(_one_slip_away(given)) if name in names]
    alike = difflib.get_close_matches(given, islice(names, MAX_COMPARED), n=3, cutoff=0.6)
    return list(dict.fromkeys((*one_slip, *alike)))[:3]


def _one_slip_away(text: str) -> set[str]:
    """Every text that one letter less, more, changed or swapped makes of this one."""
    halves = [(text[:at], text[at:]) for at in range(len(text) + 1)]
    less = {left + right[1:] for left, right in halves if right}
    swapped = {left + right[1] + right[0] + right[2:] for left, right in halves if len(right) > 1}
    changed = {left + letter + right[1:] for left, right in halves if right for letter in _LETTERS}
    more = {left + letter + right for left, right in halves for letter in _LETTERS}
    return less | swapped | changed | more


def require_cluster(state: ClusterState) -> Cluster:
    """The cluster's identity. Raises Rejected before `cluster init`."""
    if state.cluster is None:
        raise Rejected(
            "there is no cluster yet",
            code="cluster.not_initialised",
            hint="`pvc cluster init NAME`, as root on the node, makes one",
        )
    return state.cluster


def invalid(field: str, message: str, hint: str = "", code: str = "input.invalid") -> InvalidInput:
    """An InvalidInput about one field."""
    return InvalidInput(message, code=code, hint=hint, field=field)
