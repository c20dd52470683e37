"""What the gateway's replies hold, and the objects that its commands take. Generated: see pvc/schemas."""

from __future__ import annotations

from typing import Any, Literal, Required, TypedDict

import msgspec


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What all models are: values that compare and print, and that no one changes.

    A field that the gateway does not send, because it is older than this library, has an empty value.
    """


class Actor(Model, frozen=True, kw_only=True):
    """Who caused a record: a principal (`root`, `node/hv1`, a person), how it proved itself, and from where.

    In records a person's name and address are sealed (`pvc.events.sealed`), but in those of earlier versions; to a
    reader they are shown opened, or by a pseudonym where the person was erased.
    """

    principal: str = ""
    method: str = ""
    address: str = ""
    source: str = ""


class Answer(Model, frozen=True, kw_only=True):
    """What would come of one question, by itself."""

    question: str = ""
    refusal: Refusal | None = None
    events: list[ToldEvent] = []
    notes: list[str] = []


class ArchiveInfo(Model, frozen=True, kw_only=True):
    """An archive that this node writes to."""

    title: str = ""
    segments: int = 0
    missing: int = 0
    problem: str = ""


class ClusterInfo(Model, frozen=True, kw_only=True):
    """The cluster at one look."""

    name: str = ""
    id: str = ""
    initialised: bool = False
    health: str = ""
    reasons: list[str] = []
    """Why it is not `ok`, the worst first."""
    hints: dict[str, str] = {}
    """Reason -> what to do about it."""
    problems: list[HealthProblem] = []
    """The reasons with their codes, the worst first."""
    position: int = 0
    state_hash: str = ""
    primary: str = ""
    """The node that acts for the whole cluster; empty: none yet."""
    primary_epoch: int = 0
    maintenance: bool = False
    maintenance_reason: str = ""
    level: int = 0
    """The feature level that records may be of."""
    nodes: int = 0
    nodes_ready: int = 0
    coordinators: int = 0
    coordinators_ready: int = 0
    zookeeper: dict[str, str] = {}
    """What each coordinator's ZooKeeper server is, where heard."""
    vms: int = 0
    vms_by_state: dict[str, int] = {}
    faults: int = 0
    faults_acknowledged: int = 0


class CommandRef(Model, frozen=True, kw_only=True):
    """The command a record is the outcome of: its id (the idempotency key) and registered name."""

    id: str = ""
    name: str = ""
    digest: str = ""


class CommandReply(Model, frozen=True, kw_only=True):
    """What became of a command. What it does not make, such as a token, is empty."""

    position: int = 0
    """The position that has the outcome in it; give it as `min_position`."""
    record: str | None = None
    """Id of its record; null when nothing changed, or for a dry run."""
    command: str = ""
    """The command's id: the Idempotency-Key, or one that was made."""
    name: str = ""
    """The command."""
    changed: bool = False
    """False: it was so already, and nothing was written."""
    dry_run: bool = False
    repeated: bool = False
    """It had been done before, under the same key; this is that outcome."""
    events: list[ToldEvent] = []
    notes: list[str] = []
    outcomes: dict[str, bool] = {}
    """Types of the events that end the operation, and whether that is success; none: it has ended."""
    operation: OperationRef | None = None
    """What the command has begun; null where it is done already, and for a dry run."""
    secret: str = ""
    """`whsec_...` or `whpk_...`. Shown here and never again."""
    token: str = ""
    """The token. Shown here and never again."""


class ConsistencyProof(Model, frozen=True, kw_only=True):
    """That an older log is the beginning of a newer one."""

    format: str = ""
    old: int = 0
    new: int = 0
    old_root: str = ""
    new_root: str = ""
    proof: list[str] = []
    """RFC 9162, 2.1.4, in hex."""
    old_checkpoint: str = ""
    new_checkpoint: str = ""
    key: str = ""


class DeliveryInfo(Model, frozen=True, kw_only=True):
    """A request that was made."""

    id: str = ""
    first: int = 0
    events: int = 0
    type: str = ""
    time_us: int = 0
    number: int = 0
    status: int = 0
    latency_ms: int = 0
    error: str = ""
    body: str = ""
    outcome: str = ""
    time: str = ""
    """ISO 8601, UTC."""


class Diff(Model, frozen=True, kw_only=True):
    """What differs between two moments."""

    position: int = 0
    old: MomentView = msgspec.field(default_factory=lambda: MomentView())
    new: MomentView = msgspec.field(default_factory=lambda: MomentView())
    total: int = 0
    """Objects that differ, on all pages."""
    items: list[ObjectDiff] = []
    next: str | None = None
    """Where more follow: give it as `after`; else null."""


