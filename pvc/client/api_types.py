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
    token: NotRequired[str]


class HistoryPage(TypedDict):
    """Records, newest first; `next_before` leads to the older ones."""

    position: int
    records: list[RecordView]
    next_before: int | None
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


class VmInfo(TypedDict):
    """All about a VM. `restart_required` names the fields of the spec that wait for the next start."""

    name: str
    id: str
    state: str
    error: str
    node: str
    home: str
    description: str
    spec: dict[str, Any]
    restart_required: list[str]
    selector: str
    node_limits: list[str]
    migration_method: str
    autostart: bool
    on_poweroff: str
    on_crash: str
    tags: list[TagView]
    epoch: int
    defined_us: int
    changed_us: int
    position: int


class NodeInfo(TypedDict):
    """All about a node."""

    name: str
    ready: bool
    memory_mib: int
    memory_used_mib: int
    vcpus: int
    vcpus_used: int
    vms: int
    vms_running: int
    accelerator: str
    hypervisor: str
    version: str
    joined_us: int
    ready_us: int


class ClusterInfo(TypedDict):
    """The cluster at one look."""

    name: str
    id: str
    initialised: bool
    position: int
    state_hash: str
    nodes: int
    nodes_ready: int
    vms: int
    vms_by_state: dict[str, int]
