"""Every cell of the table of who may do what, as docs/access.md prints it, against a running gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from pvc.commands.access_table import TABLE, Action, Verdict, includes, verdict
from pvc.events.types import Role
from pvc.gateway.app import all_endpoints
from pvc.gateway.console import CONSOLE_ACTION
from pvc.gateway.endpoint import Endpoint
from tests.unit.gateway_house import House, a_house

PAGE = Path(__file__).parents[2] / "docs" / "access.md"
MINE, OTHER = "shop01", "bank01"


class Probe(NamedTuple):
    """A request that belongs to an action, about `{vm}`, `{token}` or `{principal}` where it is about one."""

    method: str
    path: str


PROBES = {
    Action.SELF_LOGIN: Probe("GET", "/login"),
    Action.SELF_READ: Probe("GET", "/whoami"),
    Action.CLUSTER_READ: Probe("GET", "/nodes"),
    Action.VM_READ: Probe("GET", "/vms/{vm}"),
    Action.HISTORY_READ: Probe("GET", "/history?subject=vm/{vm}"),
    Action.PAST_READ: Probe("GET", "/diff?old=1"),
    Action.METRICS_READ: Probe("GET", "/metrics"),
    Action.LOG_READ: Probe("GET", "/log/records"),
    Action.LOG_VERIFY: Probe("GET", "/log/verify"),
    Action.CONSOLE_READ: Probe("GET", "/vms/{vm}/log"),
    Action.VM_RUN: Probe("POST", "/vms/{vm}/start?dry_run=true"),
    Action.VM_MOVE: Probe("POST", "/vms/{vm}/move?dry_run=true"),
    Action.VM_CONFIGURE: Probe("POST", "/vms/{vm}/autostart?dry_run=true&autostart=true"),
    Action.VM_DEFINE: Probe("PATCH", "/vms/{vm}?dry_run=true&memory_mib=64"),
    Action.UNDO: Probe("POST", "/undo/{undo}?dry_run=true"),
    Action.FAULT_ACKNOWLEDGE: Probe("POST", "/faults/acknowledge?dry_run=true&fault=none"),
    Action.CLUSTER_MANAGE: Probe("POST", "/cluster/maintenance?dry_run=true&maintenance=true"),
    Action.LOG_MANAGE: Probe("POST", "/log/rotate-key?dry_run=true&node=hv1"),
    Action.LOG_COPY: Probe("GET", "/log/replica"),
    Action.TOKEN_MANAGE: Probe("POST", "/tokens/{token}/rotate?dry_run=true"),
    Action.ACCESS_READ: Probe("GET", "/access/{principal}"),
    Action.ACCESS_MANAGE: Probe("DELETE", "/access/{principal}?dry_run=true"),
    Action.AUDIT_READ: Probe("GET", "/audit/logins"),
    Action.PEOPLE_MANAGE: Probe("POST", "/audit/erase?dry_run=true&principal=other"),
    Action.WEBHOOK_READ: Probe("GET", "/webhooks"),
    Action.WEBHOOK_INSPECT: Probe("GET", "/webhooks/none/deliveries"),
    Action.WEBHOOK_MANAGE: Probe("POST", "/webhooks/none/pause?dry_run=true"),
}
"""The console is a WebSocket: tested in tests/integration/test_gateway_served.py and below by its rights."""


def printed() -> dict[tuple[str, Role], tuple[str, str]]:
    """(action, role) -> the page's words for the whole cluster, and for some VMs."""
    text = PAGE.read_text().partition("## The table")[2].partition("What belongs to each action")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    found = {}
    for action, *cells in lines:
        for role, cell in zip(Role, cells, strict=True):
            whole, _, limited = cell.partition("; limited: ")
            found[action.strip("`"), role] = (whole, limited or whole)
    return found


CELLS = [
    pytest.param(action, role, limited, id=f"{action}-{role}-{'limited' if limited else 'whole'}")
    for action in PROBES
    for role in Role
    for limited in (False, True)
]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        await made.define(name=MINE, tags=["shop"])
        await made.define(name=OTHER)
        yield made