class DiffCause(Model, frozen=True, kw_only=True):
    """A record that changed the object."""

    position: int = 0
    time: str = ""
    actor: Actor = msgspec.field(default_factory=lambda: Actor())
    command: str = ""
    """The command or report it came of."""
    summary: str = ""
    """What it says of the object."""


class Disk(Model, frozen=True, kw_only=True):
    """A disk of a VM."""

    path: str = ""
    """Absolute path of a file on the node."""
    format: str = ""
    """How the file is laid out."""
    bus: str = ""
    """What the disk is attached to."""
    read_only: bool = False
    """The guest may not write to it."""


class Entitled(Model, frozen=True, kw_only=True):
    """Somebody who may touch it now."""

    principal: str = ""
    kind: str = ""
    actions: list[str] = []
    """What they may do, in the words of the table."""
    grants: list[Grant] = []
    """All that they were given."""
    tokens: int = 0
    """Their tokens that have not expired; with none they can do nothing."""


class FaultInfo(Model, frozen=True, kw_only=True):
    """Something is wrong that an admin should know of; it goes when its cause does."""

    id: str = ""
    code: str = ""
    subject: str = ""
    message: str = ""
    hint: str = ""
    """What to do about it."""
    since_us: int = 0
    acknowledged_by: str = ""
    """Who has taken notice of it; empty: nobody."""
    acknowledged_us: int = 0


class FenceCheck(Model, frozen=True, kw_only=True):
    """What a node's fence agent answered when it was last asked, some minutes ago."""

    asked_by: str = ""
    """The coordinator that asked it."""
    trouble: str = ""
    """Why it could not be relied on; empty: it answers as it should."""


class FenceSettings(Model, frozen=True, kw_only=True):
    """A fence agent and its options. No secret stands here: the password is in a file on the coordinators."""

    agent: str = ""
    options: dict[str, str] = {}
    password_file: str = ""
    timeout_s: int = 0


class FetchedInfo(Model, frozen=True, kw_only=True):
    """What was read from one kind of place."""

    title: str = ""
    segments: int = 0
    size_bytes: int = 0


class FieldChange(Model, frozen=True, kw_only=True):
    """A field and its two values, as JSON has them; inner fields are spelled `spec.memory_mib`."""

    field: str = ""
    old: Any = None
    new: Any = None


class Finding(Model, frozen=True, kw_only=True):
    """One thing that is wrong, and where."""

    position: int = 0
    kind: str = ""
    message: str = ""
    last: int = 0


class Forecast(Model, frozen=True, kw_only=True):
    """What would come of all questions, one after the other."""

    position: int = 0
    answers: list[Answer] = []
    placements: list[Placement] = []
    left: list[Unplaced] = []
    nodes: list[NodeForecast] = []
    records: int = 0
    notes: list[str] = []


class Grant(Model, frozen=True, kw_only=True):
    """A role, on the whole cluster, or limited to the VMs that have a tag, or a name that matches, or both."""

    role: str = ""
    """The role."""
    tag: str = ""
    """Only on VMs with this tag."""
    name: str = ""
    """Only on VMs whose name matches, with `*`, `?` and `[...]`."""


class HealthProblem(Model, frozen=True, kw_only=True):
    """A reason why the cluster's health is not `ok`."""

    code: str = ""
    """Stable; docs/reference/health.md lists them."""
    health: str = ""
    """How bad it makes the cluster's health."""
    message: str = ""
    hint: str = ""
    """What to do about it."""


class ImportReply(Model, frozen=True, kw_only=True):
    """What became of them."""

    position: int = 0
    kept: int = 0
    """Kept, or there already."""
    erased: int = 0
    """Of people who are erased: not kept."""
    taken: list[str] = []
    """Names with another key by now: what was sealed with the old one stays so."""


class InclusionProof(Model, frozen=True, kw_only=True):
    """That a record is in the log which a checkpoint vouches for: all that is needed to verify it elsewhere."""

    format: str = ""
    position: int = 0
    record: Any = None
    """Its stored bytes, in Base64."""
    size: int = 0
    root: str = ""
    proof: list[str] = []
    """RFC 9162, 2.1.3: from the leaf up, in hex."""
    checkpoint: str = ""
    """The signed note of this size; empty where none was signed."""
    key: str = ""
    """What it is signed with, as the log says. Trust one that you have kept."""


class KeyCopies(Model, frozen=True, kw_only=True):
    """All keys."""

    position: int = 0
    keys: list[KeyCopy] = []


