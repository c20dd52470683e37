"""What a login comes to, as it is decided and folded; and what the issuer's claims make of a person."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.access import CreateToken, RotateToken, create_token, rotate_token
from pvc.commands.access_login import MAX_LOGINS, LogIn, LoseRoles, log_in, lose_roles
from pvc.commands.access_rights import Asker, rights_of
from pvc.commands.access_table import Action
from pvc.commands.base import Context, Decision
from pvc.daemon.config import load_config
from pvc.errors import Forbidden, InvalidInput, Rejected
from pvc.events.access import Grant, LoggedIn, PrincipalModified, TokenRevoked
from pvc.events.types import Role
from pvc.oidc.people import GroupRole, grant_of, person_of
from tests.support.core import ADMIN, SECOND_US, TinyCluster

VIEWER, OPERATOR = Grant(role=Role.VIEWER), Grant(role=Role.OPERATOR, tag="shop")


@pytest.fixture
def cluster() -> TinyCluster:
    made = TinyCluster()
    made.do("cluster.init", name="main", token_id="admin000", token_sha256="5f" * 32)
    return made


def context(cluster: TinyCluster) -> Context:
    return Context(command_id=f"c{cluster.time_us}", time_us=cluster.time_us, actor=ADMIN)


def login(cluster: TinyCluster, token: str, *grants: Grant, identity: str = "1" * 64, **fields: Any) -> Decision:
    command = LogIn(
        principal=fields.pop("name", "anna"),
        identity=identity,
        grants=grants or (VIEWER,),
        lifetime_s=3600,
        token_id=token,
        token_sha256="5e" * 32,
        node="hv1",
        issuer="https://id.example.org",
        how="browser",
        **fields,
    )
    decision = log_in(cluster.state, command, context(cluster))
    cluster.record(*decision.events, name="access.log_in")
    return decision


def tokens(cluster: TinyCluster) -> list[str]:
    return [token.id for token in cluster.state.tokens.values() if token.principal == "anna"]


def test_the_first_login_makes_the_person_and_the_groups_of_each_login_count(cluster: TinyCluster) -> None:
    first = login(cluster, "anna0001")
    assert isinstance(first.events[-1], LoggedIn)
    assert rights_of(cluster.state, Asker(token="anna0001", shown="anna"), Action.VM_READ).everything
    second = login(cluster, "anna0002", OPERATOR)
    assert any(isinstance(event, PrincipalModified) for event in second.events)
    third = login(cluster, "anna0003", OPERATOR)
    assert not any(isinstance(event, PrincipalModified) for event in third.events)
    rights = rights_of(cluster.state, Asker(token="anna0001", shown="anna"), Action.VM_READ)
    assert rights.scopes == (OPERATOR,), "older tokens too"


def test_the_oldest_of_too_many_ends_and_the_one_that_is_replaced(cluster: TinyCluster) -> None:
    for number in range(MAX_LOGINS + 2):
        login(cluster, f"anna{number:04}")
    assert tokens(cluster) == [f"anna{number:04}" for number in range(2, MAX_LOGINS + 2)]
    login(cluster, "annanext", replaces="anna0005")
    assert "anna0005" not in tokens(cluster) and "anna0002" in tokens(cluster)
    login(cluster, "annalast", replaces="admin000")
    assert "admin000" in cluster.state.tokens, "nobody ends another's"


def test_tokens_that_have_expired_go_with_the_next_login(cluster: TinyCluster) -> None:
    login(cluster, "anna0001")
    cluster.time_us += 3_601 * SECOND_US
    decision = login(cluster, "anna0002")
    assert TokenRevoked(token="anna0001") in decision.events


@pytest.mark.parametrize("name", ["admin", "anna"])
def test_a_name_of_somebody_elses_is_refused(cluster: TinyCluster, name: str) -> None:
    login(cluster, "anna0001")
    with pytest.raises(Forbidden) as refusal:
        login(cluster, "evil0001", identity="2" * 64, name=name)
    assert refusal.value.code == "access.name_taken"


def test_who_comes_by_the_issuer_has_no_other_tokens(cluster: TinyCluster) -> None:
    login(cluster, "anna0001")
    for decide, command in (
        (create_token, CreateToken(principal="anna", token_id="anna0002", token_sha256="5d" * 32)),
        (rotate_token, RotateToken(token="anna0001", token_id="anna0002", token_sha256="5d" * 32)),
    ):
        with pytest.raises(Rejected) as refusal:
            decide(cluster.state, command, context(cluster))  # type: ignore[operator]
        assert refusal.value.code == "access.by_login_only"


def test_who_has_no_role_any_more_loses_all_but_nobody_else_does(cluster: TinyCluster) -> None:
    login(cluster, "anna0001")
    for command in (
        LoseRoles(principal="anna", identity="2" * 64),
        LoseRoles(principal="admin", identity=""),
        LoseRoles(principal="nobody", identity="1" * 64),
    ):
        assert not lose_roles(cluster.state, command, context(cluster)).events, command
    decision = lose_roles(cluster.state, LoseRoles(principal="anna", identity="1" * 64), context(cluster))
    cluster.record(*decision.events)
    assert tokens(cluster) == [] and cluster.state.principals["anna"].grants == ()
    assert "admin000" in cluster.state.tokens


def test_groups_are_found_by_name_or_inside_of_others() -> None:
    roles = (
        GroupRole(group="shop", grant="operator,tag=shop"),
        GroupRole(group="*", grant="viewer"),
        GroupRole(group="cn=admins,ou=x", grant="admin"),
    )
    claims: dict[str, Any] = {
        "sub": "u-1",
        "preferred_username": "anna",
        "realm_access": {"roles": ["shop", 7]},
        "https://example.org/groups": "cn=admins,ou=x",
    }
    by_path = person_of(claims, name_claim="preferred_username", groups_claim="realm_access.roles", roles=roles)
    assert by_path.grants == (OPERATOR, VIEWER)
    by_name = person_of(claims, name_claim="preferred_username", groups_claim="https://example.org/groups", roles=roles)
    assert by_name.grants == (VIEWER, Grant(role=Role.ADMIN))
    nothing = person_of(claims, name_claim="preferred_username", groups_claim="groups", roles=roles[:1])
    assert nothing.grants == ()
    with pytest.raises(Forbidden, match="not verified"):
        person_of({**claims, "email": "a@b"}, name_claim="email", groups_claim="groups", roles=roles)


@pytest.mark.parametrize("text", ["king", "operator,tag", "operator,color=red", "operator,tag=a,tag=b", ""])
def test_a_grant_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ValueError):
        grant_of(text)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('issuer = "http://id.example.org"', "cannot be used"),
        ('issuer = "https://id.example.org"', "no oidc.client_id"),
        ('issuer = "https://id.example.org"\nclient_id = "pvc"', "oidc.roles"),
        ('issuer = "https://id.example.org"\nclient_id = "pvc"\nscopes = ["profile"]', "without openid"),
        (
            'issuer = "https://id.example.org"\nclient_id = "pvc"\n[[oidc.roles]]\ngroup = "a"\ngrant = "king"',
            "a grant 'king'",
        ),
    ],
)
def test_a_configuration_that_lets_nobody_or_anybody_in_is_refused(tmp_path: Any, lines: str, said: str) -> None:
    file = tmp_path / "pvc.toml"
    file.write_text(f"[node]\nname = 'hv1'\n[oidc]\n{lines}\n")
    with pytest.raises(InvalidInput, match=said):
        load_config(file)
