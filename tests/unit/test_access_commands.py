"""Principals, grants and tokens, as they are decided and folded."""

from __future__ import annotations

import msgspec
import pytest

from pvc.commands.access import DAY_S, MAX_TOKENS, CreateToken, RotateToken, create_token, rotate_token
from pvc.commands.access_rights import Asker, guarded, require_vm, rights_of
from pvc.commands.access_table import Action, Verdict, verdict
from pvc.commands.base import CommandSpec, Context
from pvc.commands.registry import BY_NAME, COMMANDS
from pvc.commands.vm_define import RenameVm, rename_vm
from pvc.commands.vm_power import StartVm, start_vm
from pvc.errors import Forbidden, InvalidInput, NotFound, Rejected
from pvc.events.access import Grant, TokenCreated, TokenUsed
from pvc.events.types import Role
from pvc.projections.evolve_access import EXPIRED_KEPT_US
from pvc.projections.snapshot import restore, snapshot
from tests.support.core import ADMIN, SECOND_US, TinyCluster

HASH = "5f" * 32


@pytest.fixture
def cluster() -> TinyCluster:
    made = TinyCluster()
    made.do("cluster.init", name="main", token_id="admin000", token_sha256=HASH)
    made.says_ready()
    for name, tags in (("shop01", ["shop"]), ("bank01", [])):
        made.do("vm.define", name=name, memory_mib=64, tags=tags)
    return made


def member(cluster: TinyCluster, name: str, *grants: dict[str, str], token: str = "", role: str = "admin") -> Asker:
    """A principal with a token."""
    cluster.do("access.add", principal=name, grants=list(grants))
    token = token or f"{name}0000"
    cluster.do("access.create_token", principal=name, token_id=token, token_sha256=HASH, role=role)
    return Asker(token=token, shown=name)


def context(cluster: TinyCluster) -> Context:
    return Context(command_id="c", time_us=cluster.time_us, actor=ADMIN)


def test_the_first_token_makes_its_owner_an_admin(cluster: TinyCluster) -> None:
    admin = cluster.state.principals["admin"]
    assert admin.grants == (Grant(role=Role.ADMIN),)
    assert rights_of(cluster.state, Asker(token="admin000", shown="admin"), Action.ACCESS_MANAGE).everything


def test_what_grants_allow_adds_up_and_a_token_limits_it(cluster: TinyCluster) -> None:
    grants = ({"role": "operator", "tag": "shop"}, {"role": "viewer"})
    anna = member(cluster, "anna", *grants)
    assert rights_of(cluster.state, anna, Action.VM_READ).everything
    run = rights_of(cluster.state, anna, Action.VM_RUN)
    assert run.covers(cluster.vm("shop01")) and not run.covers(cluster.vm("bank01")) and not run.covers(None)
    bert = member(cluster, "bert", *grants, role="viewer")
    assert rights_of(cluster.state, bert, Action.VM_READ).everything
    assert rights_of(cluster.state, bert, Action.VM_RUN).nothing
    carl = member(cluster, "carl", {"role": "admin"}, role="auditor")
    assert rights_of(cluster.state, carl, Action.AUDIT_READ).everything
    assert rights_of(cluster.state, carl, Action.VM_RUN).nothing


@pytest.mark.parametrize(
    ("grant", "covered"),
    [
        ({"tag": "shop"}, True),
        ({"tag": "bank"}, False),
        ({"name": "shop*"}, True),
        ({"name": "shop0[2-9]"}, False),
        ({"name": "SHOP*"}, None),
        ({"tag": "shop", "name": "bank*"}, False),
        ({"tag": "shop", "name": "*01"}, True),
        ({}, True),
    ],
)
def test_a_scope_is_a_tag_a_pattern_or_both(cluster: TinyCluster, grant: dict[str, str], covered: bool | None) -> None:
    if covered is None:
        with pytest.raises(msgspec.ValidationError):
            member(cluster, "anna", {"role": "operator", **grant})
        return
    anna = member(cluster, "anna", {"role": "operator", **grant})
    assert rights_of(cluster.state, anna, Action.VM_RUN).covers(cluster.vm("shop01")) is covered


def test_a_limited_command_is_decided_for_covered_vms_alone_and_tells_nothing_of_others(cluster: TinyCluster) -> None:
    anna = member(cluster, "anna", {"role": "operator", "tag": "shop"})
    start = guarded(start_vm, Action.VM_RUN, anna)
    assert start(cluster.state, StartVm(vm="shop01"), context(cluster)).events
    refusals = []
    for name in ("bank01", "nowhere"):
        with pytest.raises(Forbidden) as refused:
            start(cluster.state, StartVm(vm=name), context(cluster))
        refusals.append(refused.value.message.replace(name, "X"))
    assert len(set(refusals)) == 1
    cluster.do("vm.remove_tag", vm="shop01", tag="shop")
    with pytest.raises(Forbidden):
        start(cluster.state, StartVm(vm="shop01"), context(cluster))