class KeyCopy(Model, frozen=True, kw_only=True):
    """A key, to be kept elsewhere."""

    id: str = ""
    principal: str = ""
    secret: Any = None
    """Base64."""


class KeyInfo(Model, frozen=True, kw_only=True):
    """A key that checkpoints are or were signed with."""

    id: str = ""
    node: str = ""
    key: str = ""
    """The public half, as C2SP writes it."""
    added_at: int = 0
    """Position of the record that announced it."""
    added_us: int = 0
    retired_at: int = 0
    """Position of the record that retired it; 0 while it is in use."""
    retired_us: int = 0
    rotating: bool = False
    """The node is to replace it."""


class KeyList(Model, frozen=True, kw_only=True):
    """All keys there ever were, and the newest checkpoint."""

    position: int = 0
    origin: str = ""
    """The first line of every checkpoint of this log."""
    keys: list[KeyInfo] = []
    next: str | None = None
    """Where more follow: give it as `after`; else null."""
    checkpoint: LogCheckpoint | None = None
    """Null: none has been signed yet."""


class LogCheckpoint(Model, frozen=True, kw_only=True):
    """The newest signed checkpoint of the log."""

    size: int = 0
    root: str = ""
    note: str = ""
    position: int = 0
    time_us: int = 0
    node: str = ""
    key_id: str = ""
    anchored: dict[str, int] = {}


class LogStatus(Model, frozen=True, kw_only=True):
    """Where the log is."""

    kind: str = ""
    position: int = 0
    replica_position: int = 0
    replica_bytes: int = 0
    incarnation: str = ""
    held_by: str = ""
    segments: list[SegmentInfo] = []
    archived_segments: int = 0
    archived_position: int = 0
    removed_position: int = 0
    waits_for: str = ""
    archives: list[ArchiveInfo] = []
    quota_records: int = 0
    quota_bytes: int = 0
    nodes: list[NodeCopy] = []
    fetched: list[FetchedInfo] = []
    damage: list[str] = []
    mended: list[str] = []


class LoginBegun(Model, frozen=True, kw_only=True):
    """A login that has begun at this gateway, and is to be finished there."""

    position: int = 0
    login: str = ""
    """Give it back to finish. Only the gateway that made it can read it."""
    url: str = ""
    """Where a person's browser is to go."""
    state: str = ""
    """Must come back with the code; a code with another one is not yours."""
    user_code: str = ""
    """With `device`: what the person types there, or compares."""
    interval_s: int = 0
    """With `device`: ask no more often."""
    expires_s: int = 0


class LoginInfo(Model, frozen=True, kw_only=True):
    """How one logs in to this cluster."""

    position: int = 0
    issuer: str = ""
    """Empty: by a token of an admin's making alone."""
    flows: list[str] = []
    """`browser`, `device`."""


class LoginReply(Model, frozen=True, kw_only=True):
    """A token, or that it is not decided yet."""

    position: int = 0
    pending: bool = False
    """With `device`: the person is not done. Ask again after `interval_s`."""
    interval_s: int = 0
    principal: str = ""
    token: str = ""
    """Shown here and never again."""
    expires: str = ""
    """ISO 8601, UTC."""
    expires_us: int = 0
    refresh: str = ""
    """For `login.renew`, where the issuer gave one. As secret as a token."""


class MigrationProgress(Model, frozen=True, kw_only=True):
    """How far a live migration has come, a second ago."""

    per_cent: float = 0.0
    total_bytes: int = 0
    remaining_bytes: int = 0
    seconds: float = 0.0


class MigrationView(Model, frozen=True, kw_only=True):
    """A VM's way to another node, under way."""

    source: str = ""
    target: str = ""
    live: bool = False
    """Without a stop of the guest; else it is shut down and started there."""
    permanent: bool = False
    """The target becomes its home."""
    prepared: bool = False
    """The target expects it."""
    cancel: bool = False
    """It is being given up."""
    reason: str = ""
    """Why, where it was not a command about this VM."""
    why: list[str] = []
    """What the choice of the target rested on."""
    since_us: int = 0
    progress: MigrationProgress | None = None
    """Null before the transfer has begun, and where nothing is heard."""


class MomentView(Model, frozen=True, kw_only=True):
    """One of the two moments."""

    position: int = 0
    time: str = ""
    state_hash: str = ""


class Nic(Model, frozen=True, kw_only=True):
    """A network interface of a VM."""

    bridge: str = ""
    """Linux bridge on the node."""
    mac: str = ""
    """MAC address; made from the VM's id if empty."""
    model: str = ""
    """What network card the guest sees."""


