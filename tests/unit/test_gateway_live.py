"""What is measured beside the state: utilisation, sessions, progress, and that nobody waits long for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pvc.clock import SystemClock
from pvc.errors import Unavailable
from pvc.gateway import live
from pvc.gateway.live import Live
from pvc.presence.alone import AlonePresence
from pvc.presence.base import Member
from pvc.runtime.telemetry import GuestFigures, Telemetry, TransferFigures
from tests.unit.gateway_house import House, a_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        await made.define()
        yield made


async def shown(house: House, path: str) -> Any:
    reply = await house.root.get(path)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_node_is_shown_with_its_session_and_what_it_uses(house: House) -> None:
    await house.second_node()
    await house.hear(cpu_per_cent=12.5, load1=0.5, memory_used_mib=2000, zookeeper="standalone")
    one, other = (await shown(house, "/nodes"))["items"]
    assert (one["present"], one["usage"]["cpu_per_cent"], one["usage"]["memory_used_mib"]) == (True, 12.5, 2000)
    assert (other["present"], other["usage"]) == (False, None)
    assert one == await shown(house, "/nodes/hv1")
    assert (await shown(house, "/cluster"))["zookeeper"] == {"hv1": "standalone"}


async def test_a_vm_is_shown_with_what_it_uses_and_how_far_it_has_migrated(house: House) -> None:
    await house.second_node()
    await house.start()
    vm = house.state.vm_names["web01"]
    assert (await house.root.post("/vms/web01/migrate", json={"node": "hv2"})).status_code == 200
    await house.hear(
        guests={vm: GuestFigures(cpu_per_cent=99.0, memory_used_mib=300)},
        transfers={vm: TransferFigures(per_cent=40.0, total_bytes=100, remaining_bytes=60, seconds=2.0)},
    )
    found = await shown(house, "/vms/web01")
    assert found["usage"] == {"cpu_per_cent": 99.0, "memory_used_mib": 300}
    migration = found["migration"]
    assert (migration["source"], migration["target"], migration["live"]) == ("hv1", "hv2", True)
    assert migration["progress"] == {"per_cent": 40.0, "total_bytes": 100, "remaining_bytes": 60, "seconds": 2.0}
    (row,) = (await shown(house, "/vms"))["items"]
    assert (row["node"], row["target"], row["away"]) == ("hv1", "hv2", "")


async def test_the_cluster_is_shown_with_its_health(house: House) -> None:
    await house.hear()
    assert (await shown(house, "/cluster"))["health"] == "ok"
    await house.root.post("/cluster/maintenance", json={"maintenance": True, "reason": "new switches"})
    cluster = await shown(house, "/cluster")
    assert (cluster["health"], cluster["maintenance"]) == ("degraded", True)
    assert cluster["reasons"] == ["the cluster is in maintenance (new switches): no lost node is fenced"]


async def test_faults_are_listed_whether_or_not_somebody_knows_of_them(house: House) -> None:
    assert (await shown(house, "/faults"))["items"] == []
    await house.hear()
    await house.second_node()
    await house.root.post("/nodes/hv1/fence", json={"agent": "fence_ipmilan"})
    await house.lose("hv2")
    (fault,) = (await shown(house, "/faults"))["items"]
    assert (fault["id"], fault["subject"], fault["acknowledged_by"]) == ("node.lost/hv2", "node/hv2", "")
    assert (await shown(house, "/cluster"))["health"] == "critical"
    node = await shown(house, "/nodes/hv2")
    assert ([one["id"] for one in node["faults"]], node["reasons"]) == (["node.lost/hv2"], [fault["message"]])
    assert "pvc node info hv2" in fault["hint"]
    await house.root.post("/faults/acknowledge", json={"fault": "node.lost/hv2"})
    assert (await shown(house, "/faults?acknowledged=false"))["items"] == []
    (fault,) = (await shown(house, "/faults?acknowledged=true"))["items"]
    assert fault["acknowledged_by"] == "root"
    cluster = await shown(house, "/cluster")
    assert (cluster["health"], cluster["faults"], cluster["faults_acknowledged"]) == ("ok", 1, 1)
    assert (await house.root.get("/faults?acknowledged=perhaps")).status_code == 422


class Mute(AlonePresence):
    """Knows, and does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def members(self) -> dict[str, Member]:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError("never reached")

    async def telemetry(self) -> dict[str, bytes]:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError("never reached")


async def test_a_presence_that_does_not_answer_is_waited_for_once_and_not_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "DEADLINE_S", 0.01)
    mute, clock = Mute(), SystemClock()
    seen = Live(Telemetry(mute, clock), mute, clock)
    for _ in range(3):
        assert await seen.hellos() is None
        assert await seen.figures() == {}
    assert mute.asked == 2


class Refusing(AlonePresence):
    """Says that it cannot tell."""

    async def members(self) -> dict[str, Member]:
        raise Unavailable("no majority", code="presence.unreachable")


async def test_without_an_answer_it_is_not_known_who_is_there() -> None:
    clock = SystemClock()
    assert await Live(None, Refusing(), clock).hellos() is None
    assert await Live(None, None, clock).hellos() is None
    assert await Live(None, None, clock).figures() == {}


async def test_a_hello_of_another_version_still_says_that_the_node_is_there() -> None:
    presence = AlonePresence()
    await presence.join("hv1", b"\x00 not json")
    seen = await Live(None, presence, SystemClock()).hellos()
    assert seen == {"hv1": None}
