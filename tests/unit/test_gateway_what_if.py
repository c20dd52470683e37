"""What-if over HTTP: questions as JSON, the forecast as a reply, and nothing written."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pvc.commands.base import Context
from pvc.commands.forecast import Forecast, Question
from pvc.events.types import Role
from pvc.gateway.what_if_turns import WhatIfTurns
from pvc.handlers.what_if import foresee
from pvc.projections.state import ClusterState
from tests.support.waiting import until
from tests.unit.gateway_house import House, a_house
from tests.unit.test_gateway_input import check_problem


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


async def test_a_forecast_answers_and_writes_nothing(house: House) -> None:
    await house.define()
    token = await house.token(Role.VIEWER)
    async with house.outside_with(token) as viewer:
        await viewer.get("/whoami")  # which is recorded, once a day
    await house.settle()
    before, log = house.state.state_hash(), await house.log_bytes()
    steps: list[dict[str, Any]] = [
        {"command": "vm.start", "fields": {"vm": "web01"}},
        {"command": "vm.start", "fields": {"vm": "web01"}},
    ]
    async with house.outside_with(token) as viewer:
        reply = await viewer.post("/whatif", json={"steps": steps})
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert [one["after"] for one in found["placements"]] == ["running"]
    assert found["answers"][0]["events"][0]["summary"] == "start requested on hv1"
    assert found["answers"][1]["refusal"]["code"] == "vm.is_running"
    assert (house.state.state_hash(), await house.log_bytes()) == (before, log)


async def test_the_loss_of_a_node_is_asked_about_in_the_same_way(house: House) -> None:
    await house.second_node(self_fence_s=10)
    reply = await house.root.post("/whatif", json={"steps": [{"node_loss": "hv2"}]})
    states = {node["node"]: (node["before"], node["after"]) for node in reply.json()["nodes"]}
    assert states == {"hv2": ("ready", "fenced")}


async def what_if(house: House, *steps: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    asked = [{"command": name, "fields": fields} for name, fields in steps]
    reply = await house.root.post("/whatif", json={"steps": asked})
    assert reply.status_code == 200, reply.text
    answers: list[dict[str, Any]] = reply.json()["answers"]
    return answers


def refused(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["refusal"]["code"] if answer["refusal"] else "" for answer in answers]


async def test_people_are_known_by_their_names_as_they_are_to_the_commands_themselves(house: House) -> None:
    viewer = [{"role": "viewer"}]
    await house.member("anna", *viewer)
    before, log = house.state.state_hash(), await house.log_bytes()
    (added,) = await what_if(house, ("access.add", {"principal": "anna", "grants": viewer}))
    assert added["refusal"]["code"] == "access.principal_exists"
    assert added["refusal"]["message"] == "there is a principal anna already"
    told = await what_if(
        house,
        ("access.modify", {"principal": "anna", "grants": [{"role": "operator"}]}),
        ("access.create_token", {"principal": "anna"}),
        ("access.create_token", {"principal": "anna"}),
        ("webhook.add", {"name": "billing", "url": "https://hooks.example.com/pvc", "owner": "anna"}),
        ("access.remove", {"principal": "anna"}),
        ("access.create_token", {"principal": "anna"}),
    )
    assert refused(told) == ["", "", "", "", "", "access.principal_not_found"]
    tokens = [answer["events"][0]["data"]["token"] for answer in told[1:3]]
    assert len(set(tokens)) == 2 and all(tokens), "each step makes a token of its own"
    assert "anna" in told[5]["refusal"]["message"] and "person~" not in str(told)
    assert (house.state.state_hash(), await house.log_bytes()) == (before, log)


async def test_whom_an_earlier_step_adds_later_ones_know(house: House) -> None:
    grants = [{"role": "viewer"}]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("access.create_token", {"principal": "zoe"}),
        ("access.add", {"principal": "zoe", "grants": grants}),
        ("access.create_token", {"principal": "zoe"}),
    ]
    told = await what_if(house, *steps)
    assert refused(told) == ["access.principal_not_found", "", ""]
    assert told[0]["refusal"]["message"] == "there is no principal 'zoe'"
    await house.services.people.seal("zoe")  # who has acted, and is no principal
    assert refused(await what_if(house, *steps)) == ["access.principal_not_found", "", ""]


async def test_a_replay_is_asked_about_with_the_moments_that_it_names(house: House) -> None:
    hook = {"name": "billing", "url": "https://hooks.example.com/pvc"}
    assert (await house.root.post("/webhooks", json=hook)).status_code == 200
    (told,) = await what_if(house, ("webhook.replay", {"hook": "billing", "since": "1", "until": "2"}))
    assert (told["events"][0]["data"]["first"], told["events"][0]["data"]["last"]) == (1, 2)
    (told,) = await what_if(house, ("webhook.replay", {"hook": "billing", "since": "999"}))
    assert told["refusal"]["code"] == "at.not_yet", "which is an answer to one question, and no end of all"


async def test_an_erasure_refers_to_its_own_dry_run(house: House) -> None:
    await house.member("anna", {"role": "viewer"})
    (told,) = await what_if(house, ("audit.erase", {"principal": "anna"}))
    assert told["refusal"]["code"] == "access.person_not_sealed"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "input.invalid", "steps"),
        ({"steps": []}, "input.invalid", "steps"),
        ({"steps": [{}]}, "input.invalid", "steps[0]"),
        ({"steps": [{"command": "vm.start", "node_loss": "hv1"}]}, "input.invalid", "steps[0]"),
        ({"steps": [{"command": "vm.fly"}]}, "whatif.unknown_command", "steps[0].command"),
        ({"steps": [{"command": "vm.start"}]}, "input.missing", "vm"),
        ({"steps": [{"command": "vm.start", "fields": {"vm": "web01", "x": 1}}]}, "input.unknown_field", "x"),
        ({"steps": [{"node_loss": "hv1"}] * 21}, "input.invalid", "steps"),
    ],
)
async def test_a_wrong_question_is_explained(house: House, body: dict[str, Any], code: str, field: str) -> None:
    problem = check_problem(await house.root.post("/whatif", json=body), 422, code)
    assert problem["field"] == field and problem["hint"]


async def test_a_body_that_is_no_json_is_refused(house: House) -> None:
    check_problem(await house.root.post("/whatif", data={"steps": "x"}), 415, "http.wrong_content_type")
    headers = {"Content-Type": "application/json"}
    check_problem(await house.root.post("/whatif", content=b"{", headers=headers), 400, "input.bad_json")


class _Slow:
    """A forecast that takes until it is allowed to end."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.lock = threading.Lock()
        self.began = self.running = self.most = 0

    def __call__(self, state: ClusterState, questions: Sequence[Question], context: Context) -> Forecast:
        with self.lock:
            self.began += 1
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.may_end.wait(20)
        with self.lock:
            self.running -= 1
        return foresee(state, questions, context)