class NodeCopy(Model, frozen=True, kw_only=True):
    """What a node that is there says that it has."""

    node: str = ""
    position: int = 0
    archived: int = 0
    coordinator: bool = False


class NodeForecast(Model, frozen=True, kw_only=True):
    """A node that would be another one: its state, and the memory that VMs hold of it."""

    node: str = ""
    before: str = ""
    after: str = ""
    memory_mib: int = 0
    allocated_before_mib: int = 0
    allocated_after_mib: int = 0


class NodeInfo(Model, frozen=True, kw_only=True):
    """All about a node, and a node in a list."""

    name: str = ""
    state: str = ""
    flush: str = ""
    ready: bool = False
    """VMs may be placed on it and started."""
    present: bool | None = None
    """It has a session; null where that is not known just now."""
    coordinator: bool = False
    primary: bool = False
    """It acts for the whole cluster."""
    memory_mib: int = 0
    memory_allocated_mib: int = 0
    """Held by running VMs, or kept for those on their way to it."""
    memory_provisioned_mib: int = 0
    """Of all VMs assigned to it, were they all to run."""
    vcpus: int = 0
    vcpus_allocated: int = 0
    vms: int = 0
    """Assigned to it, running or not."""
    vms_running: int = 0
    vms_away: int = 0
    """At home on it, but elsewhere for now."""
    usage: NodeUsage | None = None
    """Null when it was not heard of lately."""
    fence: FenceSettings | None = None
    """How its power is cut; null: it cannot be."""
    fence_check: FenceCheck | None = None
    """What its agent answered lately; null: it has none, or nobody has asked."""
    self_fence_s: int = 0
    """Within so many seconds after it lost its session, it ends its VMs; 0: it does not."""
    faults: list[FaultInfo] = []
    """What is wrong with it, the newest first."""
    reasons: list[str] = []
    """Why the cluster's health is not `ok`, as far as it is about it."""
    unfenced: str = ""
    """Why it could not be fenced, while that is so."""
    evidence: str = ""
    """What proves that it is fenced, while it is."""
    address: str = ""
    accelerator: str = ""
    hypervisor: str = ""
    version: str = ""
    level: int = 0
    """The highest feature level that it knows."""
    joined_us: int = 0
    ready_us: int = 0
    changed_us: int = 0
    """When its state last changed: since when it is lost, say."""
    lost_at: int = 0
    """Position of the record that it was lost with; 0 while it is not."""
    position: int = 0
    """The last record that touched the node."""


class NodeUsage(Model, frozen=True, kw_only=True):
    """What a node was measured to use, some seconds ago."""

    cpu_per_cent: float = 0.0
    """Of all its processors."""
    load1: float = 0.0
    memory_used_mib: int = 0
    """By everything on it."""
    memory_free_mib: int = 0
    zookeeper: str = ""
    """`leader`, `follower`, `standalone`, `no_quorum` or `down`; empty where it runs none."""
    position: int = 0
    """How far it has folded the log."""
    time_us: int = 0
    """When, by its own clock."""


class ObjectDiff(Model, frozen=True, kw_only=True):
    """An object that differs between the two moments."""

    kind: str = ""
    """`cluster`, `node`, `vm`, `fault`, `principal`, `token` or `erasure`."""
    id: str = ""
    name: str = ""
    change: str = ""
    fields: list[FieldChange] = []
    """What differs; of what came or went, all there is."""
    by: list[DiffCause] = []
    """What was recorded about it in between, the newest first."""


class OperationInfo(Model, frozen=True, kw_only=True):
    """All about an operation."""

    id: str = ""
    """That of the record that began it; the same at every gateway, for ever."""
    href: str = ""
    command: str = ""
    subjects: list[OperationSubject] = []
    actor: str = ""
    state: str = ""
    progress: OperationProgress = msgspec.field(default_factory=lambda: OperationProgress())
    problem: OperationProblem | None = None
    cancellable: bool = False
    """Whether it can still be cancelled, by who may."""
    position: int = 0
    """Of the last record that told something of it."""
    started: str = ""
    started_us: int = 0
    ended: str | None = None
    """Null while it goes on."""
    ended_us: int | None = None
    vms: list[OperationVm] = []
    """Where it is about many: each of them, 1,000 at most."""


class OperationProblem(Model, frozen=True, kw_only=True):
    """Why an operation has failed or was cancelled."""

    code: str = ""
    """Stable, dotted: an error's code, or the type of the event that ended it."""
    detail: str = ""


