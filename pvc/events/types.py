"""The types of the fields that events and commands share, with their constraints and examples."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

END = r"$(?!\n)"
"""The end of a pattern: in Python a bare `$` also matches before a newline, and then `web01\\n` would be a name."""

VM_NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" + END

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
Principal = Annotated[
    str,
    Meta(
        # What begins like a pseudonym of an erased person could be taken for one.
        pattern=r"^(?!root$|erased-|person-)[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}" + END,
        max_length=63,
        description="Name of a person, or of a service: letters, digits and . _ @ + - (at most 63 characters).",
        examples=["anna"],
    ),
]
Tag = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,62}" + END,
        max_length=63,
        description="A tag: letters, digits and . _ : - (at most 63 characters, starting with a letter or digit).",
        examples=["production"],
    ),
]
MemoryMib = Annotated[int, Meta(ge=16, le=16_777_216, description="Memory in MiB.", examples=[2048])]
Vcpus = Annotated[int, Meta(ge=1, le=1024, description="Number of virtual CPUs.", examples=[2])]
Description = Annotated[
    str,
    Meta(
        # Tabs and line breaks are text; other control characters would command the reader's terminal.
        pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$",
        max_length=500,
        description="Free text for people.",
        examples=["shop front end"],
    ),
]
AbsolutePath = Annotated[
    str,
    Meta(
        pattern=r"^/[^\x00-\x1f\x7f]*" + END,
        max_length=1024,
        description="Absolute path of a file on the node.",
        examples=["/var/lib/libvirt/images/web01.qcow2"],
    ),
]
TimeoutS = Annotated[int, Meta(ge=1, le=86_400, description="Time-out in seconds.", examples=[120])]


class DiskFormat(StrEnum):
    """How a disk's file is laid out."""

    RAW = "raw"
    QCOW2 = "qcow2"


class DiskBus(StrEnum):
    """What a disk is attached to."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"


class NicModel(StrEnum):
    """What network card a guest sees."""

    VIRTIO = "virtio"
    E1000E = "e1000e"
    RTL8139 = "rtl8139"


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
    """What a principal may do; docs/access.md has the table."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    AUDITOR = "auditor"


class PrincipalKind(StrEnum):
    """Who a principal is."""

    PERSON = "person"
    SERVICE = "service"
