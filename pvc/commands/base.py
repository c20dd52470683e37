"""What a command is made of: its fields, its decide, and the card that the API, the CLI and the docs are made from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pvc.errors import InvalidInput, NotFound, Rejected
from pvc.events.record import Actor
from pvc.events.registry import Event
from pvc.events.types import Role
from pvc.projections.state import Cluster, ClusterState, Node, Vm


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision may know besides state and command."""

    command_id: str
    """Unique per command; ids of new things are derived from it, so deciding again gives the same ids."""
    time_us: int
    """The time that the record will carry."""
    actor: Actor


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
    role: Role
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
    internal: tuple[str, ...] = ()
    """Fields that only the gateway sets: no body may name them, no reader is shown them."""
    confirm: str = ""
    """Where it can do damage: the question that the CLI asks first, with `{field}`s. `--yes` answers it."""


def find_vm(state: ClusterState, ref: str) -> Vm:
    """The VM with this name or id. Raises NotFound, with near names as a hint."""
    vm_id = state.vm_names.get(ref, ref)
    vm = state.vms.get(vm_id)
    if vm is None:
        near = difflib.get_close_matches(ref, state.vm_names, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "`pvc vm list` shows the VMs there are"
        raise NotFound(f"there is no VM {ref!r}", code="vm.not_found", hint=hint, field="vm")
    return vm


def find_node(state: ClusterState, name: str, *, field: str = "node") -> Node:
    """The node with this name. Raises NotFound, with near names as a hint."""
    node = state.nodes.get(name)
    if node is None:
        near = difflib.get_close_matches(name, state.nodes, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "`pvc node list` shows the nodes there are"
        raise NotFound(f"there is no node {name!r}", code="node.not_found", hint=hint, field=field)
    return node


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