class OperationProgress(Model, frozen=True, kw_only=True):
    """How far an operation has come."""

    done: int = 0
    total: int = 0
    """1 where it is about one thing, else VMs or nodes; VMs may join on the way."""
    failed: int = 0
    """Of those done."""
    text: str = ""
    """What happened last."""
    transfer: MigrationProgress | None = None
    """Of a live migration under way, as it was a second ago."""


class OperationRef(Model, frozen=True, kw_only=True):
    """Where to find out what comes of a command that takes time."""

    id: str = ""
    """That of the command's record."""
    href: str = ""


class OperationSubject(Model, frozen=True, kw_only=True):
    """Something an operation is about."""

    subject: str = ""
    """`vm/<id>`, `node/<name>`, `cluster`, ..."""
    name: str = ""
    """What it is called, or was when it was removed."""


class OperationView(Model, frozen=True, kw_only=True):
    """Something that a command has begun."""

    id: str = ""
    """That of the record that began it; the same at every gateway, for ever."""
    href: str = ""
    command: str = ""
    subjects: list[OperationSubject] = []
    actor: str = ""
    state: str = ""
    progress: OperationProgress = msgspec.field(default_factory=lambda: OperationProgress())
    problem: OperationProblem | None = None
    cancellable: bool = False
    """Whether it can still be cancelled, by who may."""
    position: int = 0
    """Of the last record that told something of it."""
    started: str = ""
    started_us: int = 0
    ended: str | None = None
    """Null while it goes on."""
    ended_us: int | None = None


class OperationVm(Model, frozen=True, kw_only=True):
    """One VM of an operation that is about many."""

    subject: str = ""
    name: str = ""
    state: str = ""
    """`pending`: it has not set out; `running`: it is on its way."""
    text: str = ""
    took_us: int | None = None
    """From its setting out to its end."""


class ParkedInfo(Model, frozen=True, kw_only=True):
    """An event that was given up."""

    position: int = 0
    index: int = 0
    event: str = ""
    """Its type."""
    tries: int = 0
    reason: str = ""
    time: str = ""
    """ISO 8601, UTC."""
    time_us: int = 0


class PersonInfo(Model, frozen=True, kw_only=True):
    """One person, by one key: who was erased and came back is two."""

    name: str = ""
    """The name, or the pseudonym of who is erased."""
    key: str = ""
    """8 hex digits."""
    state: str = ""
    """`erasing`: shown to nobody any more, but the key is not known to be destroyed yet."""
    since: str = ""
    """When the erasure was asked for, or done; empty for who is readable."""
    since_us: int = 0
    records: int = 0
    """By them, with their name sealed."""


class Placement(Model, frozen=True, kw_only=True):
    """A VM that would be elsewhere, or in another state, once all is done."""

    vm: str = ""
    name: str = ""
    source: str = ""
    target: str = ""
    before: str = ""
    after: str = ""
    why: list[str] = []


class PrincipalInfo(Model, frozen=True, kw_only=True):
    """All about a principal."""

    position: int = 0
    principal: PrincipalRow = msgspec.field(default_factory=lambda: PrincipalRow())
    tokens: list[TokenInfo] = []


class PrincipalRow(Model, frozen=True, kw_only=True):
    """A person or a service that may act."""

    name: str = ""
    id: str = ""
    """For the history: `access/<id>`."""
    kind: str = ""
    login: bool = False
    """Whether it comes by logging in at the issuer, and in no other way."""
    grants: list[Grant] = []
    description: str = ""
    tokens: int = 0
    """Those that have not expired."""
    used: str = ""
    """When the use of a token was last recorded; empty: never."""
    used_us: int = 0
    added: str = ""
    """ISO 8601, UTC; empty: never."""
    added_us: int = 0


class RecordPortion(Model, frozen=True, kw_only=True):
    """Records as they are stored."""

    position: int = 0
    first: int = 0
    records: list[Any] = []
    """Base64 of each, in order; none: that was all."""


class RecordView(Model, frozen=True, kw_only=True):
    """One record of the log."""

    position: int = 0
    id: str = ""
    time: str = ""
    """ISO 8601, UTC, with milliseconds."""
    time_us: int = 0
    """The same in microseconds since the Unix epoch."""
    actor: Actor = msgspec.field(default_factory=lambda: Actor())
    origin: str = ""
    """The node that appended it."""
    command: CommandRef = msgspec.field(default_factory=lambda: CommandRef())
    cause: str = ""
    """Id of the record that led to this one; empty where none did."""
    correlation: str = ""
    """Id of the record that the chain of causes began with."""
    level: int = 0
    events: list[ToldEvent] = []


