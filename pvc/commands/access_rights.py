"""What a principal may do at this position of the log, by its grants, its token and the table. Pure.

Asked twice of a command: when it comes in, and again by its `decide`, against the very state that its record continues.
So a role that was taken away, or a VM that has left the scope meanwhile, counts.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from pvc.commands.access_table import Action, Verdict, includes, roles_for, verdict
from pvc.commands.base import Context, Decide, Decision, quoted
from pvc.commands.vm_define import RenameVm
from pvc.errors import Forbidden
from pvc.events.access import Grant
from pvc.events.types import Role
from pvc.events.vm import VmRenamed
from pvc.projections.access_state import Token
from pvc.projections.state import ClusterState, Vm

ROOT_GRANTS = (Grant(role=Role.ADMIN),)
"""Root on a node can read and stop everything there; to refuse it anything would be a pretence."""


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as far as the state knows them."""

    token: str = ""
    """The token's id; empty for root, who comes through the socket of a node and needs none."""
    shown: str = "root"
    """How a message names them: sealed, for a token's owner."""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What of an action is allowed."""

    everything: bool = False
    own: str = ""
    """Only what is this principal's own (the name as in events), where it is not empty."""
    most: Role = Role.ADMIN
    """The role of the token that asks, which no other token that it changes may exceed."""
    scopes: tuple[Grant, ...] = ()
    """Only for VMs that one of these covers, where there are some."""

    @property
    def nothing(self) -> bool:
        """Whether it is refused."""
        return not (self.everything or self.own or self.scopes)

    def covers(self, vm: Vm | None) -> bool:
        """Whether it is allowed for this VM, as it is now; None is one that is gone."""
        if self.everything or vm is None:
            return self.everything
        return self.covers_named(vm.name, vm.tags)

    def covers_named(self, name: str, tags: Any) -> bool:
        """Whether it is allowed for a VM of this name with these tags."""
        return self.everything or any(_covers(scope, name, tags) for scope in self.scopes)

    def covers_principal(self, name: str) -> bool:
        """Whether it is allowed for this principal and its tokens."""
        return self.everything or (bool(self.own) and self.own == name)


def grants_of(state: ClusterState, token: Token) -> Sequence[Grant]:
    """What the owner of a token was given; nothing where the owner was removed."""
    principal = state.principals.get(token.principal)
    return principal.grants if principal is not None else ()


def rights_of(state: ClusterState, asker: Asker, action: Action) -> Rights:
    """What of an action is allowed to somebody."""
    if not asker.token:
        return _rights(action, ROOT_GRANTS, Role.ADMIN, "root")
    token = state.tokens.get(asker.token)
    if token is None:
        return Rights()
    return _rights(action, grants_of(state, token), token.role, token.principal)


def rights_by_grants(action: Action, grants: Sequence[Grant]) -> Rights:
    """What of an action is allowed to whoever has these grants, and a token that limits nothing."""
    return _rights(action, grants, Role.ADMIN, "")


def require(state: ClusterState, asker: Asker, action: Action) -> Rights:
    """The rights, where there are any. Raises Forbidden."""
    rights = rights_of(state, asker, action)
    if rights.nothing:
        raise Forbidden(
            f"{asker.shown} ({described(state, asker)}) may not do this: it is {action}, "
            f"for {' or '.join(roles_for(action))}{_where(action)}",
            hint="`pvc access info` shows what you may do; docs/access.md has the whole table",
        )
    return rights


def _where(action: Action) -> str:
    """What else it takes, for who has the role on some VMs and is refused."""
    refused = all(verdict(action, role, limited=True) is Verdict.DENY for role in roles_for(action))
    return " on the whole cluster" if refused else ""


def described(state: ClusterState, asker: Asker) -> str:
    """The roles of somebody in a few words."""
    if not asker.token:
        return str(Role.ADMIN)
    token = state.tokens.get(asker.token)
    grants = grants_of(state, token) if token is not None else ()
    told = " and ".join(dict.fromkeys(f"{grant.role} on some VMs" if grant.limited else grant.role for grant in grants))
    limited = token is not None and token.role not in (Role.ADMIN, *(grant.role for grant in grants))
    return (told or "no role") + (f", with a token for {token.role} at most" if limited and token is not None else "")


