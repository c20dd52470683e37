"""ClusterState: everything that is true at one position of the log, as plain dicts of frozen structs.

Cheap to fork (the dicts are copied, the objects shared). Its canonical hash is a sum over the hashes of its objects,
so only the objects that were touched since the last reading are hashed again.
"""

from __future__ import annotations

import hashlib
from itertools import islice

import msgspec

from pvc.events.record import EMPTY, Head
from pvc.events.types import EndPolicy, MigrationMethod, Role, Selector, ShutdownTimeoutAction
from pvc.events.vm import VmSpec
from pvc.projections.vm_machine import ACTIVE, VmState

RECENT_COMMANDS = 10_000
"""How many command ids are remembered for idempotency: at 50 commands/s more than three minutes of retries, at a
human pace weeks. Older ones are found in the history index."""

RECENT_SLACK = 2_500
"""How many more may gather before the oldest go, all at once: a dict that loses its first key at each step is slow."""

_HASH_MODULUS = 1 << 128


class Vm(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A VM: what it is, what is wanted of it, and what was last heard of it."""

    id: str
    name: str
    spec: VmSpec
    node: str
    """The node that runs it."""
    home: str
    """The node it belongs to when nothing forces it elsewhere."""
    description: str
    selector: Selector
    node_limits: tuple[str, ...]
    migration_method: MigrationMethod
    autostart: bool
    on_poweroff: EndPolicy
    on_crash: EndPolicy
    tags: dict[str, bool]
    """Tag -> whether it is protected. Never changed in place."""
    state: VmState = VmState.STOPPED
    epoch: int = 0
    """Number of the present (or last) run; 0 before the first."""
    running_spec: VmSpec | None = None
    """The spec the present run was started with."""
    shutdown_timeout_s: int = 0
    shutdown_action: ShutdownTimeoutAction = ShutdownTimeoutAction.FORCE
    forced: bool = False
    """The present request's shutdown timed out; the run is to be forced off."""
    reset_mark: str = ""
    cause: str = ""
    """Id of the record with the latest request; the facts that answer it name it as their cause."""
    error: str = ""
    """Why it failed, while it is failed."""
    endings_us: tuple[int, ...] = ()
    """When it ended lately against its policy: the budget of starts that nobody asked for."""
    defined_us: int = 0
    changed_us: int = 0
    """When its state last changed."""
    position: int = 0
    """The last record that touched it."""


class Node(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node of the cluster."""

    name: str
    ready: bool = False
    memory_mib: int = 0
    vcpus: int = 0
    accelerator: str = ""
    hypervisor: str = ""
    version: str = ""
    boot: str = ""
    joined_us: int = 0
    ready_us: int = 0
    position: int = 0


class Token(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An access token; only the hash of its secret is known."""

    id: str
    principal: str
    role: Role
    secret_sha256: str
    created_us: int = 0


class Cluster(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The cluster's identity."""

    id: str
    name: str
    initialised_us: int


class Load(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the active VMs of a node take; derived from the VMs, kept as they change."""

    memory_mib: int = 0
    vcpus: int = 0
    running: int = 0
    vms: int = 0
    """All VMs assigned to the node, active or not."""


NO_LOAD = Load()
AT_REST_LOAD = Load(vms=1)


def held_mib(vm: Vm) -> int:
    """The memory that an active VM takes of its node; a restart keeps room for the run to come as well."""
    running_mib = (vm.running_spec or vm.spec).memory_mib
    return max(running_mib, vm.spec.memory_mib) if vm.state is VmState.RESTARTING else running_mib


class ClusterState:
    """The fold of the log up to `head`. Only `pvc.projections.fold` changes it."""

    __slots__ = (
        "_dirty",
        "_hash",
        "_hashes",
        "cluster",
        "head",
        "loads",
        "nodes",
        "recent",
        "tokens",
        "vm_names",
        "vms",
    )

    def __init__(self) -> None:
        self.head: Head = EMPTY
        self.cluster: Cluster | None = None
        self.nodes: dict[str, Node] = {}
        self.vms: dict[str, Vm] = {}
        self.tokens: dict[str, Token] = {}
        self.recent: dict[str, int] = {}
        """Command id -> position of its record, oldest first: RECENT_COMMANDS, or some more."""
        # Derived, never stored: indexes that keep every look-up O(1).
        self.vm_names: dict[str, str] = {}
        self.loads: dict[str, Load] = {}
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
        twin.tokens = self.tokens.copy()
        twin.recent = self.recent.copy()
        twin.vm_names = self.vm_names.copy()
        twin.loads = self.loads.copy()
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
        self._shift_load(old, vm)

    def drop_vm(self, vm_id: str) -> None:
        """Take a VM out."""
        old = self.vms.pop(vm_id)
        del self.vm_names[old.name]
        self._dirty.add(("vm", vm_id))
        self._shift_load(old, None)

    def put_node(self, node: Node) -> None:
        """Add or replace a node."""
        self.nodes[node.name] = node
        self._dirty.add(("node", node.name))

    def put_token(self, token: Token) -> None:
        """Add or replace a token."""
        self.tokens[token.id] = token
        self._dirty.add(("token", token.id))

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
        """What the VMs of a node take."""
        return self.loads.get(node, NO_LOAD)

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
        if kind == "vm":
            return self.vms.get(name)
        return self.nodes.get(name) if kind == "node" else self.tokens.get(name)

    def _shift_load(self, old: Vm | None, new: Vm | None) -> None:
        if old is not None and new is not None and _takes_the_same(old, new):
            return
        if old is not None:
            self.loads[old.node] = _add(self.loads[old.node], _share(old), -1)
        if new is not None:
            self.loads[new.node] = _add(self.load_of(new.node), _share(new), 1)


def _hash_object(key: tuple[str, str], value: msgspec.Struct) -> int:
    data = msgspec.msgpack.encode((key, value), order="deterministic")
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "big")


def _takes_the_same(old: Vm, new: Vm) -> bool:
    """Whether the change is none to the node's load, which it is for most."""
    if old.node != new.node:
        return False
    if old.state not in ACTIVE:
        return new.state not in ACTIVE
    if old.state is VmState.RESTARTING or new.state is VmState.RESTARTING:
        return False
    return new.state in ACTIVE and (old.running_spec or old.spec) is (new.running_spec or new.spec)


def _share(vm: Vm) -> Load:
    if vm.state not in ACTIVE:
        return AT_REST_LOAD
    return Load(memory_mib=held_mib(vm), vcpus=(vm.running_spec or vm.spec).vcpus, running=1, vms=1)


def _add(load: Load, share: Load, sign: int) -> Load:
    return Load(
        memory_mib=load.memory_mib + sign * share.memory_mib,
        vcpus=load.vcpus + sign * share.vcpus,
        running=load.running + sign * share.running,
        vms=load.vms + sign * share.vms,
    )