class Refusal(Model, frozen=True, kw_only=True):
    """The error that the real thing would give."""

    code: str = ""
    message: str = ""
    hint: str = ""
    field: str = ""


class RepairState(Model, frozen=True, kw_only=True):
    """A comparison, what follows from it, and how far it has been done."""

    survey: Survey = msgspec.field(default_factory=lambda: Survey())
    held_by: str = ""
    longer: list[str] = []
    step: str = ""
    running: bool = False
    reached: int = 0
    error: str = ""


class Reply(Model, frozen=True, kw_only=True):
    """What became of a command."""

    position: int = 0
    """The position that has the outcome in it; give it as `min_position`."""
    record: str | None = None
    """Id of its record; null when nothing changed, or for a dry run."""
    command: str = ""
    """The command's id: the Idempotency-Key, or one that was made."""
    name: str = ""
    """The command."""
    changed: bool = False
    """False: it was so already, and nothing was written."""
    dry_run: bool = False
    repeated: bool = False
    """It had been done before, under the same key; this is that outcome."""
    events: list[ToldEvent] = []
    notes: list[str] = []
    outcomes: dict[str, bool] = {}
    """Types of the events that end the operation, and whether that is success; none: it has ended."""
    operation: OperationRef | None = None
    """What the command has begun; null where it is done already, and for a dry run."""


class SecretInfo(Model, frozen=True, kw_only=True):
    """A signing secret; the secret itself is shown when it is made, and never again."""

    id: str = ""
    public: str = ""
    """`whpk_...`: the public key, for ed25519."""
    since: str = ""
    """ISO 8601, UTC; empty where there is none."""
    until: str = ""
    """When it is used no more; empty for the present one."""


class SegmentInfo(Model, frozen=True, kw_only=True):
    """A segment that is in ZooKeeper."""

    first: int = 0
    last: int = 0
    size_bytes: int = 0
    state: str = ""


class Span(Model, frozen=True, kw_only=True):
    """Records to go through."""

    next: int = 0
    index: int = 0
    until: int = 0


class Survey(Model, frozen=True, kw_only=True):
    """What a comparison found."""

    verdict: str = ""
    log_position: int = 0
    replica_position: int = 0
    common: int = 0


class TagView(Model, frozen=True, kw_only=True):
    """A tag of a VM."""

    tag: str = ""
    protected: bool = False


class TestReply(Model, frozen=True, kw_only=True):
    """What came of a ping."""

    delivered: bool = False
    """Whether the receiver has proved itself by its answer."""
    status: int = 0
    latency_ms: int = 0
    error: str = ""
    body: str = ""
    """The beginning of the answer."""


class TokenInfo(Model, frozen=True, kw_only=True):
    """A token, as far as it is not secret."""

    id: str = ""
    principal: str = ""
    role: str = ""
    """The most that it may do."""
    description: str = ""
    created: str = ""
    """ISO 8601, UTC; empty: never."""
    created_us: int = 0
    expires: str = ""
    """ISO 8601, UTC; empty: never."""
    expires_us: int = 0
    expired: bool = False
    used: str = ""
    """When its use was last recorded: once a day for each address and gateway."""
    used_us: int = 0
    replaced_by: str = ""
    """The token that has taken its place."""


class ToldEvent(Model, frozen=True, kw_only=True):
    """An event for a reader: what it is about, what it says in a sentence, and its data."""

    type: str = ""
    v: int = 0
    subject: str = ""
    summary: str = ""
    failure: bool = False
    data: Any = None


class Touch(Model, frozen=True, kw_only=True):
    """Somebody who has touched it, by one of their ways in."""

    actor: str = ""
    """The principal: a person, a service, root, or a node."""
    method: str = ""
    records: int = 0
    commands: dict[str, int] = {}
    """What they did, and how often; refused tries too."""
    last: str = ""
    last_us: int = 0
    last_position: int = 0


