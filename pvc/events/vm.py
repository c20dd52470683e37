"""Everything that can happen to a VM, in the order of its life. `vm` is the VM's id (a UUID), which never changes.

The events' own fields are of plain types: commands were checked when they were accepted. What is in the log must stay
readable when a constraint is tightened; checking patterns again would also triple the time of decoding an event.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from pvc.events.types import (
    END,
    AbsolutePath,
    DiskBus,
    DiskFormat,
    EndPolicy,
    MemoryMib,
    MigrationMethod,
    NicModel,
    Selector,
    ShutdownTimeoutAction,
    Vcpus,
)


class Disk(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A disk of a VM."""

    path: AbsolutePath
    format: Annotated[DiskFormat, Meta(description="How the file is laid out.")] = DiskFormat.RAW
    bus: Annotated[DiskBus, Meta(description="What the disk is attached to.")] = DiskBus.VIRTIO
    read_only: Annotated[bool, Meta(description="The guest may not write to it.")] = False


class Nic(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A network interface of a VM."""

    bridge: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_.-]{1,15}" + END, description="Linux bridge on the node.", examples=["br0"]),
    ]
    mac: Annotated[
        str,
        Meta(
            pattern="^([0-9a-f]{2}(:[0-9a-f]{2}){5})?" + END,
            description="MAC address; made from the VM's id if empty.",
        ),
    ] = ""
    model: Annotated[NicModel, Meta(description="What network card the guest sees.")] = NicModel.VIRTIO


class VmSpec(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What a VM is made of. A running VM keeps the spec it was started with; a new one counts from its next start."""

    memory_mib: MemoryMib
    vcpus: Vcpus
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    kernel: AbsolutePath | None = None
    """Boot this kernel directly instead of from a disk."""
    initrd: AbsolutePath | None = None
    cmdline: str = ""
    xml: str = ""
    """The libvirt domain XML the VM was defined from, if it was; memory and vCPUs above override it."""


class VmDefined(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A VM was defined. It does not run yet."""

    TYPE: ClassVar[str] = "vm.defined"
    vm: str
    name: str
    spec: VmSpec
    node: str
    description: str = ""
    selector: Selector = Selector.MEM
    node_limits: tuple[str, ...] = ()
    migration_method: MigrationMethod = MigrationMethod.LIVE
    autostart: bool = False
    on_poweroff: EndPolicy = EndPolicy.STOP
    on_crash: EndPolicy = EndPolicy.RESTART
    tags: tuple[str, ...] = ()
    max_downtime_ms: int = 300
    priority: int = 50
    affinity: tuple[str, ...] = ()
    anti_affinity: tuple[str, ...] = ()


class VmModified(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A VM's spec, description or policies were replaced; a field that is absent stays as it was."""

    TYPE: ClassVar[str] = "vm.modified"
    vm: str
    spec: VmSpec | None = None
    description: str | None = None
    on_poweroff: EndPolicy | None = None
    on_crash: EndPolicy | None = None


class VmRenamed(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A VM got another name; its id and its history stay."""

    TYPE: ClassVar[str] = "vm.renamed"
    vm: str
    name: str
    old_name: str


class VmRemoved(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A VM's definition was removed; its history stays."""

    TYPE: ClassVar[str] = "vm.removed"
    vm: str
    name: str


class VmAutostartSet(Struct, frozen=True, kw_only=True, gc=False):
    """Whether the VM starts when its node becomes ready."""

    TYPE: ClassVar[str] = "vm.autostart_set"
    vm: str
    autostart: bool


class VmSelectorSet(Struct, frozen=True, kw_only=True, gc=False):
    """How a target node is chosen for the VM."""

    TYPE: ClassVar[str] = "vm.selector_set"
    vm: str
    selector: Selector


class VmNodeLimitsSet(Struct, frozen=True, kw_only=True, gc=False):
    """The nodes the VM may run on; empty means all."""

    TYPE: ClassVar[str] = "vm.node_limits_set"
    vm: str
    node_limits: tuple[str, ...]


class VmMigrationMethodSet(Struct, frozen=True, kw_only=True, gc=False):
    """How the VM is moved to another node."""

    TYPE: ClassVar[str] = "vm.migration_method_set"
    vm: str
    migration_method: MigrationMethod


class VmMaxDowntimeSet(Struct, frozen=True, kw_only=True, gc=False):
    """How long the guest may stand still at the end of a live migration."""

    TYPE: ClassVar[str] = "vm.max_downtime_set"
    vm: str
    max_downtime_ms: int


class VmPrioritySet(Struct, frozen=True, kw_only=True, gc=False):
    """How early the VM is recovered when its node is lost: the highest first."""

    TYPE: ClassVar[str] = "vm.priority_set"
    vm: str
    priority: int


class VmAffinitySet(Struct, frozen=True, kw_only=True, gc=False):
    """The tags of VMs that this one would rather be together with."""

    TYPE: ClassVar[str] = "vm.affinity_set"
    vm: str
    affinity: tuple[str, ...]


class VmAntiAffinitySet(Struct, frozen=True, kw_only=True, gc=False):
    """The tags of VMs that this one would rather be apart from."""

    TYPE: ClassVar[str] = "vm.anti_affinity_set"
    vm: str
    anti_affinity: tuple[str, ...]


class VmTagAdded(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A tag was put on the VM, or its protection changed."""

    TYPE: ClassVar[str] = "vm.tag_added"
    vm: str
    tag: str
    protected: bool = False


class VmTagRemoved(Struct, frozen=True, kw_only=True, gc=False):
    """A tag was taken off the VM."""

    TYPE: ClassVar[str] = "vm.tag_removed"
    vm: str
    tag: str


class VmStartRequested(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The VM is to run; `epoch` numbers this run."""

    TYPE: ClassVar[str] = "vm.start_requested"
    vm: str
    node: str
    epoch: int
    reason: str = ""
    """Why, where it was not an admin's command: autostart, or the policy after a crash."""


class VmShutdownRequested(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The guest is to power itself off (ACPI) within `timeout_s`; then `on_timeout` applies."""

    TYPE: ClassVar[str] = "vm.shutdown_requested"
    vm: str
    timeout_s: int
    on_timeout: ShutdownTimeoutAction


class VmStopRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The VM is to be forced off now."""

    TYPE: ClassVar[str] = "vm.stop_requested"
    vm: str


class VmRestartRequested(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The running domain is to shut down (within `timeout_s`, then by force) and a new one, `epoch`, to start."""

    TYPE: ClassVar[str] = "vm.restart_requested"
    vm: str
    epoch: int
    timeout_s: int


class VmResetRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The VM's reset button is to be pressed; `mark` makes that happen once."""

    TYPE: ClassVar[str] = "vm.reset_requested"
    vm: str
    mark: str


class VmDisabled(Struct, frozen=True, kw_only=True, gc=False):
    """The VM may not be started until it is enabled."""

    TYPE: ClassVar[str] = "vm.disabled"
    vm: str


class VmEnabled(Struct, frozen=True, kw_only=True, gc=False):
    """The VM may be started again."""

    TYPE: ClassVar[str] = "vm.enabled"
    vm: str


class VmStarted(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the VM's domain runs."""

    TYPE: ClassVar[str] = "vm.started"
    vm: str
    node: str
    epoch: int


class VmStartFailed(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the domain could not be started; `message` is the hypervisor's reason."""

    TYPE: ClassVar[str] = "vm.start_failed"
    vm: str
    node: str
    epoch: int
    code: str
    message: str


class VmStopped(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Fact: the domain is off, as it was asked to be (`requested`), or because the guest powered itself off."""

    TYPE: ClassVar[str] = "vm.stopped"
    vm: str
    node: str
    epoch: int
    how: str
    """`guest` (it powered itself off), `forced`, `fenced` (its node was), or `unknown`."""
    requested: bool = True


class VmCrashed(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Fact: the domain ended without PVC or the guest having wanted it."""

    TYPE: ClassVar[str] = "vm.crashed"
    vm: str
    node: str
    epoch: int
    how: str
    """`crashed` (panic, or QEMU died), `killed` (forced off behind PVC's back), `lost` (no trace of it), `unknown`."""

    WORDS: ClassVar[dict[str, str]] = {
        "crashed": "crashed",
        "killed": "was forced off from outside PVC",
        "lost": "disappeared",
    }

    @property
    def words(self) -> str:
        """How it ended, to follow the VM's name in a sentence."""
        return self.WORDS.get(self.how, "ended for an unknown reason")


class VmFailed(Struct, frozen=True, kw_only=True, gc=False):
    """The policy gave up on the VM: it ended too often, or there is no room to start it."""

    TYPE: ClassVar[str] = "vm.failed"
    vm: str
    reason: str


class VmShutdownTimedOut(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the guest did not power off in time, so now it is forced off."""

    TYPE: ClassVar[str] = "vm.shutdown_timed_out"
    vm: str
    node: str
    epoch: int


class VmShutdownAbandoned(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the guest did not power off in time, and goes on running, as the request said."""

    TYPE: ClassVar[str] = "vm.shutdown_abandoned"
    vm: str
    node: str
    epoch: int


class VmWasReset(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the reset button was pressed."""

    TYPE: ClassVar[str] = "vm.was_reset"
    vm: str
    node: str
    epoch: int
    mark: str
