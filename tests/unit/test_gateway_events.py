"""The event stream, driven at the ASGI border: forms, filters, bookmarks, ends; the long poll beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pvc.commands.facts import Ending, ReportEnded
from pvc.events.types import Role
from pvc.gateway import event_hub, events
from pvc.gateway.app import local_app
from pvc.gateway.event_frames import Form
from pvc.gateway.event_sight import Sees
from pvc.gateway.event_stream import Pace
from pvc.gateway.events import form_of
from tests.support.waiting import until
from tests.unit.gateway_house import House, a_house
from tests.unit.test_gateway_input import check_problem

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


class Listener:
    """A client that takes the stream's bytes as the server hands them out."""

    def __init__(self, app: Any, query: str, *, accept: str = NDJSON, method: str = "GET", **headers: str) -> None:
        given = {"accept": accept, **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.scope = {
            "type": "http", "method": method, "path": "/api/v1/events", "raw_path": b"/api/v1/events",
            "query_string": query.encode(), "headers": [(k.encode(), v.encode()) for k, v in given.items()],
            "client": ("192.0.2.7", 1), "scheme": "http", "server": ("pvc", 80), "root_path": "",
        }  # fmt: skip
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._gone = asyncio.Event()
        self._asked = False
        self._app = app

    async def __aenter__(self) -> Listener:
        self.task = asyncio.create_task(self._app(self.scope, self._receive, self._send))
        await until(lambda: self.status)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()
        await asyncio.wait_for(asyncio.gather(self.task, return_exceptions=True), 10)

    def hang_up(self) -> None:
        self._gone.set()

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.split(b"\n") if line]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [one for one in self.documents if "events" in one]

    @property
    def positions(self) -> list[int]:
        return [one["position"] for one in self.records]

    @property
    def bookmarks(self) -> list[int]:
        return [one["position"] for one in self.documents if "bookmark" in one]

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        await self.reads.wait()
        self.body += message.get("body", b"")
        self.ended = not message.get("more_body", False)


def stream(house: House, query: str = "", **options: str) -> Listener:
    return Listener(local_app(house.app), query, **options)


def with_token(house: House, token: str, query: str = "") -> Listener:
    return Listener(house.app, query, authorization=f"Bearer {token}")


async def test_the_past_comes_first_then_a_bookmark_then_what_happens(house: House) -> None:
    await house.define()
    here = house.services.world.position
    async with stream(house, "after=0") as listener:
        await until(lambda: listener.bookmarks)
        assert listener.positions == list(range(1, here + 1))
        assert listener.bookmarks == [here]
        await house.define(name="web02")
        await until(lambda: len(listener.positions) == here + 1)
    assert listener.headers["content-type"] == NDJSON and "content-length" not in listener.headers
    told = (await house.root.get("/history?limit=100")).json()["records"]
    assert listener.records == told[::-1], "a record in the stream is the same as in the history"


async def test_an_sse_event_has_the_position_as_its_id_and_the_record_as_its_data(house: House) -> None:
    async with stream(house, "after=1", accept=SSE) as listener:
        await until(lambda: b"bookmark" in listener.body)
    assert listener.headers["content-type"] == "text/event-stream; charset=utf-8"
    retry, second, bookmark, rest = listener.body.decode().split("\n\n")
    assert retry == "retry: 1000" and rest == ""
    identity, data = second.split("\n")
    assert identity == "id: 2"
    assert json.loads(data.removeprefix("data: "))["position"] == 2
    assert bookmark == 'id: 2\nevent: bookmark\ndata: {"position":2,"bookmark":true}'


async def test_the_last_event_id_counts_before_after(house: House) -> None:
    await house.define()
    async with stream(house, "after=0", last_event_id="2") as listener:
        await until(lambda: listener.bookmarks)
    assert listener.positions == [3]
    reply = await house.root.get("/events?after=0&wait_s=0", headers={"Last-Event-ID": "2"})
    assert [record["position"] for record in reply.json()["records"]] == [3]
    refused = await house.root.get("/events", headers={"Last-Event-ID": "two", "Accept": NDJSON})
    assert check_problem(refused, 422, "input.invalid")["field"] == "Last-Event-ID"