COVERABLE = [spec for spec in COMMANDS if verdict(spec.action, Role.OPERATOR, limited=True) is Verdict.IN_SCOPE]


@pytest.mark.parametrize("spec", COVERABLE, ids=lambda spec: spec.name)
def test_no_command_about_a_vm_gets_past_the_scope(cluster: TinyCluster, spec: CommandSpec) -> None:
    anna = member(cluster, "anna", {"role": "operator", "tag": "shop"})
    decide = guarded(spec.decide, spec.action, anna)
    for ref in ("bank01", cluster.vm("bank01").id, "nowhere", ""):
        given = msgspec.structs.replace(msgspec.convert({**spec.example, "vm": "bank01"}, spec.struct), vm=ref)
        with pytest.raises(Forbidden) as refused:
            decide(cluster.state, given, context(cluster))
        assert refused.value.code == "access.out_of_scope"


def test_by_its_id_a_vm_is_covered_or_not_as_by_its_name(cluster: TinyCluster) -> None:
    rights = rights_of(cluster.state, member(cluster, "anna", {"role": "viewer", "tag": "shop"}), Action.VM_READ)
    require_vm(cluster.state, rights, cluster.vm("shop01").id)
    with pytest.raises(Forbidden):
        require_vm(cluster.state, rights, cluster.vm("bank01").id)


def test_a_vm_is_not_renamed_out_of_the_scope(cluster: TinyCluster) -> None:
    anna = member(cluster, "anna", {"role": "operator", "name": "shop*"})
    rename = guarded(rename_vm, Action.VM_CONFIGURE, anna)
    assert rename(cluster.state, RenameVm(vm="shop01", name="shop02"), context(cluster)).events
    with pytest.raises(Forbidden) as refused:
        rename(cluster.state, RenameVm(vm="shop01", name="bank02"), context(cluster))
    assert refused.value.code == "access.out_of_scope"


def test_what_was_taken_away_counts_when_it_is_decided(cluster: TinyCluster) -> None:
    anna = member(cluster, "anna", {"role": "operator"})
    start = guarded(start_vm, Action.VM_RUN, anna)
    assert start(cluster.state, StartVm(vm="shop01"), context(cluster)).events
    cluster.do("access.modify", principal="anna", grants=[{"role": "viewer"}])
    with pytest.raises(Forbidden):
        start(cluster.state, StartVm(vm="shop01"), context(cluster))
    cluster.do("access.modify", principal="anna", grants=[{"role": "operator"}])
    cluster.do("access.revoke_token", token="anna0000")
    with pytest.raises(Forbidden):
        start(cluster.state, StartVm(vm="shop01"), context(cluster))


def test_a_removed_principal_has_no_tokens_and_may_come_again(cluster: TinyCluster) -> None:
    first = member(cluster, "anna", {"role": "operator"})
    cluster.do("access.remove", principal="anna")
    assert "anna" not in cluster.state.principals and first.token not in cluster.state.tokens
    again = member(cluster, "anna", {"role": "viewer"}, token="anna1111")
    assert rights_of(cluster.state, first, Action.VM_READ).nothing
    assert rights_of(cluster.state, again, Action.VM_READ).everything


def test_who_is_not_root_and_has_no_token_may_nothing(cluster: TinyCluster) -> None:
    assert all(rights_of(cluster.state, Asker(token="-"), action).nothing for action in Action)
    assert all(rights_of(cluster.state, Asker(), action).everything for action in Action)


def test_a_token_is_rotated_once_with_its_role_and_length_of_life(cluster: TinyCluster) -> None:
    member(cluster, "anna", {"role": "admin"}, role="viewer")
    old = cluster.state.tokens["anna0000"]
    cluster.do("access.rotate_token", token="anna0000", token_id="anna1111", token_sha256=HASH, overlap_s=60)
    old_after, new = cluster.state.tokens["anna0000"], cluster.state.tokens["anna1111"]
    assert (new.role, new.principal) == (Role.VIEWER, "anna")
    assert abs((new.expires_us - new.created_us) - (old.expires_us - old.created_us)) <= SECOND_US
    assert old_after.replaced_by == "anna1111" and old_after.expires_us < new.created_us + 61 * SECOND_US
    cluster.record(TokenUsed(token="anna1111", node="hv1"))
    for token in ("anna0000", "nowhere0"):
        with pytest.raises(Rejected):
            rotate_token(cluster.state, RotateToken(token=token, token_id="anna2222"), context(cluster))


def test_a_new_token_that_was_never_used_gives_way_to_another(cluster: TinyCluster) -> None:
    member(cluster, "anna", {"role": "viewer"})
    for successor in ("anna1111", "anna2222", "anna3333"):
        cluster.do("access.rotate_token", token="anna0000", token_id=successor, token_sha256=HASH)
    tokens = [one.id for one in cluster.state.tokens.values() if one.principal == "anna"]
    assert tokens == ["anna0000", "anna3333"] and cluster.state.tokens["anna0000"].replaced_by == "anna3333"
    last = cluster.state.tokens["anna3333"]
    assert last.expires_us - last.created_us >= 364 * DAY_S * SECOND_US, "of the length of life of the first, each time"


