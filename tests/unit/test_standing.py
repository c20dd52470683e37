"""A node's place, and whether it may start VMs: only with a lease, and announced in this very session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from pvc.node.standing import HELLO_S, START_MARGIN_S, Standing
from pvc.presence.hello import Contact, Hello, read_hello
from pvc.presence.memory import MemoryPresence
from pvc.presence.memory_server import PresenceServer
from pvc.runtime.world import World
from pvc.sim.loop import VirtualClock, run_virtual
from tests.support.core import TinyCluster, a_cluster

TIMEOUT_S = 10.0
CONTACT = Contact(gateway="https://10.0.0.2:7370", certificate="ab" * 32)


class House:
    """hv2's standing in a cluster of two."""

    def __init__(self) -> None:
        self.server = PresenceServer(VirtualClock(), session_timeout_s=TIMEOUT_S)
        self.cluster: TinyCluster = a_cluster("hv1", "hv2")
        self.world = World(self.cluster.state)
        self.presence = MemoryPresence(self.server, "hv2")
        self.changed = asyncio.Event()
        self.archived = 0
        self.standing = Standing(
            "hv2", self.world, self.presence, self.changed, contact=CONTACT, archived=lambda: self.archived
        )

    def announce(self) -> None:
        session = self.standing.session
        self.cluster.says_ready("hv2")
        self.standing.note_announced(session)

    async def lose_the_session(self) -> None:
        """Cut off until everybody knows."""
        self.server.cut("hv2")
        await asyncio.sleep(3 * TIMEOUT_S)
        self.server.restore("hv2")


@contextlib.asynccontextmanager
async def a_house() -> AsyncIterator[House]:
    house = House()
    running = asyncio.create_task(house.standing.run())
    yield house
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await house.presence.close()


def live(story: Callable[[House], Awaitable[None]]) -> None:
    async def main() -> None:
        async with a_house() as house:
            await story(house)

    run_virtual(main())


def test_a_node_may_start_vms_once_it_has_its_place_and_has_said_so() -> None:
    async def story(house: House) -> None:
        assert not house.standing.may_start() and not house.standing.joined
        await asyncio.sleep(2)
        assert house.standing.joined and house.changed.is_set()
        assert not house.standing.may_start(), "what the log says of it is of an earlier life"
        house.announce()
        assert house.standing.announced and house.standing.may_start()

    live(story)


def test_an_announcement_of_an_earlier_session_counts_for_nothing() -> None:
    async def story(house: House) -> None:
        await asyncio.sleep(2)
        house.announce()
        begun_in = house.standing.session
        await house.lose_the_session()
        await asyncio.sleep(5)
        assert house.standing.joined and house.standing.session == begun_in + 1
        assert not house.standing.announced and not house.standing.may_start()
        house.standing.note_announced(begun_in)
        assert not house.standing.may_start(), "an answer that comes late"
        house.announce()
        assert house.standing.may_start()

    live(story)


def test_a_node_that_the_log_calls_lost_starts_nothing_though_its_session_lives() -> None:
    async def story(house: House) -> None:
        await asyncio.sleep(2)
        house.announce()
        house.cluster.says_lost("hv2")
        assert not house.standing.may_start()
        house.announce()
        assert house.standing.may_start()
        house.cluster.says_lost("hv2")
        house.cluster.says_fenced("hv2")
        house.cluster.do("node.remove", node="hv2")
        assert not house.standing.announced

    live(story)


def test_a_node_that_is_cut_off_may_start_nothing_before_anyone_misses_it() -> None:
    async def story(house: House) -> None:
        await asyncio.sleep(2)
        house.announce()
        house.server.cut("hv2")
        while house.standing.may_start():
            await asyncio.sleep(0.1)
        assert "hv2" in house.server.members()
        assert 0 <= house.presence.lease_left_s() <= START_MARGIN_S

    live(story)


def test_what_a_node_says_of_itself_follows_its_fold() -> None:
    async def story(house: House) -> None:
        await asyncio.sleep(2)
        house.cluster.do("vm.define", name="web01", memory_mib=64)
        await asyncio.sleep(2 * HELLO_S)
        hello = read_hello(house.server.members()["hv2"].hello)
        assert hello is not None
        assert (hello.position, hello.state_hash) == (house.world.position, house.world.state.state_hash())
        assert read_hello(b"\xff") is None and read_hello(msgspec.json.encode({"version": 1})) is None

    live(story)


def test_a_name_that_another_machine_has_is_asked_for_until_it_is_free() -> None:
    async def main() -> None:
        house = House()
        other = MemoryPresence(house.server, "other", machine="another")
        await other.join("hv2", b"{}")
        running = asyncio.create_task(house.standing.run())
        await asyncio.sleep(5)
        assert not house.standing.joined
        await other.close(expire=False)
        await asyncio.sleep(5)
        assert house.standing.joined
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await house.presence.close()

    run_virtual(main())


def test_the_others_learn_where_the_gateway_is_and_how_far_the_archive_reaches() -> None:
    async def story(house: House) -> None:
        await asyncio.sleep(HELLO_S)
        hello = await said_by_hv2(house)
        assert (hello.gateway, hello.certificate, hello.archived) == (CONTACT.gateway, CONTACT.certificate, 0)
        house.archived = 4096
        await asyncio.sleep(2 * HELLO_S)
        assert (await said_by_hv2(house)).archived == 4096

    live(story)


async def said_by_hv2(house: House) -> Hello:
    hello = read_hello((await house.presence.members())["hv2"].hello)
    assert hello is not None
    return hello