async def test_filters_hold_in_the_past_and_live_alike(house: House) -> None:
    queries = {
        "types=vm.defined": [["vm.defined"]] * 2,
        "subject=vm/web01&types=vm.*": [["vm.defined"], ["vm.tag_added"], ["vm.tag_removed"]],
        "tag=blue": [["vm.tag_added"], ["vm.tag_removed"]],
        "tag=blue&types=vm.tag_added": [["vm.tag_added"]],
        "actor=node/hv1&types=node.*": [["node.joined", "node.ready"]],
        "actor=root&tag=blue": [["vm.tag_added"], ["vm.tag_removed"]],
        "subject=vm/nobody": [],
    }

    async def life() -> None:
        await house.define()
        await house.define(name="other")
        await house.root.post("/vms/web01/tags", json={"tag": "blue"})
        await house.root.delete("/vms/web01/tags/blue")
        await house.root.post("/vms/other/autostart", json={"autostart": True})

    live = {query: stream(house, f"after=0&{query}") for query in queries}
    for listener in live.values():
        await listener.__aenter__()
        await until(lambda one=listener: one.bookmarks)  # type: ignore[misc]
    await life()
    for query, expected in queries.items():
        await until(lambda one=live[query], all_of=expected: len(one.records) >= len(all_of))  # type: ignore[misc]
        async with stream(house, f"after=0&{query}") as past:
            await until(lambda one=past: one.bookmarks)  # type: ignore[misc]
        assert types(past) == types(live[query]) == expected, query
        await live[query].__aexit__()


async def test_a_name_counts_from_the_record_that_gave_it(house: House) -> None:
    await house.define()
    await house.root.post("/vms/web01/rename", json={"name": "db01"})
    await house.root.post("/vms/db01/tags", json={"tag": "x"})
    for name, expected in {"web01": ["defined", "renamed", "tag_added"], "db01": ["renamed", "tag_added"]}.items():
        page = (await house.root.get(f"/events?subject=vm/{name}&wait_s=0")).json()
        assert [record["events"][0]["type"] for record in page["records"]] == [f"vm.{one}" for one in expected]


async def test_a_chain_is_followed_by_any_of_its_records_and_an_unknown_one_is_refused(house: House) -> None:
    await house.define()
    await house.start()
    started = (await house.root.get("/history?type=vm.started")).json()["records"][0]["id"]
    async with stream(house, f"after=0&correlation={started}") as listener:
        await until(lambda: listener.bookmarks)
        assert types(listener) == [["vm.start_requested"], ["vm.started"]]
        await house.define(name="other")
        vm = house.state.vms[house.state.vm_names["web01"]]
        ended = ReportEnded(vm=vm.id, node="hv1", epoch=vm.epoch, ending=Ending.DESTROYED)
        await house.report(ended, cause=started)
        await until(lambda: len(listener.records) == 3)
    assert "vm.crashed" in types(listener)[-1]
    for accept in (NDJSON, "application/json"):
        refused = await house.root.get("/events?correlation=unknown", headers={"Accept": accept})
        assert check_problem(refused, 404, "event.no_such_record")["field"] == "correlation"


async def test_a_silent_stream_gives_signs_of_life_and_says_how_far_it_has_looked(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PACE", Pace(heartbeat_s=0.03, bookmark_s=0.2))
    monkeypatch.setattr(house.services.events, "_tick_s", 0.01)
    async with (
        stream(house, "types=vm.crashed") as listener,
        stream(house, "types=vm.crashed", accept=SSE) as browser,
    ):
        await until(lambda: listener.bookmarks)
        await house.define()
        await until(lambda: listener.bookmarks[-1:] == [house.services.world.position])
        await until(lambda: b": \n\n" in browser.body)
    assert b"\n\n" in listener.body, "an empty line, which a reader of JSON passes over"
    assert listener.records == []


async def test_a_stream_ends_in_good_order_when_the_daemon_stops(house: House) -> None:
    async with stream(house, "after=0") as listener:
        await until(lambda: listener.bookmarks)
        house.services.stopping.set()
        await until(lambda: listener.ended)
    end = listener.documents[-1]
    assert (end["position"], end["end"]["code"], end["end"]["status"]) == (2, "event.gateway_stopping", 503)


async def test_a_stream_ends_when_its_token_is_gone_also_while_nothing_happens_to_be_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.services.events, "_tick_s", 0.01)
    token = await house.token(Role.VIEWER)
    quiet, busy = with_token(house, token, "types=vm.crashed"), with_token(house, token, "after=0")
    async with quiet, busy:
        await until(lambda: quiet.bookmarks and busy.bookmarks)
        del house.state.tokens["viewer000000"]
        await house.define(name="forbidden01")
        await until(lambda: quiet.ended and busy.ended)
    assert quiet.documents[-1]["end"]["code"] == busy.documents[-1]["end"]["code"] == "access.token_invalid"
    assert b"forbidden01" not in busy.body, "what came after the token's end was not told"


