"""The event stream over two gateways of one log in ZooKeeper: one is killed, and the other goes on from the archive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.client import AsyncClient
from pvc.client.connections import Connection
from pvc.client.json_client import JsonClient
from pvc.log.zookeeper_layout import Layout
from tests.integration.daemon_process import DaemonProcess
from tests.integration.test_event_stream import Following, check_whole, tag_often
from tests.integration.zookeeper_clients import zk_client
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.certificates import a_certificate
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.zookeeper

SEGMENT_RECORDS = 8


@pytest.fixture
def daemons(own_zookeeper: ZookeeperServer, cluster: str, tmp_path: Path) -> Iterator[dict[str, DaemonProcess]]:
    made = {}
    for name in ("hv1", "hv2"):
        certificate = a_certificate(tmp_path, name)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        log = {"kind": "zookeeper", "hosts": own_zookeeper.hosts, "cluster": cluster}
        made[name] = DaemonProcess(
            tmp_path / name,
            node={"name": name, "address": "127.0.0.1"},
            log={**log, "segment_records": SEGMENT_RECORDS, "hot_segments": 1},
            gateway={"listen": f"0.0.0.0:{port}", "tls_cert": str(certificate.cert), "tls_key": str(certificate.key)},
        )
    made["hv1"].start()
    with made["hv1"].client() as client:
        client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
        client.command("node.add", {"node": "hv2", "coordinator": True})
        client.command("vm.define", {"name": "web01", "memory_mib": 64, "vcpus": 1})
    made["hv2"].start()
    yield made
    for daemon in made.values():
        daemon.stop()


def test_a_killed_gateway_is_followed_on_at_the_next_from_the_archive_into_live(
    daemons: dict[str, DaemonProcess], own_zookeeper: ZookeeperServer, cluster: str
) -> None:
    first, second = (f"unix://{daemons[name].socket}" for name in ("hv1", "hv2"))
    with daemons["hv1"].client() as writer:
        tag_often(writer, 6 * SEGMENT_RECORDS)
    with zk_client(own_zookeeper.hosts) as zookeeper:
        wait_until(lambda: len(zookeeper.get_children(Layout(cluster).segments)) <= 3, "old segments leave ZooKeeper")
    followed = [
        Following(JsonClient(Connection("test", url, others=(other,))), after=after)
        for url, other, after in ((first, second, 0), (second, first, 0), (first, second, 5))
    ]
    with daemons["hv2"].client() as writer:
        before = tag_often(writer, 10)
        wait_until(lambda: all(before in one.positions for one in followed), "all follow")
        daemons["hv1"].kill()
        last = tag_often(writer, 30)
    wait_until(
        lambda: all(last in one.positions for one in followed),
        lambda: str([(one.positions[-1:], one.error) for one in followed]),
    )
    for one, begin in zip(followed, (1, 1, 6), strict=True):
        check_whole(one.positions, begin, last)


async def test_a_program_of_asyncio_goes_on_at_the_next_gateway_with_all_that_it_does(
    daemons: dict[str, DaemonProcess],
) -> None:
    positions: list[int] = []
    urls = [f"unix://{daemons[name].socket}" for name in ("hv1", "hv2")]
    async with AsyncClient(urls) as client:

        async def follow() -> None:
            async for record in client.events(after=0):
                positions.append(record.position)

        following = asyncio.create_task(follow())
        with daemons["hv2"].client() as writer:
            before = await asyncio.to_thread(tag_often, writer, 20)
            await until(lambda: before in positions)
            daemons["hv1"].kill()
            last = await asyncio.to_thread(tag_often, writer, 20)
        await until(lambda: last in positions)
        assert (await client.vms.get("web01")).name == "web01"
        assert (await client.vms.add_tag("web01", "after")).changed
        following.cancel()
    check_whole(positions, 1, last)