class UndoReply(Model, frozen=True, kw_only=True):
    """What became of an undo: the reply of its command, and what it undid."""

    position: int = 0
    """The position that has the outcome in it; give it as `min_position`."""
    record: str | None = None
    """Id of its record; null when nothing changed, or for a dry run."""
    command: str = ""
    """The command's id: the Idempotency-Key, or one that was made."""
    name: str = ""
    """The command."""
    changed: bool = False
    """False: it was so already, and nothing was written."""
    dry_run: bool = False
    repeated: bool = False
    """It had been done before, under the same key; this is that outcome."""
    events: list[ToldEvent] = []
    notes: list[str] = []
    outcomes: dict[str, bool] = {}
    """Types of the events that end the operation, and whether that is success; none: it has ended."""
    operation: OperationRef | None = None
    """What the command has begun; null where it is done already, and for a dry run."""
    undone: RecordView = msgspec.field(default_factory=lambda: RecordView())
    """The record that is undone; the new one names it as its cause."""
    label: str = ""
    """What it is about, as people call it now: the fields name VMs by their ids."""
    fields: dict[str, Any] = {}
    """The fields of the command `name` that undoes it; none where it is repeated."""


class Unplaced(Model, frozen=True, kw_only=True):
    """A VM that would be left where it is, and why."""

    vm: str = ""
    name: str = ""
    node: str = ""
    reason: str = ""


class VerifiedPortion(Model, frozen=True, kw_only=True):
    """What was found in some records."""

    position: int = 0
    first: int = 0
    last: int = 0
    """The last record looked at; ask for the next one. Before `first`: all is done."""
    compared: int = 0
    """Records that were compared with the log's own bytes."""
    checkpoints: int = 0
    """Checkpoints among them that hold."""
    newest_checkpoint: int = 0
    """The size of the newest of these; 0: none."""
    findings: list[Finding] = []


class VmInfo(Model, frozen=True, kw_only=True):
    """All about a VM."""

    name: str = ""
    id: str = ""
    state: str = ""
    error: str = ""
    node: str = ""
    home: str = ""
    away: str = ""
    """Why it is not at home: `migrate`, `flush` or `recovery`; empty if it is."""
    why: list[str] = []
    """What the choice of its present node rested on."""
    migration: MigrationView | None = None
    """Null when it does not migrate."""
    description: str = ""
    spec: VmSpec = msgspec.field(default_factory=lambda: VmSpec())
    restart_required: list[str] = []
    """Fields of the spec that the running VM gets only with its next start."""
    selector: str = ""
    node_limits: list[str] = []
    affinity: list[str] = []
    anti_affinity: list[str] = []
    priority: int = 0
    migration_method: str = ""
    max_downtime_ms: int = 0
    autostart: bool = False
    on_poweroff: str = ""
    on_crash: str = ""
    tags: list[TagView] = []
    epoch: int = 0
    """Number of the present or last run."""
    defined_us: int = 0
    changed_us: int = 0
    """When the state last changed."""
    position: int = 0
    """The last record that touched the VM."""
    usage: VmUsage | None = None
    """Null when it does not run, or nothing is heard of its node."""


class VmRow(Model, frozen=True, kw_only=True):
    """A VM in a list."""

    name: str = ""
    id: str = ""
    state: str = ""
    node: str = ""
    home: str = ""
    away: str = ""
    """Why it is not at home: `migrate`, `flush` or `recovery`; empty if it is."""
    target: str = ""
    """The node it migrates to; empty when it does not."""
    memory_mib: int = 0
    vcpus: int = 0
    tags: list[str] = []
    autostart: bool = False
    restart_required: bool = False
    """The definition was changed since the VM was started."""
    description: str = ""


class VmSpec(Model, frozen=True, kw_only=True):
    """What a VM is made of. A running VM keeps the spec it was started with; a new one counts from its next start."""

    memory_mib: int = 0
    """Memory in MiB."""
    vcpus: int = 0
    """Number of virtual CPUs."""
    disks: list[Disk] = []
    nics: list[Nic] = []
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str = ""
    xml: str = ""


class VmUsage(Model, frozen=True, kw_only=True):
    """What a VM was measured to use, some seconds ago."""

    cpu_per_cent: float = 0.0
    """Of one processor."""
    memory_used_mib: int = 0
    """Of its node's memory."""


