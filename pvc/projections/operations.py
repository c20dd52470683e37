"""Operations: what a command began that takes time, read off the log alone. Pure.

An operation begins with a command's record and ends with what is told of its subjects later. Whoever folds the same
records finds the same operations, at every gateway and for the whole past.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from pvc.events import node as n
from pvc.events import vm as e
from pvc.events import vm_moves as m
from pvc.events import webhook as w
from pvc.events.access import AccessRefused
from pvc.events.cluster import CommandRejected, SigningKeyRetired
from pvc.events.record import Record
from pvc.projections.operation_seen import Seen
from pvc.projections.story import FAILURES

OVERTAKEN = "operation.overtaken"
PARTLY_FAILED = "operation.partly_failed"


class OperationState(StrEnum):
    """Where an operation stands."""

    PENDING = "pending"
    """Accepted; nothing has been told of it since."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Given up because somebody asked for that, or for something that excludes it."""


OPEN = frozenset({OperationState.PENDING, OperationState.RUNNING})


class Course(StrEnum):
    """How operations of a command go."""

    OUTCOME = "outcome"
    """One event about the subject ends it."""
    EMPTYING = "emptying"
    """One event about the node ends it, once the VMs that were on it and are under way have got somewhere."""
    FILLING = "filling"
    """The same, for VMs that come to the node."""
    MOVES = "moves"
    """It is over when each VM of the record has got somewhere."""
    RECOVERY = "recovery"
    """It is over when each VM that was on the node has got somewhere."""


class OperationKind(msgspec.Struct, frozen=True, kw_only=True):
    """What the operations of a command end with."""

    course: Course = Course.OUTCOME
    outcomes: Mapping[str, bool] = {}
    """Event types that end it -> whether that is success."""
    begins: frozenset[str] = frozenset()
    """Event types with one of which a record begins one; none: each record does."""
    anywhere: bool = False
    """Whether the outcomes end it whatever they are about."""

    def begun_with(self, types: Iterable[str]) -> bool:
        """Whether a record with events of these types begins one."""
        return not self.begins or not self.begins.isdisjoint(types)


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operation as it stands after some record."""

    position: int
    """Of the record that began it."""
    id: str
    """Of that record."""
    command: str
    key: str
    """The command's own id."""
    actor: str
    """As the log has it: a person's name is sealed."""
    subjects: tuple[str, ...]
    """What it is about: `vm/<id>`, `node/<name>`, ..."""
    started_us: int
    state: OperationState = OperationState.PENDING
    changed: int
    """The position of the last record that told something of it."""
    ended_us: int = 0
    """0 while it is open."""
    text: str = ""
    """What was told last."""
    code: str = ""
    """Why it has failed or was cancelled; empty else."""
    epoch: int = 0
    """The run of the VM that is meant, where one is; what is told of an earlier run does not count."""
    nodes: tuple[str, ...] = ()
    """Where the cluster is the subject and nodes are meant: those that have not done their part yet."""
    cancelling: bool = False
    verdict: OperationState | None = None
    """How it ends, once what is under way has got somewhere."""
    total: int = 1
    done: int = 0
    failed: int = 0
    """Of those done."""

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return self.state in OPEN


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the VMs of an operation that is about many."""

    subject: str
    began_us: int = 0
    """When it set out; 0 while it waits for its turn."""
    ended_us: int = 0
    success: bool = False
    text: str = ""


def begun_by(
    record: Record, seen: Sequence[Seen], kind: OperationKind | None, on_node: Sequence[str]
) -> tuple[Operation, dict[str, Member]] | None:
    """The operation that a record begins, with its members; None where it begins none. `on_node`: ids of the VMs that
    were active on the record's node before it."""
    types = {one.raw.type for one in seen}
    if kind is None or not types or types & _REFUSALS or not kind.begun_with(types):
        return None
    subjects = tuple(dict.fromkeys(one.subject for one in seen))
    members: dict[str, Member] = {}
    if kind.course is Course.MOVES:
        members = {one.subject: Member(subject=one.subject) for one in seen if one.subject.startswith("vm/")}
    elif kind.course in (Course.EMPTYING, Course.RECOVERY):
        members = {f"vm/{vm}": Member(subject=f"vm/{vm}") for vm in on_node}
    nodes: tuple[str, ...] = ()
    if subjects == ("cluster",):
        nodes = tuple(dict.fromkeys(node for one in seen if (node := getattr(one.event, "node", ""))))
    epochs = [epoch for one in seen if (epoch := getattr(one.event, "epoch", 0)) and one.subject.startswith("vm/")]
    operation = Operation(
        position=record.position,
        id=record.id,
        command=record.command.name,
        key=record.command.id,
        actor=record.actor.principal,
        subjects=subjects,
        started_us=record.time_us,
        changed=record.position,
        text=seen[-1].text,
        epoch=epochs[0] if len(subjects) == 1 and epochs else 0,
        nodes=nodes,
        total=len(members) if kind.course is not Course.OUTCOME else len(nodes) or 1,
    )
    operation, changed = after_record(operation, members, record, seen, kind)
    return operation, {**members, **changed}


