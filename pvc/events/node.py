"""Everything that can happen to a node, in the order of its life."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct


class NodeJoined(Struct, frozen=True, kw_only=True, gc=False):
    """A node became a member of the cluster."""

    TYPE: ClassVar[str] = "node.joined"
    node: str


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
