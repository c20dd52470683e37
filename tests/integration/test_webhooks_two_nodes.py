"""Webhooks of two real daemons on a real ZooKeeper: the primary is killed in the middle, and nothing is missing."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.clock import SystemRng
from pvc.webhooks.store import ABSENT, FileStore, MemoryStore, Taken, WebhookStore
from pvc.webhooks.store_zookeeper import ZookeeperStore
from tests.integration.daemon_process import DaemonProcess, two_daemons
from tests.integration.zookeeper_clients import zk_client
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.receiver import Receiver, a_receiver
from tests.support.waiting import wait_until

pytestmark = pytest.mark.zookeeper

PATIENCE_S = 60.0
VMS = 150


@pytest.fixture
def daemons(own_zookeeper: ZookeeperServer, cluster: str, tmp_path: Path) -> Iterator[dict[str, DaemonProcess]]:
    with two_daemons(own_zookeeper.hosts, cluster, tmp_path, coordinators=2) as made:
        yield made


def primary_of(daemon: DaemonProcess) -> str:
    with daemon.client() as client:
        return next((str(node["name"]) for node in client.nodes() if node["primary"]), "")


def has_taken(receiver: Receiver, number: int) -> bool:
    return len(receiver.taken) >= number


def test_the_primary_is_killed_in_the_middle_and_the_other_one_goes_on_without_a_gap(
    daemons: dict[str, DaemonProcess], own_zookeeper: ZookeeperServer, cluster: str
) -> None:
    wait_until(lambda: primary_of(daemons["hv1"]), "a primary", PATIENCE_S)
    first = primary_of(daemons["hv1"])
    other = "hv2" if first == "hv1" else "hv1"
    with a_receiver() as receiver:
        with daemons[other].client() as client:
            fields: dict[str, Any] = {"name": "billing", "url": receiver.url, "allow_private": receiver.allowed}
            client.command("webhook.add", {**fields, "types": ["vm.defined"], "rate": 25})
            names = [f"web{number:03}" for number in range(VMS)]
            for name in names:
                client.command("vm.define", {"name": name, "memory_mib": 64, "vcpus": 1})
        wait_until(functools.partial(has_taken, receiver, VMS // 4), "a part", PATIENCE_S)
        assert len(receiver.taken) < VMS, "it is in the middle of it"
        daemons[first].kill()
        wait_until(lambda: has_taken(receiver, VMS) and names[-1] in defined(receiver), "the rest", PATIENCE_S)
        assert list(dict.fromkeys(defined(receiver))) == names
        assert len(receiver.taken) - VMS <= 60, "only what was sent since the cursor was last written came twice"
        with daemons[other].client() as client:
            wait_until(lambda: client.get("/webhooks/billing")["deliverer"] == other, "the other one", PATIENCE_S)
            client.command("webhook.remove", {"hook": "billing"})
            with zk_client(own_zookeeper.hosts) as zookeeper:
                path = f"/pvc/{cluster}/cursors"
                wait_until(lambda: zookeeper.get_children(path) == [], "no cursor left", PATIENCE_S)


def test_a_primary_that_was_frozen_in_the_middle_delivers_nothing_once_it_is_back(
    daemons: dict[str, DaemonProcess],
) -> None:
    wait_until(lambda: primary_of(daemons["hv1"]), "a primary", PATIENCE_S)
    first = primary_of(daemons["hv1"])
    other = "hv2" if first == "hv1" else "hv1"
    with a_receiver() as receiver, daemons[other].client() as client:
        fields: dict[str, Any] = {"name": "billing", "url": receiver.url, "allow_private": receiver.allowed}
        client.command("webhook.add", {**fields, "types": ["vm.defined"], "rate": 25})
        names = [f"web{number:03}" for number in range(VMS)]
        for name in names:
            client.command("vm.define", {"name": name, "memory_mib": 64, "vcpus": 1})
        wait_until(functools.partial(has_taken, receiver, VMS // 4), "a part", PATIENCE_S)
        daemons[first].freeze()
        try:
            wait_until(lambda: names[-1] in defined(receiver), "the rest", PATIENCE_S)
            assert client.get("/webhooks/billing")["deliverer"] == other
        finally:
            daemons[first].thaw()
        late = [f"late{number:03}" for number in range(20)]
        for name in late:
            client.command("vm.define", {"name": name, "memory_mib": 64, "vcpus": 1})
        wait_until(lambda: late[-1] in defined(receiver), "what came after", PATIENCE_S)
        assert list(dict.fromkeys(defined(receiver))) == [*names, *late]
        assert len(receiver.taken) - len(names) - len(late) <= 60, "only what was sent since the cursor was written"
        assert [name for name in defined(receiver) if name in late] == late, "by one alone"
        assert client.get("/webhooks/billing")["deliverer"] == other


def defined(receiver: Receiver) -> list[str]:
    return [event["data"]["data"]["name"] for event in receiver.taken]


def test_no_webhook_reaches_zookeeper_or_a_node_whatever_it_is_allowed(
    daemons: dict[str, DaemonProcess], own_zookeeper: ZookeeperServer
) -> None:
    port = int(own_zookeeper.hosts.rpartition(":")[2])
    with daemons["hv1"].client() as client:
        fields = {"name": "evil", "url": f"http://127.0.0.1:{port}/", "allow_private": [f"127.0.0.0/8:{port}"]}
        client.command("webhook.add", fields)
        reply = client.post("/webhooks/evil/test")
        assert not reply["delivered"]
        assert "it is a ZooKeeper server" in reply["error"]


async def open_stores(kind: str, zookeeper: ZookeeperServer, cluster: str, folder: Path) -> list[WebhookStore]:
    rng = SystemRng()
    if kind == "memory":
        first = MemoryStore(rng)
        return [first, MemoryStore(rng, first)]
    if kind == "file":
        return [FileStore(folder / "webhooks", rng), FileStore(folder / "webhooks", rng)]
    return [await ZookeeperStore.open(zookeeper.hosts, cluster, rng) for _ in range(2)]


@pytest.mark.parametrize("kind", ["memory", "file", "zookeeper"])
async def test_a_cursor_is_written_only_by_who_has_seen_it_last(
    kind: str, own_zookeeper: ZookeeperServer, cluster: str, tmp_path: Path
) -> None:
    one, two = await open_stores(kind, own_zookeeper, cluster, tmp_path)
    assert await one.key() == await two.key() and len(await one.key()) == 32
    assert await one.read("h1") is None and await one.hooks() == []
    version = await one.write("h1", b"first", ABSENT)
    with pytest.raises(Taken):
        await two.write("h1", b"other", ABSENT)
    found = await two.read("h1")
    assert found is not None and found.data == b"first" and found.version == version
    taken = await two.write("h1", b"second", version)
    with pytest.raises(Taken):
        await one.write("h1", b"third", version)
    with pytest.raises(Taken):
        await one.write("h1", b"third", version)
    again = await one.write("h1", b"third", taken)
    found = await two.read("h1")
    assert found is not None and (found.data, found.version) == (b"third", again)
    assert await one.hooks() == ["h1"]
    await two.remove("h1")
    await two.remove("h1")
    assert await one.read("h1") is None
    with pytest.raises(Taken):
        await one.write("h1", b"fourth", again)
    for store in (one, two):
        await store.close()


async def test_a_stored_key_is_nobody_elses_and_stays(
    own_zookeeper: ZookeeperServer, cluster: str, tmp_path: Path
) -> None:
    one, two = await open_stores("file", own_zookeeper, cluster, tmp_path)
    key = await one.key()
    assert (tmp_path / "webhooks" / "key").stat().st_mode & 0o777 == 0o600
    assert await two.key() == key
