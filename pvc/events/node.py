"""Everything that can happen to a node, in the order of its life."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from pvc.events.fence import FenceSettings


class NodeJoined(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A node became a member of the cluster."""

    TYPE: ClassVar[str] = "node.joined"
    node: str
    coordinator: bool = False
    """It may be the primary, and runs a ZooKeeper server."""


class NodeReady(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Fact: the node's daemon has started, caught up with the log, and takes VMs."""

    TYPE: ClassVar[str] = "node.ready"
    node: str
    memory_mib: int
    vcpus: int
    accelerator: str
    hypervisor: str
    """Name and version of the hypervisor."""
    version: str
    """PVC's version on this node."""
    boot: str = ""
    """The kernel's boot id: it differs after a reboot of the machine, not after a restart of the daemon."""
    address: str = ""
    """Where other nodes reach its hypervisor."""
    self_fence_s: int = 0
    """Within so many seconds after its session can have ended, none of its VMs runs any more; 0: no such promise."""
    level: int = 1
    """The highest feature level that this node's version knows."""


class NodeFenceSet(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """How the node's power is cut when it is lost; None: it cannot be."""

    TYPE: ClassVar[str] = "node.fence_set"
    node: str
    settings: FenceSettings | None = None


class NodeFlushRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The node is to take no more VMs, and its running ones are to move elsewhere."""

    TYPE: ClassVar[str] = "node.flush_requested"
    node: str


class NodeFlushed(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: no VM runs on the node any more."""

    TYPE: ClassVar[str] = "node.flushed"
    node: str


class NodeFlushIncomplete(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: what could be moved off the node is moved; the VMs `left`, as `name: reason`, still run there."""

    TYPE: ClassVar[str] = "node.flush_incomplete"
    node: str
    left: tuple[str, ...]


class NodeReturnRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The node takes VMs again, and those that were flushed or recovered from it are to come home."""

    TYPE: ClassVar[str] = "node.return_requested"
    node: str


class NodeReturned(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Fact: the VMs of the node are home, but for those `left`, as `name: reason`."""

    TYPE: ClassVar[str] = "node.returned"
    node: str
    left: tuple[str, ...] = ()


class NodeLost(Struct, frozen=True, kw_only=True, gc=False):
    """Fact, found by the primary: the node's session has ended."""

    TYPE: ClassVar[str] = "node.lost"
    node: str
    epoch: int
    """The primary's."""
    reason: str


class NodeFenced(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: nothing runs on the lost node any more, and what proves it."""

    TYPE: ClassVar[str] = "node.fenced"
    node: str
    method: str
    """`agent`: its power is off; `self`: it promised so, and the time is over; `manual`: an admin says so."""
    evidence: str


class NodeFenceFailed(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: it is not certain that nothing runs on the lost node, so its VMs stay where they are."""

    TYPE: ClassVar[str] = "node.fence_failed"
    node: str
    message: str


class NodeDiverged(Struct, frozen=True, kw_only=True, gc=False):
    """Fact, found by the primary: at this position the node's state is not its own, though both folded one log."""

    TYPE: ClassVar[str] = "node.diverged"
    node: str
    position: int
    state_hash: str
    expected: str
    """The primary's state hash."""


class NodeLogDiffers(Struct, frozen=True, kw_only=True, gc=False):
    """Fact, found by the node: a checkpoint vouches for other records than those of the node's own copy of the log."""

    TYPE: ClassVar[str] = "node.log_differs"
    node: str
    size: int
    """Of the checkpoint: the difference is among the first so many records."""
    root: str
    """Of the tree over the node's own records."""
    expected: str
    """What the checkpoint says."""
    agreed: int = 0
    """Size of the newest checkpoint before it that the node's copy agreed with."""


class NodeRemoved(Struct, frozen=True, kw_only=True, gc=False):
    """The node is no member any more; its history stays."""

    TYPE: ClassVar[str] = "node.removed"
    node: str
