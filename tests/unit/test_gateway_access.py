"""Principals and tokens over the API, and what of refusals, logins and secrets stands in the log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pvc.events.access import AccessRefused, LoginRefused, SecretRead, TokenUsed
from pvc.events.sealed import erased_name, parse_sealed
from pvc.events.types import Role
from pvc.gateway import sight, warden
from pvc.gateway.warden import network_of
from tests.unit.gateway_house import House, a_house
from tests.unit.test_gateway_input import check_problem

SHOP = {"role": "operator", "tag": "shop"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        await made.define(name="shop01", tags=["shop"])
        await made.define(name="bank01")
        yield made


async def events(house: House, type_: str) -> list[dict[str, Any]]:
    """The data of the events of a type, oldest first."""
    await house.settle()
    records = (await house.root.get(f"/history?type={type_}&limit=1000")).json()["records"]
    found = [event["data"] for record in records for event in record["events"] if event["type"] == type_]
    return found[::-1]


async def position(house: House) -> int:
    await house.settle()
    return house.services.world.position


async def test_a_token_is_shown_once_and_the_log_has_neither_secret_nor_name(house: House) -> None:
    await house.root.post("/access", json={"principal": "anna.k", "grants": [SHOP]})
    key = {"Idempotency-Key": "one"}
    made = await house.root.post("/access/anna.k/tokens", json={"description": "laptop"}, headers=key)
    again = await house.root.post("/access/anna.k/tokens", json={"description": "laptop"}, headers=key)
    token = made.json()["token"]
    assert again.json()["repeated"] and "token" not in again.json()
    data = await house.log_bytes()
    assert token.split("_")[2].encode() not in data and b"anna.k" not in data
    async with house.outside_with(token) as anna:
        me = (await anna.get("/whoami")).json()
    assert (me["principal"], me["role"], me["token"]) == ("anna.k", "operator on some VMs", token.split("_")[1])
    assert me["grants"] == [SHOP] and me["expires"]
    dry = await house.root.post("/access/anna.k/tokens?dry_run=true")
    assert "token" not in dry.json()


async def test_lists_history_and_events_show_what_the_scope_covers(house: House) -> None:
    async with house.outside_with(await house.member("anna", SHOP)) as anna:
        assert [vm["name"] for vm in (await anna.get("/vms")).json()["items"]] == ["shop01"]
        assert [vm["name"] for vm in (await anna.get("/vms?name=*01&at=now")).json()["items"]] == ["shop01"]
        check_problem(await anna.get("/vms/bank01"), 403, "access.out_of_scope")
        check_problem(await anna.get("/vms/nowhere"), 403, "access.out_of_scope")
        for path, field in (("/history", "records"), ("/events?wait_s=0", "records")):
            text = (await anna.get(path)).text
            assert "shop01" in text and "bank01" not in text and "admin" not in text, path
            assert json.loads(text)[field]
        page = (await anna.get("/history?limit=1")).json()
        assert [event["type"] for event in page["records"][0]["events"]] == ["vm.defined"]
        assert (await anna.get("/history?subject=vm/bank01")).json()["records"] == []
        assert (await anna.get("/history?subject=vm/bank01")).json()["subjects"] == []
        assert (await anna.get("/nodes")).status_code == 200


async def test_a_page_of_the_history_goes_on_past_what_may_not_be_seen(house: House) -> None:
    for _ in range(30):
        await house.root.post("/vms/bank01/disable")
        await house.root.post("/vms/bank01/enable")
    async with house.outside_with(await house.member("anna", SHOP)) as anna:
        seen, before = [], ""
        while True:
            page = (await anna.get(f"/history?limit=2{before}")).json()
            seen += [event["type"] for record in page["records"] for event in record["events"]]
            if page["next_before"] is None:
                break
            before = f"&before={page['next_before']}"
    assert seen == ["vm.defined"]


async def test_who_covers_nothing_sees_an_empty_history_and_who_covers_much_pages_through_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house.outside_with(await house.member("anna", {"role": "viewer", "tag": "none"})) as anna:
        page = (await anna.get("/history")).json()
        assert page["records"] == [] and page["next_before"] is None
        assert (await anna.get("/vms")).json()["items"] == []
    monkeypatch.setattr(sight, "MAX_AMONG", 0)
    monkeypatch.setattr(sight, "MAX_LOOKS", 2)
    for _ in range(5):
        await house.root.post("/vms/bank01/disable")
        await house.root.post("/vms/bank01/enable")
    async with house.outside_with(await house.member("bert", SHOP)) as bert:
        seen, pages, before = [], 0, ""
        while pages < 20:
            page = (await bert.get(f"/history?limit=1{before}")).json()
            pages += 1
            seen += [event["type"] for record in page["records"] for event in record["events"]]
            if page["next_before"] is None:
                break
            before = f"&before={page['next_before']}"
    assert seen == ["vm.defined"] and pages > 3


async def test_faults_about_other_vms_are_not_shown(house: House) -> None:
    await house.second_node()
    await house.lose("hv2")
    async with house.outside_with(await house.member("anna", SHOP)) as anna:
        assert (await anna.get("/faults")).json()["items"] == []
    assert (await house.root.get("/faults")).json()["items"]


async def test_commands_are_refused_outside_the_scope_in_a_dry_run_too(house: House) -> None:
    async with house.outside_with(await house.member("anna", SHOP)) as anna:
        assert (await anna.post("/vms/shop01/start?dry_run=true")).status_code == 200
        assert (await anna.post("/vms/shop01/start")).status_code == 200
        for query in ("", "?dry_run=true"):
            check_problem(await anna.post(f"/vms/bank01/start{query}"), 403, "access.out_of_scope")
        check_problem(await anna.post("/vms", json={"name": "shop02", "memory_mib": 64}), 403, "access.forbidden")
        check_problem(await anna.post("/vms/shop01/rename", json={"name": "shop02"}), 409, "vm.is_starting")
    assert house.state.vms[house.state.vm_names["bank01"]].state == "stopped"
    refused = await events(house, AccessRefused.TYPE)
    assert [one["code"] for one in refused] == ["access.out_of_scope"] * 2 + ["access.forbidden"]
    assert refused[0]["vm"] == house.state.vm_names["bank01"]


async def test_an_idempotency_key_of_somebody_else_tells_nothing_out_of_scope(house: House) -> None:
    key = {"Idempotency-Key": "k"}
    assert (await house.root.post("/vms/bank01/disable", headers=key)).status_code == 200
    async with house.outside_with(await house.member("anna", SHOP)) as anna:
        check_problem(await anna.post("/vms/bank01/disable", headers=key), 403, "access.out_of_scope")


async def test_ones_own_command_can_be_asked_again_when_its_vm_is_covered_no_more(house: House) -> None:
    async with house.outside_with(await house.member("anna", SHOP)) as anna:
        for headers in ({"Idempotency-Key": "a"}, {"Idempotency-Key": "a"}):
            removed = await anna.delete("/vms/shop01", headers=headers)
            assert removed.status_code == 200, removed.text
    assert removed.json()["repeated"]
    token = await house.member("bert", {"role": "viewer"})
    async with house.outside_with(await house.member("carl", {"role": "viewer"})) as carl:
        async with house.outside_with(token) as bert:
            path, key = f"/tokens/{token.split('_')[1]}/rotate", {"Idempotency-Key": "r"}
            first = await bert.post(path, headers=key)
            assert (await bert.post(path, headers=key)).json()["position"] == first.json()["position"]
        check_problem(await carl.post(path, headers=key), 403, "access.not_own")


async def test_everybody_rotates_and_revokes_their_own_tokens_alone(house: House) -> None:
    annas, berts = await house.member("anna", {"role": "viewer"}), await house.member("bert", {"role": "viewer"})
    bert_id = berts.split("_")[1]
    async with house.outside_with(annas) as anna:
        check_problem(await anna.post(f"/tokens/{bert_id}/rotate"), 403, "access.not_own")
        check_problem(await anna.delete("/tokens/nowhere0"), 403, "access.not_own")
        check_problem(await anna.post("/access/anna/tokens"), 403, "access.forbidden")
        check_problem(await anna.get("/access/bert"), 403, "access.not_own")
        check_problem(await anna.get("/access/nobody"), 403, "access.not_own")
        assert [one["name"] for one in (await anna.get("/access")).json()["items"]] == ["anna"]
        assert [one["principal"] for one in (await anna.get("/tokens")).json()["items"]] == ["anna"]
        rotated = (await anna.post(f"/tokens/{annas.split('_')[1]}/rotate")).json()["token"]
        assert (await anna.get("/whoami")).status_code == 200, "the old one opens for a while"
    async with house.outside_with(rotated) as anna:
        assert (await anna.delete(f"/tokens/{annas.split('_')[1]}")).status_code == 200
    async with house.outside_with(annas) as anna:
        check_problem(await anna.get("/whoami"), 401, "access.token_invalid")


async def test_an_expired_token_says_so_to_who_has_the_secret_and_names_its_successor(house: House) -> None:
    token = await house.member("anna", {"role": "viewer"}, lifetime_s=3600)
    token_id = token.split("_")[1]
    await house.root.post(f"/tokens/{token_id}/rotate", json={"overlap_s": 0})
    async with house.outside_with(token) as anna:
        problem = check_problem(await anna.get("/vms"), 401, "access.token_expired")
    assert house.state.tokens[token_id].replaced_by in problem["hint"]
    async with house.outside_with(token + "x") as other:
        check_problem(await other.get("/vms"), 401, "access.token_invalid")
    codes = [one["code"] for one in await events(house, LoginRefused.TYPE)]
    assert codes == ["access.token_expired", "access.token_invalid"]


async def test_refused_logins_are_few_records_with_the_network_and_a_count(house: House) -> None:
    before = await position(house)
    for number in range(200):
        async with house.outside_with(f"pvc_unknown{number:05}_{'s' * 40}", address=f"192.0.2.{number}") as client:
            assert (await client.get("/vms")).status_code in (401, 429)
    refused = await events(house, LoginRefused.TYPE)
    assert await position(house) - before == len(refused) == warden.LOGINS_AT_ONCE
    assert {one["network"] for one in refused} == {"192.0.2.0/24"}
    assert "192.0.2.1" not in (await house.log_bytes()).decode(errors="replace")


async def test_a_flood_with_unknown_tokens_does_not_hide_the_use_of_a_known_one(house: House) -> None:
    token = await house.token(Role.VIEWER)
    for bad in [f"pvc_unknown{number:05}_{'s' * 40}" for number in range(50)] + [token + "x"]:
        async with house.outside_with(bad) as client:
            assert (await client.get("/vms")).status_code in (401, 429)
    assert (await events(house, LoginRefused.TYPE))[-1]["token"] == token.split("_")[1]


async def test_a_hostile_principal_cannot_fill_the_log_and_what_is_left_out_is_counted(house: House) -> None:
    async with house.outside_with(await house.member("mallory", {"role": "viewer"})) as mallory:
        for _ in range(100):
            check_problem(await mallory.post("/vms/shop01/stop"), 403, "access.forbidden")
            check_problem(await mallory.get("/audit/people"), 403, "access.forbidden")
    async with house.outside_with(await house.member("anna", {"role": "viewer"})) as anna:
        check_problem(await anna.post("/vms/shop01/stop"), 403, "access.forbidden")
    refused = await events(house, AccessRefused.TYPE)
    assert len(refused) == warden.REFUSALS_AT_ONCE + 1, "and others are heard all the same"
    assert {one["action"] for one in refused} == {"vm.run", "audit.read"}


async def test_a_refusal_stands_in_the_vms_history_by_who_it_was_and_is_no_command_to_undo(house: House) -> None:
    async with house.outside_with(await house.member("anna", {"role": "viewer"})) as anna:
        await anna.post("/vms/shop01/stop", headers={"Idempotency-Key": "k"})
    newest = (await house.root.get("/history?subject=vm/shop01")).json()["records"][0]
    assert (newest["actor"]["principal"], newest["command"]["name"]) == ("anna", "vm.stop")
    assert newest["events"][0]["failure"] and newest["events"][0]["summary"].startswith("refused: anna (viewer)")
    check_problem(await house.root.post(f"/undo/{newest['position']}"), 409, "undo.nothing_done")
    assert b"anna" not in await house.log_bytes()
    # The key is still to be used.
    assert (await house.root.post("/vms/shop01/disable", headers={"Idempotency-Key": "k"})).status_code == 200


async def test_the_use_of_a_token_is_recorded_once_for_each_address_and_not_for_ever_many(house: House) -> None:
    token = await house.member("anna", {"role": "viewer"})
    for number in range(40):
        async with house.outside_with(token, address=f"198.51.100.{number}") as anna:
            for _ in range(3):
                assert (await anna.get("/vms")).status_code == 200
    used = await events(house, TokenUsed.TYPE)
    assert len(used) == warden.ADDRESSES_A_DAY
    (row,) = [one for one in (await house.root.get("/access")).json()["items"] if one["name"] == "anna"]
    assert row["used_us"] and row["tokens"] == 1
    logins = (await house.root.get("/audit/logins?actor=anna&limit=1")).json()
    assert logins["records"][0]["actor"]["address"].startswith("198.51.100.") and logins["next_before"]


async def test_reads_of_secrets_are_recorded(house: House) -> None:
    await house.services.history.reach(house.services.world.position, 30)  # it gives what the index has
    await house.root.get("/audit/keys")
    async with house.outside_with(await house.token(Role.ADMIN)) as admin:
        assert (await admin.get("/log/replica/records")).status_code == 200
        check_problem(await admin.get("/audit/keys"), 403, "access.only_local")
    read = await events(house, SecretRead.TYPE)
    assert [(one["what"], one.get("token", "")) for one in read] == [
        ("audit.export_keys", ""),
        ("log.replica_records", "admin0000000"),
    ]
    assert (await events(house, AccessRefused.TYPE))[0]["code"] == "access.only_local"


async def test_who_asks_too_often_is_slowed_down_and_others_are_not(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warden, "COMMANDS_AT_ONCE", 3)
    monkeypatch.setattr(warden, "COMMANDS_A_SECOND", 1e-3)  # however slow this machine is just now
    app = House(house.services, house.log, house.hypervisor)
    async with (
        app.outside_with(await house.member("anna", {"role": "operator"})) as anna,
        app.outside_with(await house.member("bert", {"role": "operator"})) as bert,
    ):
        replies = [await anna.post("/vms/shop01/start?dry_run=true") for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        check_problem(replies[3], 429, "access.too_many_requests")
        assert int(replies[3].headers["Retry-After"]) >= 1
        assert (await anna.get("/vms")).status_code == 200
        assert (await bert.post("/vms/shop01/start?dry_run=true")).status_code == 200
    for _ in range(5):
        assert (await app.root.post("/vms/shop01/start?dry_run=true")).status_code == 200
    assert [one["code"] for one in await events(house, AccessRefused.TYPE)] == ["access.too_many_requests"]


async def test_who_has_touched_a_vm_and_who_may(house: House) -> None:
    token = await house.member("anna", SHOP)
    await house.member("bert", {"role": "auditor"})
    await house.member("carl", {"role": "operator", "name": "bank*"})
    async with house.outside_with(token) as anna:
        await anna.post("/vms/shop01/disable")
        await anna.post("/vms/shop01/start")
    who = (await house.root.get("/audit/who?subject=vm/shop01")).json()
    assert [(one["actor"], one["commands"]) for one in who["touched"]] == [
        ("anna", {"vm.start": 1, "vm.disable": 1}),
        ("root", {"vm.define": 1}),
    ]
    may = {one["principal"]: one["actions"] for one in who["may"]}
    assert set(may) == {"admin", "anna", "bert"} and who["complete"]
    assert "vm.run" in may["anna"] and "vm.define" not in may["anna"] and may["bert"] == ["vm.read"]
    for subject, code in (("vm/none", "vm.not_found"), ("node/none", "node.not_found"), ("access/none", None)):
        check_problem(await house.root.get(f"/audit/who?subject={subject}"), 404, code or "access.principal_not_found")
    check_problem(await house.root.get("/audit/who"), 422, "input.missing")
    touched = (await house.root.get("/audit/who?subject=access/anna")).json()["touched"]
    assert [one["actor"] for one in touched] == ["anna", "root"], "she has used her token"


async def test_an_erased_principal_goes_on_by_its_pseudonym_and_the_name_may_come_again(house: House) -> None:
    token = await house.member("anna", SHOP)
    await house.root.post("/audit/erase", json={"principal": "anna"})
    (sealed,) = [name for name in house.state.principals if parse_sealed(name) and "erased" in await shown(house, name)]
    pseudonym = await shown(house, sealed)
    async with house.outside_with(token) as someone:
        assert (await someone.get("/whoami")).json()["principal"] == pseudonym
        assert (await someone.get(f"/access/{pseudonym}")).json()["principal"]["grants"] == [SHOP]
    await house.root.post("/access", json={"principal": "anna", "grants": [{"role": "viewer"}]})
    names = [one["name"] for one in (await house.root.get("/access")).json()["items"]]
    assert names == ["admin", pseudonym, "anna"]
    assert (await house.root.delete(f"/access/{pseudonym}")).status_code == 200
    async with house.outside_with(token) as someone:
        check_problem(await someone.get("/whoami"), 401, "access.token_invalid")
    check_problem(await house.root.delete(f"/access/{pseudonym}"), 404, "access.principal_not_found")


async def shown(house: House, sealed: str) -> str:
    parsed = parse_sealed(sealed)
    assert parsed is not None
    return erased_name(parsed.key) if parsed.key in house.state.erasures else ""


async def test_a_record_that_cannot_be_made_keeps_nobody_from_the_answer(house: House) -> None:
    token = await house.member("anna", {"role": "viewer"})
    house.services.appender._stopped = True
    async with house.outside_with(token) as anna:
        assert (await anna.get("/vms")).status_code == 200
        check_problem(await anna.post("/vms/shop01/stop"), 403, "access.forbidden")


async def test_a_removed_role_ends_what_follows_a_guests_console(house: House) -> None:
    token = await house.member("anna", SHOP)
    house.hypervisor.console_log(house.state.vm_names["shop01"]).write_text("boot\n")
    async with house.outside_with(token) as anna:
        assert (await anna.get("/vms/shop01/log")).text == "boot\n"
        check_problem(await anna.get("/vms/bank01/log"), 403, "access.out_of_scope")
        await house.root.patch("/access/anna", json={"grants": [{"role": "auditor"}]})
        check_problem(await anna.get("/vms/shop01/log"), 403, "access.forbidden")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::9", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_an_address_becomes_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_who_has_touched_a_principal_includes_what_was_done_to_its_tokens(house: House) -> None:
    token = await house.member("anna", {"role": "viewer"})
    async with house.outside_with(token) as anna:
        rotated = await anna.post(f"/tokens/{token.split('_')[1]}/rotate", json={})
        assert rotated.status_code == 200, rotated.text
    who = (await house.root.get("/audit/who?subject=access/anna")).json()
    touched = {one["actor"]: set(one["commands"]) for one in who["touched"]}
    assert touched["root"] == {"access.add", "access.create_token"}
    assert "access.rotate_token" in touched["anna"]
