"""Who may do what: the one table of actions, roles and reaches. Everything that decides about access asks it. Pure.

Each endpoint and each command names its action. A role is given on the whole cluster or limited to some VMs, and for
either the table has a word: allowed, refused, allowed for those VMs, or allowed for what is one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from pvc.events.types import Role


class Action(StrEnum):
    """What can be asked for, in kinds that are allowed or refused together."""

    SELF_LOGIN = "self.login"
    """Needs no token at all."""
    SELF_READ = "self.read"
    CLUSTER_READ = "cluster.read"
    VM_READ = "vm.read"
    HISTORY_READ = "history.read"
    PAST_READ = "past.read"
    METRICS_READ = "metrics.read"
    LOG_READ = "log.read"
    LOG_VERIFY = "log.verify"
    CONSOLE_READ = "console.read"
    CONSOLE_WRITE = "console.write"
    VM_RUN = "vm.run"
    VM_MOVE = "vm.move"
    VM_CONFIGURE = "vm.configure"
    VM_DEFINE = "vm.define"
    UNDO = "undo"
    FAULT_ACKNOWLEDGE = "fault.acknowledge"
    CLUSTER_MANAGE = "cluster.manage"
    LOG_MANAGE = "log.manage"
    LOG_COPY = "log.copy"
    TOKEN_MANAGE = "token.manage"  # noqa: S105 - a word, not a secret
    ACCESS_READ = "access.read"
    ACCESS_MANAGE = "access.manage"
    AUDIT_READ = "audit.read"
    PEOPLE_MANAGE = "people.manage"
    WEBHOOK_READ = "webhook.read"
    WEBHOOK_INSPECT = "webhook.inspect"
    WEBHOOK_MANAGE = "webhook.manage"


class Verdict(StrEnum):
    """What the table says."""

    ALLOW = "allow"
    IN_SCOPE = "in scope"
    """For the VMs that the role is limited to; lists leave out the others."""
    OWN = "own"
    """For oneself and one's own tokens; lists leave out the others."""
    DENY = "deny"


class Cell(NamedTuple):
    """What holds for a role."""

    whole: Verdict
    """Given on the whole cluster."""
    limited: Verdict
    """Limited to some VMs."""


Row = Mapping[Role, Cell]

_YES = Cell(Verdict.ALLOW, Verdict.ALLOW)
_VMS = Cell(Verdict.ALLOW, Verdict.IN_SCOPE)
_WHOLE = Cell(Verdict.ALLOW, Verdict.DENY)
_OWN = Cell(Verdict.OWN, Verdict.OWN)
_ADMIN_OR_OWN = Cell(Verdict.ALLOW, Verdict.OWN)
_NO = Cell(Verdict.DENY, Verdict.DENY)


def _row(viewer: Cell, operator: Cell, admin: Cell, auditor: Cell) -> Row:
    return {Role.VIEWER: viewer, Role.OPERATOR: operator, Role.ADMIN: admin, Role.AUDITOR: auditor}


TABLE: Mapping[Action, Row] = {
    #                           viewer  operator admin auditor
    Action.SELF_LOGIN: _row(_YES, _YES, _YES, _YES),
    Action.SELF_READ: _row(_YES, _YES, _YES, _YES),
    Action.CLUSTER_READ: _row(_YES, _YES, _YES, _YES),
    Action.VM_READ: _row(_VMS, _VMS, _VMS, _VMS),
    Action.HISTORY_READ: _row(_VMS, _VMS, _VMS, _VMS),
    Action.PAST_READ: _row(_WHOLE, _WHOLE, _WHOLE, _WHOLE),
    # What everybody does at a gateway is counted there, and VMs are named: not for who sees only some.
    Action.METRICS_READ: _row(_WHOLE, _WHOLE, _WHOLE, _WHOLE),
    Action.LOG_READ: _row(_WHOLE, _WHOLE, _WHOLE, _WHOLE),
    Action.LOG_VERIFY: _row(_NO, _WHOLE, _WHOLE, _WHOLE),
    Action.CONSOLE_READ: _row(_VMS, _VMS, _VMS, _NO),
    Action.CONSOLE_WRITE: _row(_NO, _VMS, _VMS, _NO),
    Action.VM_RUN: _row(_NO, _VMS, _VMS, _NO),
    Action.VM_MOVE: _row(_NO, _VMS, _VMS, _NO),
    Action.VM_CONFIGURE: _row(_NO, _VMS, _VMS, _NO),
    # A definition names files of the nodes: who may write one can read every other VM's disk.
    Action.VM_DEFINE: _row(_NO, _WHOLE, _WHOLE, _NO),
    Action.UNDO: _row(_NO, _WHOLE, _WHOLE, _NO),
    Action.FAULT_ACKNOWLEDGE: _row(_NO, _WHOLE, _WHOLE, _NO),
    Action.CLUSTER_MANAGE: _row(_NO, _NO, _WHOLE, _NO),
    Action.LOG_MANAGE: _row(_NO, _NO, _WHOLE, _NO),
    Action.LOG_COPY: _row(_NO, _NO, _WHOLE, _NO),
    Action.TOKEN_MANAGE: _row(_OWN, _OWN, _ADMIN_OR_OWN, _OWN),
    Action.ACCESS_READ: _row(_OWN, _OWN, _ADMIN_OR_OWN, _ADMIN_OR_OWN),
    Action.ACCESS_MANAGE: _row(_NO, _NO, _WHOLE, _NO),
    Action.AUDIT_READ: _row(_NO, _NO, _WHOLE, _WHOLE),
    Action.PEOPLE_MANAGE: _row(_NO, _NO, _WHOLE, _NO),
    Action.WEBHOOK_READ: _row(_WHOLE, _WHOLE, _WHOLE, _WHOLE),
    # What receivers answered, of which nobody knows what is in it.
    Action.WEBHOOK_INSPECT: _row(_NO, _WHOLE, _WHOLE, _WHOLE),
    # Whoever may have events sent out of the cluster decides who reads them.
    Action.WEBHOOK_MANAGE: _row(_NO, _NO, _WHOLE, _NO),
}


def verdict(action: Action, role: Role, *, limited: bool) -> Verdict:
    """The table's word."""
    cell = TABLE[action][role]
    return cell.limited if limited else cell.whole


def includes(most: Role, role: Role) -> bool:
    """Whether the one role may do, on the whole cluster, all that the other may."""
    return all(_RANKS[row[role].whole] <= _RANKS[row[most].whole] for row in TABLE.values())


_RANKS = {Verdict.DENY: 0, Verdict.OWN: 1, Verdict.ALLOW: 2}
"""Of the words for a role on the whole cluster."""


def roles_for(action: Action) -> list[Role]:
    """The roles that may do it at all, some perhaps only for what is theirs."""
    return [role for role, cell in TABLE[action].items() if cell.whole is not Verdict.DENY]


def least_role(action: Action) -> Role:
    """The first role in the order viewer, operator, admin that suffices on the whole cluster; for manuals."""
    return roles_for(action)[0]


def told_action(action: Action) -> str:
    """For manuals: the action, and who may do it, some perhaps only for what is theirs."""
    return f"Action `{action}`: {', '.join(roles_for(action))}"
