"""The event stream of real daemons: over TCP and the socket, with clients that do not read, and gateways that die."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.client import following
from pvc.client.connections import Connection
from pvc.client.errors import ApiError, ClientError, Unreachable
from pvc.client.json_client import JsonClient
from pvc.events.record import Entry
from pvc.events.vm import VmTagAdded, VmTagRemoved
from pvc.log.sqlite import SqliteLog
from tests.bench.records import Chain, a_cluster, vm_id, vm_name
from tests.bench.running import fill
from tests.integration.cli_cluster import Cluster
from tests.integration.daemon_process import DaemonProcess
from tests.integration.fake_gateway import Asked, FakeGateway, Say, problem
from tests.integration.tcp_proxy import TcpProxy
from tests.support.waiting import until, wait_until

PAST = 10_000
VMS = 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("stream"))
    made.cli("vm", "define", "web01", "--memory", "64")
    yield made
    made.daemon.stop()


class Following:
    """A client in a thread of its own that follows the events."""

    def __init__(self, client: JsonClient, **wanted: Any) -> None:
        self.positions: list[int] = []
        self.error: ClientError | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, args=(client, wanted), daemon=True)
        self._thread.start()

    def _run(self, client: JsonClient, wanted: dict[str, Any]) -> None:
        try:
            for record in client.events(**wanted):
                self.positions.append(record["position"])
                if self._stop:
                    return
        except ClientError as error:
            self.error = error


def tag_often(client: JsonClient, count: int, vm: str = "web01") -> int:
    """Write `count` records about a VM; returns the last position."""
    position = 0
    for _ in range(count // 2 + 1):
        tag = f"t{time.monotonic_ns()}"
        client.command("vm.add_tag", {"vm": vm, "tag": tag})
        position = client.command("vm.remove_tag", {"vm": vm, "tag": tag})["position"]
    return position


def check_whole(positions: list[int], first: int, last: int) -> None:
    """Every position once, in order; beyond `last` there may be what the node itself has written meanwhile."""
    assert positions == list(range(first, positions[-1] + 1))
    assert positions[-1] >= last


@pytest.mark.parametrize("door", ["tcp", "socket"])
def test_events_come_over_tcp_and_the_socket_alike(cluster: Cluster, door: str) -> None:
    url = cluster.url if door == "tcp" else f"unix://{cluster.daemon.socket}"
    client = JsonClient(Connection("test", url, token=cluster.token if door == "tcp" else ""))
    followed = Following(client, after=0, subject="vm/web01")
    with cluster.daemon.client() as writer:
        last = tag_often(writer, 5)
    wait_until(lambda: followed.positions[-1:] == [last], "the last record")
    with cluster.daemon.client() as reader:
        whole = reader.history(subject="vm/web01", limit=1_000)["records"]
    assert followed.positions == [record["position"] for record in whole][::-1]


def test_10000_events_of_the_past_run_into_what_happens_meanwhile(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path)
    asyncio.run(_prepare(tmp_path / "data", PAST))
    daemon.start()
    try:
        followed = [Following(daemon.client(), after=after, **wanted) for after, wanted in WANTED]
        with daemon.client() as writer:
            last = tag_often(writer, 100, vm_name(0))
            whole = writer.history(type="vm.tag_removed", after=PAST - 200, limit=1_000)["records"]
        wait_until(lambda: all(last in one.positions for one in followed), "all that there is")
        check_whole(followed[0].positions, 1, last)
        check_whole(followed[1].positions, 9_001, last)
        tagged = followed[2].positions
        assert tagged[-len(whole) :] == [record["position"] for record in whole][::-1]
        assert len(tagged) == len(set(tagged)) > PAST // 2
    finally:
        daemon.stop()


def _tagging(chain: Chain, number: int) -> Entry:
    """A tag is put on a VM, and taken off by the next record."""
    vm, tag = vm_id(number // 2 % VMS), f"t{number // 2}"
    if number % 2:
        return chain.add("vm.remove_tag", VmTagRemoved(vm=vm, tag=tag))
    return chain.add("vm.add_tag", VmTagAdded(vm=vm, tag=tag))


WANTED: list[tuple[int, dict[str, Any]]] = [(0, {}), (9_000, {}), (0, {"types": ("vm.tag_removed",)})]


async def _prepare(directory: Path, count: int) -> None:
    directory.mkdir(mode=0o700, parents=True)
    log = await SqliteLog.open(directory / "log.db")
    try:
        chain = Chain()
        await fill(log, a_cluster(chain, VMS))
        await fill(log, (_tagging(chain, number) for number in range(count - VMS)))
    finally:
        await log.close()


def test_a_client_that_never_reads_costs_nobody_anything_and_one_that_reads_slowly_gets_all(cluster: Cluster) -> None:
    silent = raw_stream(cluster)
    slow = raw_stream(cluster)
    followed = Following(JsonClient(Connection("test", cluster.url, token=cluster.token)), after=0)
    with cluster.daemon.client() as writer:
        last = tag_often(writer, 300)
        wait_until(lambda: last in followed.positions, "the reader beside them")
    response = http.client.HTTPResponse(slow)
    response.begin()
    seen, rest = list[int](), b""
    while not seen or seen[-1] < last:
        time.sleep(0.002)
        *lines, rest = (rest + response.read1(4_096)).split(b"\n")
        seen += [document["position"] for line in lines if line and "events" in (document := json.loads(line))]
    check_whole(seen, 1, last)
    check_whole(followed.positions, 1, last)
    slow.close()
    silent.close()


def raw_stream(cluster: Cluster) -> socket.socket:
    """A stream that was asked for and of which nothing was read, with little room on its way."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    line.settimeout(30)
    line.connect(("127.0.0.1", cluster.port))
    line.sendall(
        b"GET /api/v1/events?after=0 HTTP/1.1\r\nHost: pvc\r\nAccept: application/x-ndjson\r\n"
        b"Authorization: Bearer " + cluster.token.encode() + b"\r\n\r\n"
    )
    return line


