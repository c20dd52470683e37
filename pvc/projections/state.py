"""ClusterState: everything that is true at one position of the log, as plain dicts of frozen structs.

Cheap to fork (the dicts are copied, the objects shared). Its canonical hash is a sum over the hashes of its objects,
so only the objects that were touched since the last reading are hashed again.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from itertools import islice
from typing import Any

import msgspec

from pvc.events.fence import FenceSettings
from pvc.events.record import EMPTY, Head
from pvc.projections.access_state import Erasure, PrincipalState, Token
from pvc.projections.log_state import LogTrust
from pvc.projections.placed import Load, Placed
from pvc.projections.vm_state import Migration, Vm, arrival_mib, held_mib, shares_of, takes_the_same
from pvc.projections.webhook_state import Webhook

__all__ = [
    "RECENT_COMMANDS",
    "RECENT_SLACK",
    "Cluster",
    "ClusterState",
    "Fault",
    "FlushState",
    "Migration",
    "Node",
    "NodeState",
    "Vm",
    "arrival_mib",
    "held_mib",
]

RECENT_COMMANDS = 10_000
"""Command ids remembered for idempotency: three minutes at 50 commands/s. Older ones are in the history index."""
RECENT_SLACK = 2_500
"""How many more may gather before the oldest go, all at once: a dict that loses its first key at each step is slow."""
_HASH_MODULUS = 1 << 128


class NodeState(StrEnum):
    """Where a node stands."""

    JOINING = "joining"
    """A member that has not yet been heard of."""
    READY = "ready"
    LOST = "lost"
    """Its session has ended; what runs on it nobody knows."""
    FENCED = "fenced"
    """Nothing runs on it."""


class FlushState(StrEnum):
    """Whether a node takes VMs, or is to be free of them."""

    NONE = "none"
    FLUSHING = "flushing"
    FLUSHED = "flushed"
    RETURNING = "returning"
    """It takes VMs, and those that belong to it are coming home."""


class Node(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node of the cluster."""

    name: str
    state: NodeState = NodeState.JOINING
    flush: FlushState = FlushState.NONE
    coordinator: bool = False
    fence: FenceSettings | None = None
    self_fence_s: int = 0
    address: str = ""
    memory_mib: int = 0
    vcpus: int = 0
    accelerator: str = ""
    hypervisor: str = ""
    version: str = ""
    level: int = 1
    boot: str = ""
    joined_us: int = 0
    ready_us: int = 0
    ready_at: int = 0
    """Position of the record with its last announcement."""
    changed_us: int = 0
    """When its state last changed."""
    lost_at: int = 0
    """Position of the record that it was lost with, while it is lost or fenced."""
    cause: str = ""
    """Id of the record with the latest request; the facts that answer it name it as their cause."""
    unfenced: str = ""
    """Why it could not be fenced, while that is so."""
    evidence: str = ""
    """What proves that it is fenced, while it is."""
    unheard: bool = False  # since the log was restored
    position: int = 0

    @property
    def ready(self) -> bool:
        """Whether VMs may be placed on it and started."""
        return self.state is NodeState.READY and self.flush in (FlushState.NONE, FlushState.RETURNING)