class WebhookInfo(Model, frozen=True, kw_only=True):
    """All about a webhook."""

    name: str = ""
    id: str = ""
    url: str = ""
    state: str = ""
    """`delivering`, `replaying`, `proving` (not yet sent events), `retrying`, `down` (it failed often in a row),
    `paused`, `disabled`, or `unknown` (its cursor cannot be read).
    """
    reason: str = ""
    """Why it is paused, disabled, retrying or down."""
    position: int | None = None
    """The last position that is done; null: not known just now."""
    lag: int | None = None
    """Records between that and the head of the log."""
    lag_s: float | None = None
    """Age of the first record that is not done, in seconds."""
    delivered: int | None = None
    """Events, over all its life."""
    last: str = ""
    """When the last one was delivered, ISO 8601."""
    last_us: int = 0
    next: str = ""
    """When it is tried again, where it waits for that."""
    next_us: int = 0
    tries: int = 0
    """Failed tries of the event that is next."""
    parked: int = 0
    """Events that were given up, and not replayed since."""
    settings: WebhookSettings = msgspec.field(default_factory=lambda: WebhookSettings())
    """Subjects name VMs by their ids."""
    sees: str = ""
    """What its owner may see now, and so what it is sent: `everything`, `some VMs`, `nothing`."""
    verified: bool = False
    """Whether the receiver has proved that it wants events."""
    secrets: list[SecretInfo] = []
    trouble: str = ""
    """What keeps this cluster from signing; empty: nothing."""
    deliverer: str = ""
    """The node that delivers."""
    replays: list[Span] = []
    """What is being sent again, before what comes next."""
    added: str = ""
    """ISO 8601, UTC; empty where there is none."""


class WebhookRow(Model, frozen=True, kw_only=True):
    """A webhook in a list."""

    name: str = ""
    id: str = ""
    url: str = ""
    state: str = ""
    """`delivering`, `replaying`, `proving` (not yet sent events), `retrying`, `down` (it failed often in a row),
    `paused`, `disabled`, or `unknown` (its cursor cannot be read).
    """
    reason: str = ""
    """Why it is paused, disabled, retrying or down."""
    position: int | None = None
    """The last position that is done; null: not known just now."""
    lag: int | None = None
    """Records between that and the head of the log."""
    lag_s: float | None = None
    """Age of the first record that is not done, in seconds."""
    delivered: int | None = None
    """Events, over all its life."""
    last: str = ""
    """When the last one was delivered, ISO 8601."""
    last_us: int = 0
    next: str = ""
    """When it is tried again, where it waits for that."""
    next_us: int = 0
    tries: int = 0
    """Failed tries of the event that is next."""
    parked: int = 0
    """Events that were given up, and not replayed since."""


class WebhookSettings(Model, frozen=True, kw_only=True):
    """What is sent, where to, and how."""

    url: str = ""
    types: list[str] = []
    subjects: list[str] = []
    tags: list[str] = []
    batch: int = 0
    rate: int = 0
    tries: int = 0
    signature: str = ""
    ownership: str = ""
    allow_private: list[str] = []
    reveal_names: bool = False
    owner: str = ""
    description: str = ""


class Who(Model, frozen=True, kw_only=True):
    """Who has touched a thing, and who may."""

    position: int = 0
    touched: list[Touch] = []
    """The one who did last comes first, if nothing else is asked for."""
    next: str | None = None
    """Where more follow: give it as `after`; else null."""
    may: list[Entitled] = []
    """All, on each page."""
    considered: int = 0
    """Records that were looked through."""
    complete: bool = False
    """False: there are older ones; give `since`, or ask the history."""


class WhoAmI(Model, frozen=True, kw_only=True):
    """Who is asking, as the gateway sees it."""

    principal: str = ""
    method: str = ""
    role: str = ""
    """The roles in a few words."""
    grants: list[Grant] = []
    """The roles, and what each is limited to."""
    token: str = ""
    """Id of the token; empty for root."""
    expires: str = ""
    """When the token expires; empty: never."""
    address: str = ""
    cluster: str = ""
    node: str = ""
    """The node that answered."""
    position: int = 0


class DiskInput(TypedDict, total=False):
    """What a command takes as an object in a list."""

    path: Required[str]
    """Absolute path of a file on the node."""
    format: Literal["raw", "qcow2"]
    """How the file is laid out."""
    bus: Literal["virtio", "scsi", "sata"]
    """What the disk is attached to."""
    read_only: bool
    """The guest may not write to it."""


class GrantInput(TypedDict, total=False):
    """What a command takes as an object in a list."""

    role: Required[Literal["viewer", "operator", "admin", "auditor"]]
    """The role."""
    tag: str
    """Only on VMs with this tag."""
    name: str
    """Only on VMs whose name matches, with `*`, `?` and `[...]`."""


class NicInput(TypedDict, total=False):
    """What a command takes as an object in a list."""

    bridge: Required[str]
    """Linux bridge on the node."""
    mac: str
    """MAC address; made from the VM's id if empty."""
    model: Literal["virtio", "e1000e", "rtl8139"]
    """What network card the guest sees."""


VmState = Literal[
    "stopped",
    "starting",
    "running",
    "shutting-down",
    "stopping",
    "restarting",
    "resetting",
    "migrating",
    "arriving",
    "failed",
    "disabled",
]
"""What can be asked for."""