def test_a_daemon_that_stops_ends_its_streams_with_a_word_and_at_once(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    line = raw_stream(cluster)
    response = http.client.HTTPResponse(line)
    response.begin()
    first = response.readline()
    assert json.loads(first)["position"] == 1
    began = time.monotonic()
    cluster.daemon.stop()
    documents = [json.loads(one) for one in response.read().splitlines() if one]
    assert documents[-1]["end"]["code"] == "event.gateway_stopping"
    assert time.monotonic() - began < 15
    line.close()


def test_a_killed_daemon_is_followed_on_when_it_is_back(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.cli("vm", "define", "web01", "--memory", "64")
    followed = Following(JsonClient(Connection("test", cluster.url, token=cluster.token)), after=0)
    with cluster.daemon.client() as writer:
        before = tag_often(writer, 20)
    wait_until(lambda: before in followed.positions, "what came before")
    cluster.daemon.kill()
    cluster.daemon.start()
    with cluster.daemon.client() as writer:
        last = tag_often(writer, 20)
    wait_until(lambda: last in followed.positions, lambda: f"{followed.positions[-3:]} {followed.error}")
    check_whole(followed.positions, 1, last)
    cluster.daemon.stop()


async def test_a_line_that_breaks_again_and_again_loses_nothing(cluster: Cluster) -> None:
    async with TcpProxy.to(cluster.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        followed = Following(JsonClient(Connection("test", url, token=cluster.token)), after=0)
        last = 0
        for _ in range(5):
            with cluster.daemon.client() as writer:
                last = await asyncio.to_thread(tag_often, writer, 10)
            await until(lambda: followed.positions)
            proxy.cut()
        await until(lambda: last in followed.positions or followed.error)
    assert followed.error is None
    check_whole(followed.positions, 1, last)


def test_pvc_event_follow_prints_a_record_a_line_for_programs(cluster: Cluster) -> None:
    with cluster.daemon.client() as writer:
        last = tag_often(writer, 3)
    screen = cluster.cli.on_terminal(
        "event", "follow", "--after", str(last - 3), "--subject", "vm/web01", "-o", "json",
        typing=[(f'"position": {last}', "\x03")],
    )  # fmt: skip
    assert screen.code == 130
    lines = [json.loads(line) for line in screen.out.splitlines() if line.startswith("{")]
    assert [line["position"] for line in lines] == [last - 2, last - 1, last]
    listed = cluster.cli("event", "list", "--tag", lines[0]["events"][0]["data"]["tag"], "-o", "json").out
    assert [json.loads(line)["position"] for line in listed.splitlines()] == [last - 3, last - 2]


def test_a_token_that_is_refused_ends_the_following_with_the_reason(cluster: Cluster) -> None:
    stranger = JsonClient(Connection("test", cluster.url, token="pvc_000000000000_" + "0" * 64))
    with pytest.raises(ApiError) as refused:
        next(iter(stranger.events(after=0)))
    assert (refused.value.status, refused.value.code) == (401, "access.token_invalid")


def test_a_stream_that_one_gateway_ends_goes_on_at_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAUSE_S", 0.01)

    def record(position: int) -> bytes:
        return json.dumps({"position": position, "id": f"r{position}", "events": []}).encode() + b"\n"

    end = {**problem(503, "stopping", code="event.gateway_stopping").body}
    says = {
        "0": record(1) + b"\n" + record(2) + record(3)[:10],  # cut in the middle of a line
        "2": record(3) + json.dumps({"position": 3, "end": end}).encode() + b"\n",
        "3": b'{"position": 9, "bookmark": true}\n',
        "9": record(10),
    }

    def answer(asked: Asked) -> Say:
        return Say(says[asked.query["after"]], content_type="application/x-ndjson")

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with FakeGateway(tmp_path / "a", answer) as one, FakeGateway(tmp_path / "b", answer) as other:
        client = JsonClient(Connection("test", f"unix://{one.socket}", others=(f"unix://{other.socket}",)))
        stream = client.events(after=0, types=("vm.*",))
        assert [next(stream)["position"] for _ in range(4)] == [1, 2, 3, 10]
        stream.close()
    assert [asked.query["after"] for asked in one.asked] == ["0", "3"]
    assert [asked.query["after"] for asked in other.asked] == ["2", "9"]
    assert one.asked[1].query["min_position"] == "3" and one.asked[0].query["types"] == "vm.*"


def test_where_nobody_ever_answered_following_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        next(iter(JsonClient(Connection("test", f"unix://{tmp_path}/nobody")).events(after=0)))
