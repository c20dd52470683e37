"""The typed clients at a real pvcd: the manual's examples as they stand, and a gateway that is killed in the middle."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.client import AsyncClient, Client, Conflict, JsonClient, NotFound, PreconditionFailed, calls, choose_connection
from tests.integration.cli_cluster import Cluster
from tests.integration.daemon_process import DaemonProcess
from tests.integration.tcp_proxy import TcpProxy
from tests.support.both_clients import KINDS, MadeClient, clients
from tests.support.waiting import wait_until

MANUAL = Path(__file__).parents[2] / "docs" / "client.md"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("client"))
    yield made
    made.daemon.stop()


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Iterator[MadeClient]:
    yield from clients(request.param)


def test_the_manuals_examples_do_what_they_say(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = {
        "version": 1,
        "in_use": "lab",
        "connections": [{"name": "lab", "url": cluster.url, "token": cluster.token}],
    }
    (tmp_path / "connections.json").write_text(json.dumps(stored))
    (tmp_path / "connections.json").chmod(0o600)
    monkeypatch.setenv("PVC_CONFIG_DIR", str(tmp_path))
    examples = re.findall(r"^```python\n(.*?)^```", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) >= 12
    space: dict[str, Any] = {}
    said = []
    for example in examples:
        text = example.replace("https://hv1:7370", cluster.url).replace("pvc_...", cluster.token)
        exec(compile(text, str(MANUAL), "exec"), space)
        said.append(capsys.readouterr().out)
    assert said[0] == "admin ok\n"
    assert "succeeded running on hv1" in said[2]
    assert said[3].endswith("True\n")
    assert "succeeded 1 of 1" in said[4]
    assert said[5] == "web01 hv1 64\n64 running\n"
    assert said[6].startswith("True False\n")
    assert said[7] == "precondition.changed\n"
    assert "running on hv1" in said[8]
    assert "['batch0', 'batch1', 'batch2', 'batch3', 'batch4']" in said[10]
    assert "vm.not_found" in said[11]


def test_a_vms_life(make: MadeClient, cluster: Cluster) -> None:
    client = make(cluster.url, token=cluster.token)
    name = f"life{client.position}{type(client).__name__.lower()}"
    defined = client.vms.define(name, memory_mib=64, tags=["life"])
    assert (defined.changed, defined.id) == (True, "")
    assert client.vms.start(name, dry_run=True).events[0].type == "vm.start_requested"
    assert client.vms.get(name).state == "stopped"
    assert client.vms.start(name).wait(60).progress.text == "running on hv1"
    assert [vm.name for vm in client.vms.list(state=["running"], tag="life", name=name)] == [name]
    assert client.vms.modify(name, memory_mib=80).wait(60) is None, "it is done at once"
    assert client.vms.modify(name, memory_mib=96, restart=True).wait(60).progress.text == "running on hv1"
    assert client.vms.get(name).state == "running"
    running_at = client.position
    client.vms.stop(name, wait=60)
    assert (client.vms.get(name).state, client.vms.get(name, at=str(running_at)).state) == ("stopped", "running")
    client.vms.remove(name)
    with pytest.raises(NotFound):
        client.vms.get(name)
    told = [e.type for record in client.events(after=0, follow=False, subject=f"vm/{name}") for e in record.events]
    assert told[0] == "vm.defined" and told[-1] == "vm.removed" and "vm.started" in told


def test_everything_that_can_be_read_is_read(make: MadeClient, cluster: Cluster) -> None:
    client = make(cluster.url, token=cluster.token)
    assert [node.name for node in client.nodes.list()] == ["hv1"]
    assert client.nodes.get("hv1").hypervisor == "simulated"
    assert client.cluster.get().name == "lab"
    assert client.access.whoami().principal == "admin"
    assert "admin" in [row.name for row in client.access.list()]
    assert len(client.access.list_tokens()) >= 1
    assert client.log.history(limit=1)[0].position <= client.position
    assert client.log.keys().position >= 1
    assert client.log.verify(first=1).last >= 1
    assert client.audit.logins(limit=1) is not None
    assert client.operations.list(limit=1)[0].command
    assert client.log.diff(old="1").items
    assert client.cluster.what_if(steps=[{"node_loss": "hv1"}]).answers[0].question
    assert client.faults.list() == []


def test_what_a_service_is_given_is_shown_once(make: MadeClient, cluster: Cluster) -> None:
    client = make(cluster.url, token=cluster.token)
    name = f"ci{client.cluster.get().position}"
    client.access.add(name, kind="service", grants=[{"role": "viewer"}])
    token = client.access.create_token(name, lifetime_s=3600).token
    assert make(cluster.url, token=token).access.whoami().principal == name


def test_undo_is_a_command_like_any_other(make: MadeClient, cluster: Cluster) -> None:
    client = make(cluster.url, token=cluster.token)
    name = f"undone{client.cluster.get().position}"
    position = client.vms.define(name, memory_mib=64).position
    assert client.log.undo(position, dry_run=True).name == "vm.remove"
    assert client.vms.get(name).name == name
    assert client.log.undo(position).changed
    with pytest.raises(NotFound):
        client.vms.get(name)


def test_what_is_over_cannot_be_cancelled(make: MadeClient, cluster: Cluster) -> None:
    client = make(cluster.url, token=cluster.token)
    name = f"over{client.cluster.get().position}"
    client.vms.define(name, memory_mib=64)
    started = client.vms.start(name, wait=60)
    assert client.operations.get(started.id) == started.info()
    with pytest.raises(Conflict) as refused:
        started.cancel()
    assert refused.value.code == "operation.ended"


def test_what_has_changed_meanwhile_is_left_alone(make: MadeClient, cluster: Cluster) -> None:
    client = make(cluster.url, token=cluster.token)
    name = f"held{client.cluster.get().position}"
    client.vms.define(name, memory_mib=64)
    seen = client.vms.get(name)
    client.vms.add_tag(name, "x")
    with pytest.raises(PreconditionFailed):
        client.vms.modify(name, memory_mib=128, if_match=seen.position)
    assert client.vms.modify(name, memory_mib=128, if_match=client.vms.get(name).position).changed
    assert client.vms.get(name).spec.memory_mib == 128


def test_lists_are_sorted_over_all_their_pages(
    make: MadeClient, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAGE", 2)
    client = make(cluster.url, token=cluster.token)
    prefix = f"sorted{client.cluster.get().position}-"
    sizes = [64, 256, 128, 512, 32]
    for size in sizes:
        client.vms.define(f"{prefix}{size}", memory_mib=size)
    found = client.vms.list(name=f"{prefix}*", sort=["-memory_mib"])
    assert [vm.memory_mib for vm in found] == sorted(sizes, reverse=True)
    assert [vm.memory_mib for vm in client.vms.list(name=f"{prefix}*", sort=["-memory_mib"], limit=3)] == [
        512,
        256,
        128,
    ]


def test_events_outlive_a_gateway_that_is_killed(make: MadeClient, tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path / "hv1")
    daemon.start()
    try:
        writer = daemon.client()
        writer.command("cluster.init", {"name": "lab"})
        wait_until(lambda: any(node["ready"] for node in writer.nodes()), "the node is ready")
        writer.command("vm.define", {"name": "web01", "memory_mib": 64})
        events = make(f"unix://{daemon.socket}").events(after=0)
        seen = [next(events).position, next(events).position]
        before = tag_often(writer, 10)
        daemon.kill()
        daemon.start()
        last = tag_often(writer, 10)
        while seen[-1] < last:
            seen.append(next(events).position)
        events.close()
        assert before < last
        assert seen == list(range(1, seen[-1] + 1))
    finally:
        daemon.stop()


async def test_a_command_whose_reply_is_lost_is_done_once(cluster: Cluster) -> None:
    async with (
        TcpProxy.to(cluster.port) as proxy,
        AsyncClient(f"http://127.0.0.1:{proxy.port}", token=cluster.token, timeout_s=1.0) as client,
    ):
        await client.vms.define("once", memory_mib=64)
        proxy.swallow_replies = True
        asked = asyncio.create_task(client.vms.add_tag("once", "x"))
        direct = AsyncClient(cluster.url, token=cluster.token)
        while "x" not in [tag.tag for tag in (await direct.vms.get("once")).tags]:
            await asyncio.sleep(0.02)
        proxy.heal()
        told = await asked
        assert told.reply.repeated
        records = await direct.log.history(subject="vm/once", type=["vm.tag_added"])
        assert len(records) == 1
        await direct.close()


def test_threads_share_a_client(cluster: Cluster) -> None:
    with Client(cluster.url, token=cluster.token) as client:
        names = [f"thread{number}" for number in range(8)]
        threads = [threading.Thread(target=lambda n=name: client.vms.define(n, memory_mib=64)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [vm.name for vm in client.vms.list(name="thread*")] == names


async def test_a_task_that_is_cancelled_leaves_the_client_in_order(cluster: Cluster) -> None:
    async with AsyncClient(cluster.url, token=cluster.token) as client:
        events = client.events(types=["vm.defined"])
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await events.__anext__()
        await client.vms.define("later", memory_mib=64)
        async with asyncio.timeout(20):
            assert "defined as later" in (await events.__anext__()).events[0].summary
        events.close()


def test_a_stored_connection_is_used_by_name(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVC_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("PVC_SOCKET", str(cluster.daemon.socket))
    with Client.from_connection("local") as client, JsonClient(choose_connection()) as plain:
        assert client.access.whoami().principal == plain.whoami()["principal"] == "root"


def tag_often(client: JsonClient, count: int) -> int:
    position = 0
    for number in range(count):
        position = client.command("vm.add_tag", {"vm": "web01", "tag": f"t{number}-{client.position}"})["position"]
    return position