@pytest.mark.parametrize(("action", "role", "limited"), CELLS)
async def test_the_gateway_does_what_the_page_says(house: House, action: Action, role: Role, limited: bool) -> None:
    word = printed()[action, role][limited]
    grant = {"role": role.value, "tag": "shop"} if limited else {"role": role.value}
    await house.member("other", {"role": "viewer"})
    token = await house.member("anna", grant)
    others = next(one.id for one in house.state.tokens.values() if one.id not in token)
    probe, undone = PROBES[action], str(house.state.vms[house.state.vm_names[OTHER]].position)

    async def allowed(client: httpx.AsyncClient, vm: str, principal: str, token_id: str) -> bool:
        path = probe.path.format(vm=vm, principal=principal, token=token_id, undo=undone)
        reply = await client.request(probe.method, path)
        assert reply.status_code != 401 and reply.status_code < 500, reply.text
        if action is Action.HISTORY_READ and reply.status_code == 200:
            return bool(reply.json()["records"])
        return reply.status_code != 403

    async with house.outside_with(token) as anna:
        mine = await allowed(anna, MINE, "anna", token.split("_")[1])
        other = await allowed(anna, OTHER, "other", others)
    expected = {"allow": (True, True), "in scope": (True, False), "own": (True, False), "deny": (False, False)}
    assert (mine, other) == expected[word], (action, role, limited)


def test_the_page_prints_the_table_that_decides() -> None:
    assert printed() == {
        (str(action), role): (str(cell.whole), str(cell.limited))
        for action, row in TABLE.items()
        for role, cell in row.items()
    }


def test_every_action_has_a_probe_and_every_endpoint_an_action_of_the_table() -> None:
    assert set(PROBES) | {CONSOLE_ACTION} == set(Action) == set(TABLE)
    assert all(set(row) == set(Role) for row in TABLE.values())
    used = {endpoint.action for endpoint in all_endpoints()} | {CONSOLE_ACTION}
    assert used == set(Action), "an action that nothing belongs to"


LISTS = {
    "vm.list",
    "history.list",
    "event.stream",
    "access.list",
    "access.list_tokens",
    "operation.list",
    "operation.show",
    "operation.cancel",
}
"""What is not about one thing, and leaves out what may not be seen; an operation whose VMs one may not see is none, and
is cancelled by a command that is about a VM."""


@pytest.mark.parametrize("endpoint", all_endpoints(), ids=lambda endpoint: endpoint.name)
def test_what_is_limited_says_what_it_is_about(endpoint: Endpoint) -> None:
    """Else a limited role could not be held to it, and would be refused or, worse, let through."""
    words = {verdict(endpoint.action, role, limited=True) for role in Role}
    if Verdict.IN_SCOPE in words and endpoint.name not in LISTS:
        assert "{vm}" in endpoint.path
    if Verdict.OWN in words and endpoint.name not in LISTS:
        assert "{token}" in endpoint.path or "{principal}" in endpoint.path
    if endpoint.command is not None and Verdict.IN_SCOPE in words:
        assert "vm" in endpoint.command.struct.__struct_fields__
    if endpoint.command is not None and Verdict.OWN in words:
        assert "token" in endpoint.command.struct.__struct_fields__


CHANGES = {
    Action.CONSOLE_WRITE,
    Action.VM_RUN,
    Action.VM_MOVE,
    Action.VM_CONFIGURE,
    Action.VM_DEFINE,
    Action.UNDO,
    Action.FAULT_ACKNOWLEDGE,
    Action.CLUSTER_MANAGE,
    Action.LOG_MANAGE,
    Action.ACCESS_MANAGE,
    Action.PEOPLE_MANAGE,
    Action.WEBHOOK_MANAGE,
}


@pytest.mark.parametrize("action", Action)
def test_what_must_hold_whatever_the_table_says(action: Action) -> None:
    whole = {role: verdict(action, role, limited=False) for role in Role}
    limited = {role: verdict(action, role, limited=True) for role in Role}
    assert whole[Role.ADMIN] is Verdict.ALLOW, "an admin may do everything"
    for role in Role:
        # A limited role may at most what the whole one may.
        assert limited[role] is not Verdict.ALLOW or whole[role] is Verdict.ALLOW
        assert whole[role] is not Verdict.DENY or limited[role] is Verdict.DENY
    if action in CHANGES:
        assert whole[Role.VIEWER] is whole[Role.AUDITOR] is Verdict.DENY, "they change nothing"
        assert Verdict.ALLOW not in limited.values(), "what is limited changes nothing beyond"
    admins = (Action.ACCESS_MANAGE, Action.LOG_COPY, Action.PEOPLE_MANAGE, Action.LOG_MANAGE, Action.WEBHOOK_MANAGE)
    if action in (Action.AUDIT_READ, *admins):
        assert whole[Role.OPERATOR] is Verdict.DENY and set(limited.values()) == {Verdict.DENY}


def test_which_role_may_all_that_another_may() -> None:
    within = {(most, role) for most in Role for role in Role if most is not role and includes(most, role)}
    assert all(includes(role, role) for role in Role)
    assert within == {
        (Role.ADMIN, Role.VIEWER),
        (Role.ADMIN, Role.OPERATOR),
        (Role.ADMIN, Role.AUDITOR),
        (Role.OPERATOR, Role.VIEWER),
    }