def after_record(
    operation: Operation,
    members: Mapping[str, Member],
    record: Record,
    seen: Sequence[Seen],
    kind: OperationKind,
) -> tuple[Operation, dict[str, Member]]:
    """The operation after a record that is about it or one of its members, and the members that changed. An ended one
    stays as it is."""
    changed: dict[str, Member] = {}
    for one in seen:
        if not operation.open:
            break
        if one.subject in members or _joins(operation, kind, record, one):
            known = changed.get(one.subject) or members.get(one.subject)
            over = known is not None and known.ended_us > 0 and one.subject not in changed
            if over and not _sets_out_again(operation, kind, record, one):
                continue  # somebody else's affair
            member, text = _member_after(known or Member(subject=one.subject), record, one)
            if known is None or member != known:
                changed[one.subject] = member
                operation = _counted(operation, known, member)
                operation = _told(operation, record, text)
        elif _concerns(operation, kind, record, one) and _same_run(operation, one):
            operation = _after_event(operation, record, one, kind)
    if operation.verdict is not None or kind.course in (Course.MOVES, Course.RECOVERY):
        operation, changed = _perhaps_over(operation, {**members, **changed}, changed, record, kind)
    return operation, changed


def _concerns(operation: Operation, kind: OperationKind, record: Record, one: Seen) -> bool:
    """Whether an event is about what the operation is about, or comes of it."""
    end = kind.anywhere and one.raw.type in kind.outcomes
    return end or one.subject in operation.subjects or record.cause == operation.id


def _after_event(operation: Operation, record: Record, one: Seen, kind: OperationKind) -> Operation:
    """What an event about the operation's own subject makes of it."""
    own = record.position == operation.position
    if isinstance(one.event, m.VmMigrationCancelRequested) and not own:
        return _told(replace(operation, cancelling=True), record, one.text)
    success = kind.outcomes.get(one.raw.type)
    verdict: OperationState | None = None
    code = ""
    if success is not None:
        verdict = OperationState.SUCCEEDED if success else _failure(operation, one)
        code = "" if success else one.code
    elif isinstance(one.event, _REMOVALS) or (operation.nodes and isinstance(one.event, SigningKeyRetired)):
        # A node that rotates its key is done with its part by the event before.
        verdict, code = OperationState.FAILED, one.code
    elif one.settled and not own and kind.course is Course.OUTCOME:
        # No end that was foreseen, but nothing will come of it any more.
        verdict = OperationState.FAILED
        operation = replace(operation, code=OVERTAKEN)
    if verdict is None:
        relevant = one.moved if one.subject.startswith("vm/") else not operation.nodes
        return _told(operation, record, one.text) if relevant and not own else operation
    operation = _told(operation, record, one.text)
    if kind.course in (Course.EMPTYING, Course.FILLING):
        return replace(operation, verdict=verdict, code=code or operation.code)
    left = tuple(node for node in operation.nodes if node != getattr(one.event, "node", ""))
    failed = operation.failed + (verdict is not OperationState.SUCCEEDED)
    operation = replace(operation, nodes=left, done=operation.done + 1, failed=failed)
    if left:
        return operation
    if failed and operation.total > 1:
        verdict, code = OperationState.FAILED, PARTLY_FAILED
        operation = replace(operation, text=f"it came about at {operation.total - failed} of {operation.total} nodes")
    return replace(operation, state=verdict, code=code or operation.code, ended_us=record.time_us)


