"""Samples of every event type: with the fewest and with the most fields, and each word it can say."""

from __future__ import annotations

from typing import Any

from pvc.events import access, cluster, node, vm, vm_moves, webhook
from pvc.events.fence import FenceSettings
from pvc.events.registry import Event
from pvc.events.types import (
    DiskBus,
    DiskFormat,
    EndPolicy,
    MigrationMethod,
    NicModel,
    PrincipalKind,
    Role,
    Selector,
    ShutdownTimeoutAction,
)

VM = "0b9f6d1e-8f0a-5b5e-9c55-0d7e9b1c2a3f"
OTHER = "7c1de2a4-5d0b-5f3a-8b21-6e2f4c9d8b10"
RUN = {"vm": VM, "node": "hv1", "epoch": 1}
MOVE: Any = {"vm": VM, "migration": "m1", "source": "hv1", "target": "hv2"}
FENCE = FenceSettings(
    agent="fence_ipmilan",
    options={"ip": "10.0.1.2", "lanplus": "1"},
    password_file="/etc/pvc/fence-password",
    timeout_s=30,
)

KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = f"pvc/{OTHER}\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— pvc/{OTHER} x08gow==\n"

SMALL = vm.VmSpec(memory_mib=16, vcpus=1)
LARGE = vm.VmSpec(
    memory_mib=4096,
    vcpus=4,
    disks=(
        vm.Disk(path="/images/web01.raw"),
        vm.Disk(path="/images/data.qcow2", format=DiskFormat.QCOW2, bus=DiskBus.SCSI),
        vm.Disk(path="/images/cd.iso", bus=DiskBus.SATA, read_only=True),
    ),
    nics=(
        vm.Nic(bridge="br0"),
        vm.Nic(bridge="br1", mac="52:54:00:12:34:56", model=NicModel.E1000E),
        vm.Nic(bridge="br1", model=NicModel.RTL8139),
    ),
    kernel="/boot/vmlinuz",
    initrd="/boot/initrd.img",
    cmdline="console=ttyS0 quiet",
)
FROM_XML = vm.VmSpec(memory_mib=512, vcpus=2, xml="<domain><memory unit='MiB'>512</memory><vcpu>2</vcpu></domain>")

PLAIN_HOOK = webhook.WebhookSettings(url="https://hooks.example.com/pvc")
FULL_HOOK = webhook.WebhookSettings(
    url="http://10.0.7.5:8080/pvc",
    types=("vm.*", "node.lost"),
    subjects=(f"vm/{VM}", "node"),
    tags=("shop",),
    batch=50,
    rate=5,
    tries=3,
    signature=webhook.Signature.ED25519,
    ownership=webhook.Ownership.ANY_2XX,
    allow_private=("10.0.7.0/24:8080",),
    reveal_names=True,
    description="bills",
)
SECRET = webhook.SealedSecret(id="3f2a91c0", box="aesgcm~c74f20a3~AAAA")
PUBLIC = webhook.SealedSecret(id="91c03f2a", box="aesgcm~c74f20a3~AAAA", public="whpk_AAAA")

