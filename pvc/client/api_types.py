"""The shapes of the gateway's replies, as they stand in the JSON. Times are microseconds since the Unix epoch."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class ToldEvent(TypedDict):
    """An event for a reader: its type, what it is about (`vm/<id>`, `node/hv1`), and what it says in a sentence."""

    type: str
    v: NotRequired[int]
    subject: str
    summary: str
    failure: NotRequired[bool]
    data: dict[str, Any]


class Actor(TypedDict):
    """Who caused a record, how it proved itself, and from where."""

    principal: str
    method: str
    address: NotRequired[str]
    source: NotRequired[str]


class CommandRef(TypedDict):
    """The command that a record is the outcome of."""

    id: str
    name: str


class RecordView(TypedDict):
    """One record of the log for a reader. `cause` and `correlation` are ids of records, or empty."""

    position: int
    id: str
    time: str
    time_us: int
    actor: Actor
    origin: str
    command: CommandRef
    cause: NotRequired[str]
    correlation: NotRequired[str]
    level: NotRequired[int]
    events: list[ToldEvent]


class OperationRef(TypedDict):
    """Where to find out what comes of a command."""

    id: str
    href: str


class Reply(TypedDict):
    """What became of a command. `record` is None when nothing had to change, or in a dry run."""

    position: int
    record: str | None
    command: str
    name: str
    changed: bool
    dry_run: bool
    repeated: bool
    events: list[ToldEvent]
    notes: list[str]
    outcomes: dict[str, bool]
    operation: NotRequired[OperationRef | None]
    token: NotRequired[str]


class HistoryPage(TypedDict):
    """Records, newest first; `next_before` leads to the older ones. With `sort=position` `next_after` to the newer."""

    position: int
    records: list[RecordView]
    next_before: int | None
    next_after: int | None
    subjects: list[str]


class EventPage(TypedDict):
    """Records, oldest first; everything up to `next_after` was considered."""

    position: int
    records: list[RecordView]
    next_after: int


class VmRow(TypedDict):
    """A VM in a list."""

    name: str
    id: str
    state: str
    node: str
    home: str
    away: str
    target: str
    memory_mib: int
    vcpus: int
    tags: list[str]
    autostart: bool
    restart_required: bool
    description: str


class TagView(TypedDict):
    """A tag of a VM."""

    tag: str
    protected: bool


class VmUsage(TypedDict):
    """What a VM was measured to use, some seconds ago."""

    cpu_per_cent: float
    memory_used_mib: int


class MigrationProgress(TypedDict):
    """How far a live migration has come, a second ago."""

    per_cent: float
    total_bytes: int
    remaining_bytes: int
    seconds: float


class MigrationView(TypedDict):
    """A VM's way to another node, under way."""

    source: str
    target: str
    live: bool
    permanent: bool
    prepared: bool
    cancel: bool
    reason: str
    why: list[str]
    since_us: int
    progress: MigrationProgress | None


class VmInfo(TypedDict):
    """All about a VM. `restart_required` names the fields of the spec that wait for the next start."""

    name: str
    id: str
    state: str
    error: str
    node: str
    home: str
    away: str
    why: list[str]
    migration: MigrationView | None
    description: str
    spec: dict[str, Any]
    restart_required: list[str]
    selector: str
    node_limits: list[str]
    affinity: list[str]
    anti_affinity: list[str]
    priority: int
    migration_method: str
    max_downtime_ms: int
    autostart: bool
    on_poweroff: str
    on_crash: str
    tags: list[TagView]
    epoch: int
    defined_us: int
    changed_us: int
    position: int
    usage: VmUsage | None


class NodeUsage(TypedDict):
    """What a node was measured to use, some seconds ago."""

    cpu_per_cent: float
    load1: float
    memory_used_mib: int
    memory_free_mib: int
    zookeeper: str
    position: int
    time_us: int


class FenceSettings(TypedDict):
    """How a node's power is cut."""

    agent: str
    options: NotRequired[dict[str, str]]
    password_file: NotRequired[str]
    timeout_s: NotRequired[int]


class FenceCheck(TypedDict):
    """What a node's fence agent answered; `trouble` is empty where it answers as it should."""

    asked_by: str
    trouble: str


class FaultInfo(TypedDict):
    """Something is wrong that an admin should know of."""

    id: str
    code: str
    subject: str
    message: str
    hint: str
    since_us: int
    acknowledged_by: str
    acknowledged_us: int


class NodeInfo(TypedDict):
    """All about a node. `present` and `usage` are None where nothing is known just now."""

    name: str
    state: str
    flush: str
    ready: bool
    present: bool | None
    coordinator: bool
    primary: bool
    memory_mib: int
    memory_allocated_mib: int
    memory_provisioned_mib: int
    vcpus: int
    vcpus_allocated: int
    vms: int
    vms_running: int
    vms_away: int
    usage: NodeUsage | None
    fence: FenceSettings | None
    fence_check: FenceCheck | None
    self_fence_s: int
    faults: list[FaultInfo]
    reasons: list[str]
    unfenced: str
    evidence: str
    address: str
    accelerator: str
    hypervisor: str
    version: str
    level: int
    joined_us: int
    ready_us: int
    changed_us: int
    lost_at: int
    position: int


class OperationSubject(TypedDict):
    """Something an operation is about."""

    subject: str
    name: str


class OperationProgress(TypedDict):
    """How far an operation has come; `total` 1: it is about one thing, else VMs or nodes."""

    done: int
    total: int
    failed: int
    text: str
    transfer: MigrationProgress | None


class OperationProblem(TypedDict):
    """Why an operation has failed or was cancelled."""

    code: str
    detail: str


class Operation(TypedDict):
    """Something that a command has begun; `state`: pending, running, succeeded, failed or cancelled."""

    id: str
    href: str
    command: str
    subjects: list[OperationSubject]
    actor: str
    state: str
    progress: OperationProgress
    problem: OperationProblem | None
    cancellable: bool
    position: int
    started: str
    started_us: int
    ended: str | None
    ended_us: int | None


class OperationVm(TypedDict):
    """One VM of an operation that is about many."""

    subject: str
    name: str
    state: str
    text: str
    took_us: int | None


class OperationInfo(Operation):
    """All about an operation."""

    vms: list[OperationVm]


class HealthProblem(TypedDict):
    """A reason why the cluster's health is not `ok`."""

    code: str
    health: str
    message: str
    hint: str


class ClusterInfo(TypedDict):
    """The cluster at one look."""

    name: str
    id: str
    initialised: bool
    health: str
    reasons: list[str]
    hints: dict[str, str]
    problems: list[HealthProblem]
    position: int
    state_hash: str
    primary: str
    primary_epoch: int
    maintenance: bool
    maintenance_reason: str
    level: int
    nodes: int
    nodes_ready: int
    coordinators: int
    coordinators_ready: int
    zookeeper: dict[str, str]
    vms: int
    vms_by_state: dict[str, int]
    faults: int
    faults_acknowledged: int
