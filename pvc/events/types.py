"""The types of the fields that events and commands share, with their constraints and examples."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

VM_NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"

VmName = Annotated[
    str,
    Meta(
        pattern=VM_NAME_PATTERN,
        max_length=63,
        description="Name of a VM: a DNS label (a-z, 0-9 and inner hyphens, at most 63 characters).",
        examples=["web01"],
    ),
]
NodeName = Annotated[
    str,
    Meta(
        pattern=VM_NAME_PATTERN,
        max_length=63,
        description="Name of a node: its short host name, a DNS label.",
        examples=["hv1"],
    ),
]
ClusterName = Annotated[
    str,
    Meta(
        pattern=VM_NAME_PATTERN,
        max_length=63,
        description="Name of the cluster: a DNS label.",
        examples=["main"],
    ),
]
Tag = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,62}$",
        max_length=63,
        description="A tag: letters, digits and . _ : - (at most 63 characters, starting with a letter or digit).",
        examples=["production"],
    ),
]
MemoryMib = Annotated[int, Meta(ge=16, le=16_777_216, description="Memory in MiB.", examples=[2048])]
Vcpus = Annotated[int, Meta(ge=1, le=1024, description="Number of virtual CPUs.", examples=[2])]
Description = Annotated[str, Meta(max_length=500, description="Free text for people.", examples=["shop front end"])]
AbsolutePath = Annotated[
    str,
    Meta(
        pattern=r"^/[^\x00-\x1f\x7f]*$",
        max_length=1024,
        description="Absolute path of a file on the node.",
        examples=["/var/lib/pvc/images/web01.qcow2"],
    ),
]
TimeoutS = Annotated[int, Meta(ge=1, le=86_400, description="Time-out in seconds.", examples=[120])]


class Selector(StrEnum):
    """How a target node is chosen for a VM."""

    MEM = "mem"
    MEMPROV = "memprov"
    VCPUS = "vcpus"
    VMS = "vms"
    LOAD = "load"
    NONE = "none"


class MigrationMethod(StrEnum):
    """How a VM is moved to another node."""

    LIVE = "live"
    SHUTDOWN = "shutdown"
    NONE = "none"


class ShutdownTimeoutAction(StrEnum):
    """What happens when a guest does not power off in time."""

    FORCE = "force"
    LEAVE = "leave"


class EndPolicy(StrEnum):
    """What follows when a VM ends without PVC having asked for it."""

    STOP = "stop"
    RESTART = "restart"


class Role(StrEnum):
    """What a principal may do; each role may do what the ones before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