def _failure(operation: Operation, one: Seen) -> OperationState:
    """What kind of no it was: somebody asked for something else, or it did not work."""
    if one.raw.type.endswith("_requested") or (operation.cancelling and isinstance(one.event, m.VmMigrationFailed)):
        return OperationState.CANCELLED
    return OperationState.FAILED


def _joins(operation: Operation, kind: OperationKind, record: Record, one: Seen) -> bool:
    """Whether this is a VM that the operation, being about a node, has set out just now."""
    return (
        kind.course in (Course.EMPTYING, Course.FILLING)
        and record.cause == operation.id
        and one.subject.startswith("vm/")
        and one.moved
    )


def _sets_out_again(operation: Operation, kind: OperationKind, record: Record, one: Seen) -> bool:
    """Whether a VM that had come to rest, perhaps where it was, goes on in the sense of the operation."""
    leaves = isinstance(one.event, _DEPARTURES.get(kind.course, ()))
    return _joins(operation, kind, record, one) or (
        leaves and f"node/{getattr(one.event, 'source', '')}" in operation.subjects
    )


def _member_after(member: Member, record: Record, one: Seen) -> tuple[Member, str]:
    if not one.moved and not isinstance(one.event, m.VmRecoveryDelayed):
        return member, ""
    began = member.began_us or record.time_us
    if not one.settled:
        return replace(member, began_us=began, ended_us=0, success=False, text=one.text), one.text
    success = one.raw.type not in FAILURES
    return replace(member, began_us=began, ended_us=record.time_us, success=success, text=one.text), one.text


def _counted(operation: Operation, before: Member | None, after: Member) -> Operation:
    done = bool(after.ended_us) - bool(before is not None and before.ended_us)
    lost = _lost(after) - (_lost(before) if before is not None else 0)
    return replace(
        operation,
        total=operation.total + (before is None),
        done=operation.done + done,
        failed=operation.failed + lost,
    )


def _lost(member: Member) -> int:
    return int(bool(member.ended_us) and not member.success)


def _told(operation: Operation, record: Record, text: str) -> Operation:
    own = record.position == operation.position
    state = operation.state if own else OperationState.RUNNING
    return replace(operation, state=state, changed=record.position, text=text or operation.text)


def _perhaps_over(
    operation: Operation,
    members: Mapping[str, Member],
    changed: dict[str, Member],
    record: Record,
    kind: OperationKind,
) -> tuple[Operation, dict[str, Member]]:
    """End an operation about many VMs once none of them is under way."""
    if not operation.open:
        return operation, changed
    if kind.course in (Course.MOVES, Course.RECOVERY):
        if any(not member.ended_us for member in members.values()):
            return operation, changed
        verdict = OperationState.FAILED if operation.failed else OperationState.SUCCEEDED
        code = PARTLY_FAILED if operation.failed else ""
        over = replace(operation, state=verdict, code=code, ended_us=record.time_us, changed=record.position)
        return over, changed
    if any(member.began_us and not member.ended_us for member in members.values()):
        return operation, changed
    assert operation.verdict is not None, "asked for only then"
    for member in members.values():
        if not member.ended_us:  # it never set out
            stays = replace(member, ended_us=record.time_us, text=_STAYS)
            changed[member.subject] = stays
            operation = _counted(operation, member, stays)
    over = replace(operation, state=operation.verdict, ended_us=record.time_us, changed=record.position)
    return over, changed


def _same_run(operation: Operation, one: Seen) -> bool:
    """Whether an event is about what is meant: the same run of a VM; of the cluster, a node that is due."""
    if one.subject.startswith("vm/"):
        epoch = getattr(one.event, "epoch", None)
        return not operation.epoch or epoch is None or epoch >= operation.epoch
    return not operation.nodes or getattr(one.event, "node", "") in operation.nodes


_STAYS = "stays where it is"
_REFUSALS = frozenset({CommandRejected.TYPE, AccessRefused.TYPE})
_DEPARTURES: dict[Course, tuple[type[Any], ...]] = {
    Course.EMPTYING: (m.VmMigrationRequested, m.VmRecovered),
    Course.RECOVERY: (m.VmRecovered,),
}
"""How VMs leave the node that such an operation is about, whoever asked for it."""
_REMOVALS = (e.VmRemoved, n.NodeRemoved, w.WebhookRemoved)
"""What it was about is gone, and nothing will come of it any more."""