SAMPLES: dict[type[Event], tuple[Event, ...]] = {
    cluster.ClusterInitialised: (cluster.ClusterInitialised(cluster=OTHER, name="main"),),
    cluster.CommandRejected: (
        cluster.CommandRejected(code="vm.not_found", message="there is no VM 'web09'"),
        cluster.CommandRejected(code="vm.is_running", message="web01 is already running", vm=VM),
    ),
    cluster.PrimaryElected: (
        cluster.PrimaryElected(node="hv1", epoch=1),
        cluster.PrimaryElected(node="hv2", epoch=2, silent_s=14),
    ),
    cluster.MaintenanceSet: (
        cluster.MaintenanceSet(on=True, reason="new switches"),
        cluster.MaintenanceSet(on=True),
        cluster.MaintenanceSet(on=False),
    ),
    cluster.FeatureLevelRaised: (cluster.FeatureLevelRaised(level=2),),
    cluster.SigningKeyAdded: (cluster.SigningKeyAdded(node="hv1", key_id="c74f20a3", key=KEY),),
    cluster.SigningKeyRetired: (cluster.SigningKeyRetired(node="hv1", key_id="c74f20a3", reason="rotated"),),
    cluster.KeyRotationRequested: (cluster.KeyRotationRequested(node="hv1", key_id="c74f20a3"),),
    cluster.LogRestored: (cluster.LogRestored(position=41, node="hv1", source="a backup of 2026-11-20T01:00:00Z"),),
    cluster.LogCheckpointed: (
        cluster.LogCheckpointed(node="hv1", epoch=0, size=7, root="5f" * 32, key_id="c74f20a3", note=NOTE),
        cluster.LogCheckpointed(
            node="hv1", epoch=2, size=9, root="5f" * 32, key_id="c74f20a3", note=NOTE, anchored={"file": 7}
        ),
    ),
    cluster.AnchorFailed: (cluster.AnchorFailed(node="hv1", anchor="webhook", message="no answer"),),
    cluster.AnchorRecovered: (cluster.AnchorRecovered(node="hv1", anchor="webhook"),),
    cluster.FaultAcknowledged: (cluster.FaultAcknowledged(fault="node.lost/hv2"),),
    access.ErasureRequested: (access.ErasureRequested(key="3f2a91c0"),),
    access.PersonErased: (access.PersonErased(key="3f2a91c0", node="hv1"),),
    access.TokenCreated: (
        *(
            access.TokenCreated(token="abcdefgh", principal="admin", role=role, secret_sha256="5f" * 32)
            for role in Role
        ),
        access.TokenCreated(
            token="abcdefgi",
            principal="anna",
            role=Role.ADMIN,
            secret_sha256="5e" * 32,
            expires_us=1_700_000_000_000_000,
            replaces="abcdefgh",
            description="laptop",
        ),
    ),
    access.PrincipalAdded: (
        access.PrincipalAdded(
            id="p0123456789ab", principal="anna", kind=PrincipalKind.PERSON, grants=(access.Grant(role=Role.VIEWER),)
        ),
        access.PrincipalAdded(
            id="p0123456789ac",
            principal="backup",
            kind=PrincipalKind.SERVICE,
            grants=(
                access.Grant(role=Role.OPERATOR, tag="shop", name="web*"),
                access.Grant(role=Role.AUDITOR),
            ),
            description="nightly",
        ),
    ),
    access.PrincipalModified: (
        access.PrincipalModified(id="p0123456789ab", principal="anna", description=""),
        access.PrincipalModified(
            id="p0123456789ab",
            principal="anna",
            kind=PrincipalKind.SERVICE,
            grants=(access.Grant(role=Role.ADMIN),),
            description="the admin",
        ),
    ),
    access.PrincipalRemoved: (access.PrincipalRemoved(id="p0123456789ab", principal="anna"),),
    access.TokenRotated: (
        access.TokenRotated(token="abcdefgh", replaced_by="abcdefgi", expires_us=1_700_000_000_000_000),
    ),
    access.TokenRevoked: (access.TokenRevoked(token="abcdefgh"),),
    access.TokenUsed: (access.TokenUsed(token="abcdefgh", node="hv1"),),
    access.LoggedIn: (access.LoggedIn(token="abcdefgh", node="hv1", issuer="https://id.example.org", how="browser"),),
    access.LoginRefused: (
        access.LoginRefused(node="hv1", code="access.token_invalid", network="192.0.2.0/24"),
        access.LoginRefused(
            node="hv1", code="access.token_expired", network="2001:db8::/48", token="abcdefgh", unrecorded=7
        ),
    ),
    access.AccessRefused: (
        access.AccessRefused(action="cluster.manage", code="access.forbidden", message="anna may not do this"),
        access.AccessRefused(
            action="vm.run",
            code="access.out_of_scope",
            message="your role does not cover a VM 'web01'",
            token="abcdefgh",
            vm=VM,
            unrecorded=3,
        ),
    ),
    access.SecretRead: (
        access.SecretRead(what="audit.export_keys"),
        access.SecretRead(what="log.snapshot", token="abcdefgh", unrecorded=2),
    ),
    node.NodeJoined: (node.NodeJoined(node="hv1"), node.NodeJoined(node="hv2", coordinator=True)),
    node.NodeReady: (
        node.NodeReady(
            node="hv1", memory_mib=8192, vcpus=8, accelerator="kvm", hypervisor="libvirt 9.0.0", version="0.1.0"
        ),
        node.NodeReady(
            node="hv1",
            memory_mib=8192,
            vcpus=8,
            accelerator="tcg",
            hypervisor="libvirt 9.0.0",
            version="0.1.0",
            boot="4f0c3a52-0000-4000-8000-0123456789ab",
            address="10.0.0.1",
            self_fence_s=12,
            level=2,
        ),
    ),
    node.NodeFenceSet: (
        node.NodeFenceSet(node="hv1", settings=FENCE),
        node.NodeFenceSet(node="hv1", settings=FenceSettings(agent="fence_virsh")),
        node.NodeFenceSet(node="hv1"),
    ),
    node.NodeFlushRequested: (node.NodeFlushRequested(node="hv1"),),
    node.NodeFlushed: (node.NodeFlushed(node="hv1"),),
    node.NodeFlushIncomplete: (node.NodeFlushIncomplete(node="hv1", left=("web01: no room", "db01: no room")),),
    node.NodeReturnRequested: (node.NodeReturnRequested(node="hv1"),),
    node.NodeReturned: (node.NodeReturned(node="hv1"), node.NodeReturned(node="hv1", left=("web01: no room",))),
    node.NodeLost: (node.NodeLost(node="hv1", epoch=1, reason="its session has ended"),),
    node.NodeFenced: tuple(
        node.NodeFenced(node="hv1", method=method, evidence="power off") for method in ("agent", "self", "manual")
    ),
    node.NodeFenceFailed: (node.NodeFenceFailed(node="hv1", message="the agent does not answer"),),
    node.NodeDiverged: (node.NodeDiverged(node="hv2", position=4711, state_hash="0f" * 16, expected="1e" * 16),),
    node.NodeLogDiffers: (
        node.NodeLogDiffers(node="hv2", size=4711, root="0f" * 32, expected="1e" * 32),
        node.NodeLogDiffers(node="hv2", size=4711, root="0f" * 32, expected="1e" * 32, agreed=4000),
    ),
    node.NodeRemoved: (node.NodeRemoved(node="hv2"),),
    vm.VmDefined: (
        vm.VmDefined(vm=VM, name="web01", spec=SMALL, node="hv1"),
        vm.VmDefined(
            vm=OTHER,
            name="db01",
            spec=LARGE,
            node="hv1",
            description="the shop's\nmemory – größer",
            selector=Selector.MEMPROV,
            node_limits=("hv1", "hv2"),
            migration_method=MigrationMethod.SHUTDOWN,
            autostart=True,
            on_poweroff=EndPolicy.RESTART,
            on_crash=EndPolicy.STOP,
            tags=("production", "tier:1"),
            max_downtime_ms=50,
            priority=90,
            affinity=("tier:2",),
            anti_affinity=("production",),
        ),
    ),
    vm.VmModified: (
        vm.VmModified(vm=VM, spec=LARGE),
        vm.VmModified(vm=VM, spec=FROM_XML, description=""),
        vm.VmModified(vm=VM, on_poweroff=EndPolicy.RESTART, on_crash=EndPolicy.STOP),
    ),
    vm.VmRenamed: (vm.VmRenamed(vm=VM, name="web02", old_name="web01"),),
    vm.VmRemoved: (vm.VmRemoved(vm=OTHER, name="db01"),),
    vm.VmAutostartSet: (vm.VmAutostartSet(vm=VM, autostart=True), vm.VmAutostartSet(vm=VM, autostart=False)),
    vm.VmSelectorSet: tuple(vm.VmSelectorSet(vm=VM, selector=selector) for selector in Selector),
    vm.VmNodeLimitsSet: (vm.VmNodeLimitsSet(vm=VM, node_limits=("hv1",)), vm.VmNodeLimitsSet(vm=VM, node_limits=())),
    vm.VmMigrationMethodSet: tuple(
        vm.VmMigrationMethodSet(vm=VM, migration_method=method) for method in MigrationMethod
    ),
    vm.VmMaxDowntimeSet: (vm.VmMaxDowntimeSet(vm=VM, max_downtime_ms=50),),
    vm.VmPrioritySet: (vm.VmPrioritySet(vm=VM, priority=90),),
    vm.VmAffinitySet: (vm.VmAffinitySet(vm=VM, affinity=("tier:2",)), vm.VmAffinitySet(vm=VM, affinity=())),
    vm.VmAntiAffinitySet: (
        vm.VmAntiAffinitySet(vm=VM, anti_affinity=("production",)),
        vm.VmAntiAffinitySet(vm=VM, anti_affinity=()),
    ),
    vm.VmTagAdded: (vm.VmTagAdded(vm=VM, tag="production"), vm.VmTagAdded(vm=VM, tag="keep", protected=True)),
    vm.VmTagRemoved: (vm.VmTagRemoved(vm=VM, tag="production"),),
    vm.VmStartRequested: (
        vm.VmStartRequested(vm=VM, node="hv1", epoch=1),
        vm.VmStartRequested(vm=VM, node="hv1", epoch=2, reason="autostart: the node has booted"),
    ),
    vm.VmShutdownRequested: tuple(
        vm.VmShutdownRequested(vm=VM, timeout_s=90, on_timeout=action) for action in ShutdownTimeoutAction
    ),
    vm.VmStopRequested: (vm.VmStopRequested(vm=VM),),
    vm.VmRestartRequested: (vm.VmRestartRequested(vm=VM, epoch=2, timeout_s=90),),
    vm.VmResetRequested: (vm.VmResetRequested(vm=VM, mark="01HZ"),),
    vm.VmDisabled: (vm.VmDisabled(vm=VM),),
    vm.VmEnabled: (vm.VmEnabled(vm=VM),),
    vm.VmStarted: (vm.VmStarted(**RUN),),  # type: ignore[arg-type]
    vm.VmStartFailed: (vm.VmStartFailed(**RUN, code="driver.failed", message="no such file"),),  # type: ignore[arg-type]
    vm.VmStopped: tuple(
        vm.VmStopped(**RUN, how=how, requested=requested)  # type: ignore[arg-type]
        for how in ("guest", "forced", "fenced", "unknown")
        for requested in (True, False)
    ),
    vm.VmCrashed: tuple(
        vm.VmCrashed(**RUN, how=how)  # type: ignore[arg-type]
        for how in ("crashed", "killed", "lost", "unknown", "said by a later version")
    ),
    vm.VmFailed: (vm.VmFailed(vm=VM, reason="ended 4 times within 10 minutes"),),
    vm.VmShutdownTimedOut: (vm.VmShutdownTimedOut(**RUN),),  # type: ignore[arg-type]
    vm.VmShutdownAbandoned: (vm.VmShutdownAbandoned(**RUN),),  # type: ignore[arg-type]
    vm.VmWasReset: (vm.VmWasReset(**RUN, mark="01HZ"),),  # type: ignore[arg-type]
    vm_moves.VmMigrationRequested: (
        vm_moves.VmMigrationRequested(**MOVE),
        vm_moves.VmMigrationRequested(
            **MOVE,
            fallback=True,
            max_downtime_ms=50,
            timeout_s=30,
            away="flush",
            reason="flush of hv1",
            why=("selector mem: 4096 MiB free", "the only node that can"),
        ),
        vm_moves.VmMigrationRequested(**MOVE, permanent=True, force_live=True, why=("as asked",)),
        vm_moves.VmMigrationRequested(**MOVE, live=False, away="migrate"),
    ),
    vm_moves.VmMigrationPrepared: (vm_moves.VmMigrationPrepared(vm=VM, node="hv2", migration="m1"),),
    vm_moves.VmMigrationCancelRequested: (vm_moves.VmMigrationCancelRequested(vm=VM, migration="m1"),),
    vm_moves.VmMigrationFailed: (
        vm_moves.VmMigrationFailed(vm=VM, node="hv1", migration="m1", code="driver.failed", message="no route"),
    ),
    vm_moves.VmMigrated: (vm_moves.VmMigrated(**MOVE, epoch=1),),
    vm_moves.VmArrived: (vm_moves.VmArrived(vm=VM, node="hv2", epoch=1),),
    vm_moves.VmRelocated: (vm_moves.VmRelocated(**MOVE, epoch=2),),
    vm_moves.VmMoved: (
        vm_moves.VmMoved(vm=VM, source="hv2", target="hv1"),
        vm_moves.VmMoved(vm=VM, source="hv1", target="hv2", permanent=True, why=("as asked",)),
        vm_moves.VmMoved(vm=VM, source="hv1", target="hv2", away="migrate"),
    ),
    vm_moves.VmRecovered: (
        vm_moves.VmRecovered(vm=VM, source="hv2", target="hv1", epoch=2),
        vm_moves.VmRecovered(vm=VM, source="hv1", target="hv2", epoch=3, why=("the only node that can",)),
    ),
    vm_moves.VmRecoveryDelayed: (vm_moves.VmRecoveryDelayed(vm=VM, reason="no node can take web01"),),
    webhook.WebhookAdded: (
        webhook.WebhookAdded(hook=OTHER, name="billing", settings=PLAIN_HOOK, secret=SECRET, after=0),
        webhook.WebhookAdded(hook=OTHER, name="billing", settings=FULL_HOOK, secret=PUBLIC, after=41),
    ),
    webhook.WebhookModified: (
        webhook.WebhookModified(hook=OTHER, settings=PLAIN_HOOK),
        webhook.WebhookModified(hook=OTHER, settings=FULL_HOOK),
    ),
    webhook.WebhookRemoved: (webhook.WebhookRemoved(hook=OTHER, name="billing"),),
    webhook.WebhookPaused: (
        webhook.WebhookPaused(hook=OTHER),
        webhook.WebhookPaused(hook=OTHER, reason="the receiver moves"),
    ),
    webhook.WebhookResumed: (webhook.WebhookResumed(hook=OTHER),),
    webhook.WebhookSecretRotated: (
        webhook.WebhookSecretRotated(hook=OTHER, secret=SECRET, overlap_until_us=1_738_324_800_000_000),
    ),
    webhook.WebhookReplayRequested: (webhook.WebhookReplayRequested(hook=OTHER, first=7, last=41),),
    webhook.WebhookVerified: (webhook.WebhookVerified(hook=OTHER, url="https://hooks.example.com/pvc"),),
    webhook.WebhookDisabled: (webhook.WebhookDisabled(hook=OTHER, reason="it answered 410"),),
    webhook.WebhookParked: (
        webhook.WebhookParked(hook=OTHER, position=41, index=0, event="vm.started", tries=10, reason="it answered 500"),
    ),
}