def require_vm(state: ClusterState, rights: Rights, ref: str) -> None:
    """Raise Forbidden where somebody who is limited to some VMs asks for another. Whether there is such a VM, whoever
    may not see it is not told."""
    if rights.everything:
        return
    vm = state.vms.get(state.vm_names.get(ref, ref))
    if vm is None or not rights.covers(vm):
        raise _out_of_scope(ref)


def require_covered(state: ClusterState, rights: Rights, command: Any) -> None:
    """Raise Forbidden where a command is about another's VM or token than the rights are for."""
    if rights.scopes:
        require_vm(state, rights, getattr(command, "vm", ""))
        if isinstance(command, RenameVm):
            # Before it is decided: that a name beyond the scope is taken would tell of another's VM.
            vm = state.vms[state.vm_names.get(command.vm, command.vm)]
            _require_name(rights, command.name, vm)
    if rights.own:
        _require_own(state, rights, command)


def guarded(decide: Decide, action: Action, asker: Asker) -> Decide:
    """A `decide` that asks for the rights first, against the state that it decides on."""
    return functools.partial(_decide_if_allowed, decide, action, asker)


def _decide_if_allowed(
    decide: Decide, action: Action, asker: Asker, state: ClusterState, command: Any, context: Context
) -> Decision:
    rights = require(state, asker, action)
    if rights.everything:
        decision: Decision = decide(state, command, context)
        return decision
    require_covered(state, rights, command)
    decision = decide(state, command, context)
    for event in decision.events:
        # A new name may leave the scope, or be meant to come into somebody else's.
        if rights.scopes and isinstance(event, VmRenamed):
            _require_name(rights, event.name, state.vms[event.vm])
    return decision


def _require_name(rights: Rights, name: str, vm: Vm) -> None:
    if not rights.covers_named(name, vm.tags):
        raise _out_of_scope(name)


def _require_own(state: ClusterState, rights: Rights, command: Any) -> None:
    token = state.tokens.get(getattr(command, "token", ""))
    if token is None or token.principal != rights.own:
        raise Forbidden(
            f"the token {quoted(getattr(command, 'token', ''))} is not one of yours",
            code="access.not_own",
            hint="`pvc access token list` shows yours; an admin may change those of others",
            field="token",
        )
    # Who has a token for little, perhaps not from its owner, must not come by one for more.
    if not includes(rights.most, token.role):
        raise Forbidden(
            f"the token {token.id} is for {token.role} at most, and the one that you ask with for {rights.most}",
            code="access.token_beyond",
            hint="ask with that token itself, or one that may do as much; or an admin does it",
            field="token",
        )


def _rights(action: Action, grants: Sequence[Grant], most: Role, name: str) -> Rights:
    """The union over the grants, of what the token's own role lets through."""
    ceiling = verdict(action, most, limited=False)
    everything, own, scopes = False, "", list[Grant]()
    for grant in grants:
        said = verdict(action, grant.role, limited=grant.limited)
        if Verdict.DENY in (said, ceiling):
            continue
        if Verdict.OWN in (said, ceiling):
            own = name
        elif said is Verdict.IN_SCOPE:
            scopes.append(grant)
        else:
            everything = True
    return Rights(everything=True) if everything else Rights(own=own, most=most, scopes=tuple(scopes))


def _covers(scope: Grant, name: str, tags: Any) -> bool:
    if scope.tag and scope.tag not in tags:
        return False
    return not scope.name or _matcher(scope.name)(name) is not None


@functools.lru_cache(maxsize=1_000)
def _matcher(pattern: str) -> Any:
    return re.compile(fnmatch.translate(pattern)).match


def _out_of_scope(ref: str) -> Forbidden:
    return Forbidden(
        f"your role does not cover a VM {quoted(ref)}",
        code="access.out_of_scope",
        hint="`pvc vm list` shows the VMs that it covers, `pvc access info` what it is",
        field="vm",
    )