LOSS = {"steps": [{"node_loss": "hv1"}]}


@pytest.fixture
def slow(house: House) -> _Slow:
    made = _Slow()
    object.__setattr__(house.services, "foresee", made)
    return made


async def test_of_many_at_once_few_wait_one_is_worked_on_and_the_process_goes_on(house: House, slow: _Slow) -> None:
    members = [await house.member(name, {"role": "viewer"}) for name in ("anna", "bert", "carl", "dora", "emil")]
    forks = 0
    fork = ClusterState.fork

    def counted(state: ClusterState) -> ClusterState:
        nonlocal forks
        forks += 1
        return fork(state)

    async with contextlib.AsyncExitStack() as clients:
        viewers = [await clients.enter_async_context(house.outside_with(token)) for token in members]
        await asyncio.gather(*(viewer.get("/whoami") for viewer in viewers))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ClusterState, "fork", counted)
            asked = [asyncio.create_task(viewers[n % 5].post("/whatif", json=LOSS)) for n in range(40)]
            await until(lambda: sum(task.done() for task in asked) == 32 and slow.began == 1)
            async with asyncio.timeout(5):
                await asyncio.to_thread(int)
            assert forks == 1, "who waits holds no state"
        slow.may_end.set()
        replies = await asyncio.gather(*asked)
    assert slow.most == 1 and slow.began == 8
    refused = [reply for reply in replies if reply.status_code != 200]
    assert len(refused) == 32
    for reply in refused:
        check_problem(reply, 503, "whatif.busy")
        assert reply.headers["retry-after"]


async def test_one_principal_has_not_all_the_turns(house: House, slow: _Slow) -> None:
    token = await house.member("anna", {"role": "viewer"})
    async with house.outside_with(token) as anna:
        asked = [asyncio.create_task(anna.post("/whatif", json=LOSS)) for _ in range(10)]
        await until(lambda: sum(task.done() for task in asked) == 8)
        mine = asyncio.create_task(house.root.post("/whatif", json=LOSS))
        await asyncio.sleep(0.05)
        slow.may_end.set()
        assert (await mine).status_code == 200
        assert sorted(reply.status_code for reply in await asyncio.gather(*asked)) == [200] * 2 + [503] * 8
    assert (await house.root.post("/whatif", json=LOSS)).status_code == 200, "places are given back"


async def test_whose_turn_does_not_come_is_told_so_and_takes_none(house: House, slow: _Slow) -> None:
    object.__setattr__(house.services, "what_ifs", WhatIfTurns(wait_s=0.05))
    first = asyncio.create_task(house.root.post("/whatif", json=LOSS))
    await until(lambda: slow.began == 1)
    check_problem(await house.root.post("/whatif", json=LOSS), 503, "whatif.busy")
    slow.may_end.set()
    assert (await first).status_code == 200
    assert (await house.root.post("/whatif", json=LOSS)).status_code == 200


async def test_who_loses_the_token_while_waiting_is_told_nothing(house: House, slow: _Slow) -> None:
    token = await house.member("anna", {"role": "viewer"})
    first = asyncio.create_task(house.root.post("/whatif", json=LOSS))
    await until(lambda: slow.began == 1)
    async with house.outside_with(token) as anna:
        waiting = asyncio.create_task(anna.post("/whatif", json=LOSS))
        await until(lambda: house.services.what_ifs.waiting == 1)
        assert (await house.root.delete(f"/tokens/{token.split('_')[1]}")).status_code == 200
        slow.may_end.set()
        check_problem(await waiting, 403, "access.forbidden")
    assert (await first).status_code == 200 and slow.began == 1