class Fault(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something is wrong that an admin should know of; it goes when its cause does."""

    id: str
    """`<code>/<subject>`: `node.lost/hv2`."""
    code: str
    subject: str
    message: str
    since_us: int
    acknowledged_by: str = ""
    acknowledged_us: int = 0


class Cluster(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The cluster's identity."""

    id: str
    name: str
    initialised_us: int
    level: int = 1
    """The feature level of the records that may be written."""
    primary: str = ""
    primary_epoch: int = 0
    maintenance: bool = False
    maintenance_reason: str = ""
    log: LogTrust = LogTrust()


class ClusterState:
    """The fold of the log up to `head`. Only `pvc.projections.fold` changes it."""

    __slots__ = (
        "_dirty",
        "_hash",
        "_hashes",
        "cluster",
        "erasures",
        "faults",
        "head",
        "nodes",
        "placed",
        "principals",
        "recent",
        "tokens",
        "vm_names",
        "vms",
        "webhook_names",
        "webhooks",
    )

    def __init__(self) -> None:
        self.head: Head = EMPTY
        self.cluster: Cluster | None = None
        self.nodes: dict[str, Node] = {}
        self.vms: dict[str, Vm] = {}
        self.principals: dict[str, PrincipalState] = {}
        """By their names as they stand in events."""
        self.tokens: dict[str, Token] = {}
        self.erasures: dict[str, Erasure] = {}
        """Key id -> what became of it. Never forgotten: a key that comes back from a copy has to go again."""
        self.webhooks: dict[str, Webhook] = {}
        self.faults: dict[str, Fault] = {}
        self.recent: dict[str, int] = {}
        """Command id -> position of its record, oldest first: RECENT_COMMANDS, or some more."""
        # Derived, never stored: indexes that keep every look-up O(1).
        self.vm_names: dict[str, str] = {}
        self.webhook_names: dict[str, str] = {}
        self.placed = Placed()
        self._hash = 0
        self._hashes: dict[tuple[str, str], int] = {}
        self._dirty: set[tuple[str, str]] = set()

    @property
    def position(self) -> int:
        """The last position folded."""
        return self.head.position

    def fork(self) -> ClusterState:
        """An independent copy that shares the frozen objects."""
        twin = ClusterState.__new__(ClusterState)
        twin.head = self.head
        twin.cluster = self.cluster
        twin.nodes = self.nodes.copy()
        twin.vms = self.vms.copy()
        twin.principals = self.principals.copy()
        twin.tokens = self.tokens.copy()
        twin.erasures = self.erasures.copy()
        twin.webhooks = self.webhooks.copy()
        twin.webhook_names = self.webhook_names.copy()
        twin.faults = self.faults.copy()
        twin.recent = self.recent.copy()
        twin.vm_names = self.vm_names.copy()
        twin.placed = self.placed.fork()
        twin._hash = self._hash
        twin._hashes = self._hashes.copy()
        twin._dirty = self._dirty.copy()
        return twin

    def put_vm(self, vm: Vm) -> None:
        """Add or replace a VM and keep the indexes true."""
        old = self.vms.get(vm.id)
        self.vms[vm.id] = vm
        self._dirty.add(("vm", vm.id))
        if old is None or old.name != vm.name:
            if old is not None:
                del self.vm_names[old.name]
            self.vm_names[vm.name] = vm.id
        self._place_anew(old, vm)

    def drop_vm(self, vm_id: str) -> None:
        """Take a VM out."""
        old = self.vms.pop(vm_id)
        del self.vm_names[old.name]
        self._dirty.add(("vm", vm_id))
        self._place_anew(old, None)

    def put_node(self, node: Node) -> None:
        """Add or replace a node."""
        self.nodes[node.name] = node
        self._dirty.add(("node", node.name))

    def drop_node(self, name: str) -> None:
        """Take a node out."""
        del self.nodes[name]
        self._dirty.add(("node", name))

    def put_fault(self, fault: Fault) -> None:
        """Add or replace a fault."""
        self.faults[fault.id] = fault
        self._dirty.add(("fault", fault.id))

    def drop_fault(self, fault_id: str) -> None:
        """Take a fault out, if it is there."""
        if self.faults.pop(fault_id, None) is not None:
            self._dirty.add(("fault", fault_id))

    def put_principal(self, principal: PrincipalState) -> None:
        """Add or replace a principal."""
        self.principals[principal.name] = principal
        self._dirty.add(("principal", principal.name))

    def drop_principal(self, name: str) -> None:
        """Take a principal out, if it is there."""
        if self.principals.pop(name, None) is not None:
            self._dirty.add(("principal", name))

    def put_token(self, token: Token) -> None:
        """Add or replace a token."""
        self.tokens[token.id] = token
        self._dirty.add(("token", token.id))

    def drop_token(self, token_id: str) -> None:
        """Take a token out, if it is there."""
        if self.tokens.pop(token_id, None) is not None:
            self._dirty.add(("token", token_id))

    def put_erasure(self, erasure: Erasure) -> None:
        """Add or replace an erasure."""
        self.erasures[erasure.key] = erasure
        self._dirty.add(("erasure", erasure.key))

    def put_webhook(self, hook: Webhook) -> None:
        """Add or replace a webhook; its name does not change."""
        self.webhooks[hook.id] = hook
        self.webhook_names[hook.name] = hook.id
        self._dirty.add(("webhook", hook.id))

    def drop_webhook(self, hook_id: str) -> None:
        """Take a webhook out."""
        del self.webhook_names[self.webhooks.pop(hook_id).name]
        self._dirty.add(("webhook", hook_id))

    def put_cluster(self, cluster: Cluster) -> None:
        """Set the cluster's identity."""
        self.cluster = cluster
        self._dirty.add(("cluster", ""))

    def remember_command(self, command_id: str) -> None:
        """Note that a command was committed at the current head."""
        self.recent[command_id] = self.head.position
        if len(self.recent) > RECENT_COMMANDS + RECENT_SLACK:
            self.recent = dict(islice(self.recent.items(), RECENT_SLACK, None))

    def load_of(self, node: str) -> Load:
        """What the VMs of a node take, and those that are on their way to it."""
        return self.placed.load_of(node)

    def state_hash(self) -> str:
        """The canonical hash of all objects, 32 hex digits; equal on any two nodes at equal positions."""
        for key in self._dirty:
            value = self._object(key)
            self._hash -= self._hashes.pop(key, 0)
            if value is not None:
                digest = _hash_object(key, value)
                self._hashes[key] = digest
                self._hash += digest
        self._dirty.clear()
        return f"{self._hash % _HASH_MODULUS:032x}"

    def _object(self, key: tuple[str, str]) -> msgspec.Struct | None:
        kind, name = key
        if kind == "cluster":
            return self.cluster
        table: dict[str, Any] = getattr(self, _TABLES[kind])
        return table.get(name)

    def _place_anew(self, old: Vm | None, new: Vm | None) -> None:
        if old is None or new is None or old.state is not new.state or old.node != new.node:
            if new is not None:
                self.placed.count(new.node, new.state.value, 1)
            if old is not None:
                self.placed.count(old.node, old.state.value, -1)
        if old is not None and new is not None and takes_the_same(old, new):
            return
        for node, share in shares_of(old) if old is not None else ():
            self.placed.shift(node, share, -1)
        for node, share in shares_of(new) if new is not None else ():
            self.placed.shift(node, share, 1)
        if old is not None:
            self.placed.take_out(old.id, old.node, old.home, old.tags)
            if old.migration is not None:
                self.placed.expect_no_more(old.id, old.migration.target)
        if new is not None:
            self.placed.put_in(new.id, new.node, new.home, new.tags)
            if new.migration is not None:
                self.placed.expect(new.id, new.migration.target)


_TABLES = {
    "vm": "vms",
    "node": "nodes",
    "principal": "principals",
    "token": "tokens",
    "erasure": "erasures",
    "fault": "faults",
    "webhook": "webhooks",
}


def _hash_object(key: tuple[str, str], value: msgspec.Struct) -> int:
    data = msgspec.msgpack.encode((key, value), order="deterministic")
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "big")
