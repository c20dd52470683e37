"""What `pvc` asks a gateway for, word by word: times of this machine's zone, names as they are, all of the pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_process import Cli
from tests.integration.fake_gateway import Asked, FakeGateway, Say, problem, reply


def cli_on(gateway: FakeGateway, tmp_path: Path) -> Cli:
    return Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket), "TZ": "Europe/Berlin"})


def login(position: int) -> dict[str, Any]:
    used = {"type": "access.token_used", "subject": "access/t1", "summary": "", "data": {"node": "hv1", "token": "t1"}}
    actor = {"principal": "anna", "address": "10.0.0.9"}
    return {"position": position, "time_us": position, "actor": actor, "events": [used]}


def logins(asked: Asked) -> Say:
    """2,500 of them, at most 1,000 a page, the newest first."""
    newest = int(asked.query.get("before", 2_501)) - 1
    oldest = max(1, newest - min(1_000, int(asked.query["limit"])) + 1)
    records = [login(position) for position in range(newest, oldest - 1, -1)]
    return Say({"position": 2_500, "records": records, "next_before": oldest if oldest > 1 else None})


@pytest.mark.parametrize("words", [["audit", "login"], ["audit", "who", "vm/web01"]])
def test_a_time_without_a_zone_is_one_of_this_machine(tmp_path: Path, words: list[str]) -> None:
    def answer(asked: Asked) -> Say:
        nothing = {"touched": [], "may": [], "complete": True, "considered": 0, "records": [], "next_before": None}
        return Say({"position": 1, **nothing})

    with FakeGateway(tmp_path, answer) as gateway:
        ran = cli_on(gateway, tmp_path)(*words, "--since", "2026-07-24 07:30")
        assert cli_on(gateway, tmp_path)(*words, "--since", "yesterday").code == 0
    assert ran.code == 0 and gateway.asked[0].query["since"] == "2026-07-24T05:30:00Z"
    assert ran.err.startswith("Nobody has "), "an empty table is told from one that was not shown"


def test_a_webhook_is_replayed_from_a_time_of_this_machine_on_or_from_a_position(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, lambda _: reply("webhook.replay")) as gateway:
        cli = cli_on(gateway, tmp_path)
        assert cli("webhook", "replay", "billing", "--since", "2026-07-24 07:30", "--until", "17").code == 0
        assert cli("webhook", "replay", "billing", "--since", "today").code == 0
        assert cli("webhook", "add", "x", "https://x.example.com/", "--since", "now").code == 0
        wrong = cli("webhook", "replay", "billing", "--since", "lately")
    assert gateway.asked[0].body == {"since": "2026-07-24T05:30:00Z", "until": "17"}
    assert gateway.asked[1].body["since"].endswith(":00:00Z") and gateway.asked[2].body["since"] == "now"
    assert wrong.code == 2 and "'lately' is no time; write 2h, 3d, today" in wrong.err


def test_older_logins_can_be_reached(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, logins) as gateway:
        few = cli_on(gateway, tmp_path)("audit", "login")
        more = cli_on(gateway, tmp_path)("audit", "login", "-n", "1200", "-o", "json")
        every = cli_on(gateway, tmp_path)("audit", "login", "-n", "100000")
    assert len(few.out.splitlines()) == 51 and few.err == "There are older ones: -n 200 shows them.\n"
    assert [one["position"] for one in json.loads(more.out)] == list(range(2_500, 1_300, -1))
    assert len(every.out.splitlines()) == 2_501 and every.err == ""


@pytest.mark.parametrize(
    ("command", "path"), [("info", ""), ("deliveries", "/deliveries"), ("parked", "/parked"), ("test", "/test")]
)
def test_a_webhook_is_asked_for_by_its_name_whatever_is_in_it(tmp_path: Path, command: str, path: str) -> None:
    with FakeGateway(tmp_path, lambda _: problem(404, "there is no such webhook")) as gateway:
        ran = cli_on(gateway, tmp_path)("webhook", command, "a/../b?x=1#y z")
    assert ran.code == 3
    assert [(one.path, one.query) for one in gateway.asked] == [(f"/webhooks/a%2F..%2Fb%3Fx%3D1%23y%20z{path}", {})]