async def test_what_a_caller_may_not_see_is_left_out_from_the_moment_on_that_it_may_not(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: set[str] = set()

    def sight(*_: object) -> Sees:
        return lambda event: not hidden & event.named and event.type not in hidden

    for module in ("event_stream", "events"):
        monkeypatch.setattr(f"pvc.gateway.{module}.sight_of", sight)
    await house.define()
    async with stream(house, "after=2") as listener:
        await until(lambda: listener.bookmarks)
        hidden.add("vm/web01")
        await house.root.post("/vms/web01/tags", json={"tag": "x"})
        await house.define(name="web02")
        await until(lambda: len(listener.records) == 2)
    assert types(listener) == [["vm.defined"], ["vm.defined"]]
    page = (await house.root.get("/events?after=2&wait_s=0")).json()
    assert [record["position"] for record in page["records"]] == [5] and page["next_after"] == 5
    hidden.add("node.joined")
    async with stream(house, "types=node.*") as listener:
        await until(lambda: listener.bookmarks)
    assert types(listener) == [["node.ready"]], "of a record those events that may be seen"


async def test_a_poll_does_not_look_through_the_whole_log_for_who_may_see_little_of_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvc.gateway.events.MAX_LOOKED_AT", 4)
    monkeypatch.setattr(event_hub, "MAX_BATCH", 2)
    token = await house.member("shop", {"role": "viewer", "name": "shop*"})
    await house.define(name="other")
    for number in range(20):
        await house.root.post("/vms/other/tags", json={"tag": f"t{number}"})
    last = (await house.define(name="shop1"))["position"]
    after, pages = 0, []
    async with house.outside_with(token) as shop:
        while after < last:
            # It would wait for a minute where it found that there is nothing.
            pages.append((await shop.get(f"/events?after={after}&wait_s=60&limit=100")).json())
            assert pages[-1]["next_after"] > after, "each one leads on"
            after = pages[-1]["next_after"]
    assert len(pages) > 3 and [len(page["records"]) for page in pages] == [0] * (len(pages) - 1) + [1]
    assert all(page["position"] >= last for page in pages)


async def test_names_go_out_opened_and_after_an_erasure_as_pseudonyms(house: House) -> None:
    token = await house.person("anna")
    async with house.outside_with(token) as anna:
        await anna.post("/vms", json={"name": "hers", "memory_mib": 64})
    async with stream(house, "actor=anna") as listener:
        await until(lambda: listener.records)
        async with house.outside_with(token) as anna:
            await anna.post("/vms/hers/tags", json={"tag": "x"})
        await until(lambda: len(listener.records) == 2)
    assert {record["actor"]["principal"] for record in listener.records} == {"anna"}
    assert b"person~" not in listener.body and b"192.0.2.7" in listener.body
    assert b"anna" not in await house.log_bytes()
    async with house.outside_with(token) as anna:
        reply = await house.root.post("/audit/erase", json={"principal": "anna"})
        assert reply.status_code == 200, reply.text
    async with stream(house, "types=vm.tag_added") as later:
        await until(lambda: later.records)
    assert later.records[0]["actor"]["principal"].startswith("erased-")
    assert b"anna" not in later.body


async def test_a_position_that_is_not_there_yet_is_waited_for_and_then_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "INDEX_DEADLINE_S", 0.05)
    refused = await house.root.get("/events?after=999", headers={"Accept": NDJSON})
    check_problem(refused, 503, "history.behind")