def test_rotating_never_makes_an_old_token_live_longer(cluster: TinyCluster) -> None:
    cluster.do("access.add", principal="anna", grants=[{"role": "viewer"}])
    cluster.do("access.create_token", principal="anna", token_id="anna0000", token_sha256=HASH, lifetime_s=30)
    before = cluster.state.tokens["anna0000"].expires_us
    cluster.do("access.rotate_token", token="anna0000", token_id="anna1111", token_sha256=HASH, overlap_s=DAY_S)
    assert cluster.state.tokens["anna0000"].expires_us == before
    cluster.time_us += 3600 * SECOND_US
    with pytest.raises(Rejected) as refused:
        rotate_token(cluster.state, RotateToken(token="anna1111", token_id="anna2222"), context(cluster))
    assert refused.value.code == "access.token_over"


def test_a_principal_has_only_so_many_tokens_and_expired_ones_go(cluster: TinyCluster) -> None:
    cluster.do("access.add", principal="anna", grants=[{"role": "viewer"}])
    for number in range(MAX_TOKENS):
        cluster.do("access.create_token", principal="anna", token_id=f"anna{number:04}", token_sha256=HASH)
    more = CreateToken(principal="anna", token_id="anna9999")
    with pytest.raises(Rejected) as refused:
        create_token(cluster.state, more, context(cluster))
    assert refused.value.code == "access.too_many"
    cluster.time_us += 366 * DAY_S * SECOND_US
    cluster.do("access.create_token", principal="anna", token_id="annanext", token_sha256=HASH)
    assert len([one for one in cluster.state.tokens.values() if one.principal == "anna"]) == MAX_TOKENS + 1
    cluster.time_us += EXPIRED_KEPT_US
    cluster.do("access.create_token", principal="anna", token_id="annalast", token_sha256=HASH)
    assert [one.id for one in cluster.state.tokens.values() if one.principal == "anna"] == ["annanext", "annalast"]


@pytest.mark.parametrize(
    ("name", "fields", "error"),
    [
        ("access.add", {"principal": "admin", "grants": [{"role": "viewer"}]}, Rejected),
        ("access.add", {"principal": "anna", "grants": [{"role": "viewer"}, {"role": "viewer"}]}, InvalidInput),
        ("access.add", {"principal": "anna", "grants": []}, msgspec.ValidationError),
        ("access.add", {"principal": "root", "grants": [{"role": "viewer"}]}, msgspec.ValidationError),
        ("access.add", {"principal": "erased-3f2a91c0", "grants": [{"role": "viewer"}]}, msgspec.ValidationError),
        ("access.add", {"principal": "anna", "grants": [{"role": "king"}]}, msgspec.ValidationError),
        ("access.modify", {"principal": "anna", "grants": [{"role": "viewer"}]}, NotFound),
        ("access.remove", {"principal": "anna"}, NotFound),
        ("access.create_token", {"principal": "anna", "token_id": "anna0000", "token_sha256": HASH}, NotFound),
        ("access.revoke_token", {"token": "nowhere0"}, NotFound),
    ],
)
def test_what_makes_no_sense_is_refused(
    cluster: TinyCluster, name: str, fields: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        cluster.do(name, **fields)


def test_modifying_nothing_changes_nothing_and_losing_the_last_admin_is_said(cluster: TinyCluster) -> None:
    assert cluster.do("access.modify", principal="admin", grants=[{"role": "admin"}]) == ()
    cluster.do("access.add", principal="anna", grants=[{"role": "admin", "tag": "shop"}])
    noted = cluster.decide_and_record(
        msgspec.convert({"principal": "admin", "grants": [{"role": "viewer"}]}, _struct("access.modify"))
    )
    assert "nobody but root" in noted.notes[0]


def _struct(name: str) -> type[msgspec.Struct]:
    return BY_NAME[name].struct


def test_principals_are_in_snapshots_and_in_the_hash(cluster: TinyCluster) -> None:
    before = cluster.state.state_hash()
    member(cluster, "anna", {"role": "operator", "tag": "shop"})
    again = restore(snapshot(cluster.state))
    assert again.principals == cluster.state.principals and again.state_hash() == cluster.state.state_hash() != before
    cluster.do("access.remove", principal="anna")
    assert cluster.state.state_hash() == before


def test_a_token_event_of_an_earlier_version_makes_a_principal_with_its_role(cluster: TinyCluster) -> None:
    cluster.record(TokenCreated(token="oldtoken", principal="old", role=Role.OPERATOR, secret_sha256=HASH))
    rights = rights_of(cluster.state, Asker(token="oldtoken", shown="old"), Action.VM_RUN)
    assert rights.everything and not cluster.state.tokens["oldtoken"].expired(1 << 60)