async def test_there_is_a_last_stream_and_a_poll_goes_on_all_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_hub, "MAX_STREAMS", 1)
    async with stream(house) as listener:
        await until(lambda: listener.bookmarks)
        refused = await house.root.get("/events", headers={"Accept": SSE})
        check_problem(refused, 503, "event.too_many_streams")
        assert (await house.root.get("/events?wait_s=0")).status_code == 200
    assert house.services.events.streams == 0


async def test_nothing_is_left_of_readers_that_have_gone(house: House) -> None:
    for query in ("", "types=vm.*", "subject=vm/web01"):
        async with stream(house, query) as listener:
            await until(lambda one=listener: one.bookmarks)  # type: ignore[misc]
    hub = house.services.events
    assert (hub._channels, hub.streams, hub._task) == ({}, 0, None)


async def test_a_client_that_takes_nothing_is_cut_and_others_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PACE", Pace(stuck_s=0.05))
    monkeypatch.setattr(house.services.events, "_tick_s", 0.01)
    cut = asyncio.Event()
    stuck = stream(house)
    stuck.scope["pvc.hang_up"] = lambda: (cut.set(), stuck.hang_up(), stuck.reads.set())
    stuck.reads.clear()
    async with stuck, stream(house) as other:
        await asyncio.wait_for(cut.wait(), 10)
        await until(lambda: stuck.task.done())
        await house.define()
        await until(lambda: len(other.positions) == 3)
    assert not stuck.ended, "its end is not that of a whole reply"


async def test_a_reader_far_behind_reads_on_from_the_index(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_hub, "MAX_QUEUED", 3)
    async with stream(house) as slow, stream(house) as quick:
        await until(lambda: slow.bookmarks and quick.bookmarks)
        slow.reads.clear()
        for number in range(20):
            await house.define(name=f"vm{number}")
        await until(lambda: len(quick.positions) == 22)
        slow.reads.set()
        await until(lambda: len(slow.positions) == 22)
    assert slow.positions == quick.positions == list(range(1, 23))


async def test_a_record_is_encoded_once_for_all_its_readers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from pvc.gateway import event_frames

    encoded: list[int] = []
    real = event_frames.record_view
    monkeypatch.setattr(event_frames, "record_view", lambda found: encoded.append(1) or real(found))
    listeners = [stream(house, "after=0", accept=accept) for accept in (NDJSON, SSE, NDJSON, SSE)]
    for listener in listeners:
        await listener.__aenter__()
    await house.define()
    await until(lambda: all(listener.body.count(b"web01") for listener in listeners))
    for listener in listeners:
        await listener.__aexit__()
    assert len(encoded) == 3


async def test_a_head_request_does_not_stream(house: House) -> None:
    async with stream(house, method="HEAD") as listener:
        await until(lambda: listener.ended)
    assert (listener.status, listener.body) == (200, b"")


def test_the_form_is_what_the_accept_header_likes_best() -> None:
    assert form_of("") is form_of("*/*") is form_of("application/json") is form_of("text/html") is None
    assert form_of("text/event-stream") is form_of("text/event-stream;q=0.9, application/json;q=0.5") is Form.SSE
    assert form_of("application/json, text/event-stream;q=0.9") is None
    assert form_of("application/x-ndjson, */*;q=0.1") is form_of("APPLICATION/NDJSON") is Form.NDJSON
    assert form_of("text/event-stream;q=x") is None


def types(listener: Listener) -> list[list[str]]:
    return [[event["type"] for event in record["events"]] for record in listener.records]


@pytest.mark.parametrize("accept", [NDJSON, SSE])
async def test_a_stream_can_be_cut_down_to_some_fields(house: House, accept: str) -> None:
    await house.define()
    await house.define(name="other")
    query = "types=vm.defined&fields=time,command"
    async with Listener(local_app(house.app), query, accept=accept) as listener:
        await until(lambda: listener.body.count(b"vm.define") == 2)
        body = listener.body
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if b"vm.define" in line]
    assert [json.loads(line).keys() for line in lines] == [{"time", "command"}] * 2
    if accept == SSE:
        assert body.count(b"\nid: ") >= 2, "the position is told beside the document"


async def test_a_stream_of_fields_that_records_have_not_is_refused(house: House) -> None:
    reply = await house.root.get("/events?fields=position,nonsense", headers={"Accept": NDJSON})
    assert check_problem(reply, 422, "input.invalid")["field"] == "fields"
