"""What a session with ZooKeeper does, so far as PVC counts on it; for a real server and for the simulated one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import pytest

from pvc.zookeeper.kazoo_parts import digest_of
from pvc.zookeeper.port import ZookeeperSession
from pvc.zookeeper.types import (
    ADMIN,
    CREATE,
    DELETE,
    READ,
    WRITE,
    BadVersion,
    Create,
    Credentials,
    Delete,
    Lost,
    NodeExists,
    NoNode,
    NoSession,
    NotAllowed,
    SetData,
)
from tests.contract.zookeeper_waiting import Fired, comes_true, gone, until

ALL = READ | WRITE | CREATE | DELETE | ADMIN
ANY = -1


class World(Protocol):
    """Some servers, a place in them that nobody else uses, and a network between each client and them."""

    timeout_s: float
    root: str

    async def session(
        self,
        name: str,
        *,
        credentials: Credentials | None = None,
        also: Credentials | None = None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> ZookeeperSession:
        """A new session, connected; what is done to the name is done to all that have it."""
        ...

    def swallow(self, name: str, what: str) -> None:
        """Lose the "requests", "replies" or "both" of a client."""
        ...

    def restore(self, name: str) -> None: ...


class ZookeeperContract:
    @pytest.fixture
    def world(self) -> World:
        raise NotImplementedError

    # -- Reading and writing -------------------------------------------------------------------------------------------

    async def test_what_is_created_is_read_with_version_0_and_each_change_counts(self, world: World) -> None:
        a = await world.session("a")
        path = f"{world.root}/x"
        assert await a.multi([Create(path, b"one", ALL)]) == [path]
        assert await a.get(path) == (b"one", 0)
        assert await a.multi([SetData(path, b"two", 0)]) == [1]
        assert await a.multi([SetData(path, b"three", ANY)]) == [2]
        assert await a.get(path) == (b"three", 2)

    async def test_a_transaction_is_done_whole_or_not_at_all(self, world: World) -> None:
        a = await world.session("a")
        x, y = f"{world.root}/x", f"{world.root}/y"
        await a.multi([Create(x, b"", ALL)])
        for culprit, error in (
            (SetData(x, b"!", 7), BadVersion),
            (Create(x, b"", ALL), NodeExists),
            (SetData(f"{world.root}/none", b"", ANY), NoNode),
            (Delete(f"{world.root}/none", ANY), NoNode),
            (Delete(x, 7), BadVersion),
            (Create(f"{world.root}/none/z", b"", ALL), NoNode),
        ):
            with pytest.raises(error):
                await a.multi([Create(y, b"", ALL), SetData(x, b"?", 0), culprit])
            assert await a.get(x) == (b"", 0)
            assert not await a.exists(y)

    async def test_of_several_wrong_operations_the_first_is_named(self, world: World) -> None:
        a = await world.session("a")
        x = f"{world.root}/x"
        await a.multi([Create(x, b"", ALL)])
        with pytest.raises(BadVersion):
            await a.multi([SetData(x, b"", 3), Create(x, b"", ALL)])
        with pytest.raises(NodeExists):
            await a.multi([Create(x, b"", ALL), SetData(x, b"", 3)])

    async def test_an_operation_sees_what_those_before_it_in_the_transaction_did(self, world: World) -> None:
        a = await world.session("a")
        x = f"{world.root}/x"
        results = await a.multi([Create(x, b"1", ALL), Create(f"{x}/y", b"", ALL), SetData(x, b"2", 0)])
        assert results == [x, f"{x}/y", 1]
        await a.multi([Delete(f"{x}/y", 0), Delete(x, 1), Create(x, b"new", ALL)])
        assert await a.get(x) == (b"new", 0)
        assert await a.children(x) == []

    async def test_sequential_znodes_are_numbered_by_all_that_were_ever_created_there(self, world: World) -> None:
        a = await world.session("a")
        root = f"{world.root}/s"
        await a.multi([Create(root, b"", ALL)])
        assert await a.multi([Create(f"{root}/e-", b"", READ, sequence=True)] * 2) == [
            f"{root}/e-0000000000",
            f"{root}/e-0000000001",
        ]
        await a.multi([Create(f"{root}/plain", b"", ALL)])
        await a.multi([Delete(f"{root}/e-0000000001", ANY)])
        with pytest.raises(NodeExists):
            await a.multi([Create(f"{root}/e-", b"", READ, sequence=True), Create(f"{root}/plain", b"", ALL)])
        assert await a.multi([Create(f"{root}/f-", b"", READ, sequence=True)]) == [f"{root}/f-0000000003"]

    async def test_the_numbers_begin_again_where_the_parent_is_created_anew(self, world: World) -> None:
        a = await world.session("a")
        root = f"{world.root}/s"
        await a.multi([Create(root, b"", ALL), Create(f"{root}/e-", b"", READ, sequence=True)])
        await a.multi([Delete(f"{root}/e-0000000000", ANY), Delete(root, ANY)])
        results = await a.multi([Create(root, b"", ALL), Create(f"{root}/e-", b"", READ, sequence=True)])
        assert results == [root, f"{root}/e-0000000000"]

    async def test_a_znode_with_children_cannot_be_deleted(self, world: World) -> None:
        a = await world.session("a")
        x = f"{world.root}/x"
        await a.multi([Create(x, b"", ALL), Create(f"{x}/y", b"", ALL)])
        with pytest.raises(Exception) as refusal:
            await a.multi([Delete(x, ANY)])
        assert "NotEmpty" in type(refusal.value).__name__
        assert await a.exists(x)

    async def test_many_are_read_at_once_and_a_missing_one_is_told(self, world: World) -> None:
        a = await world.session("a")
        x, y, none = f"{world.root}/x", f"{world.root}/y", f"{world.root}/none"
        await a.multi([Create(x, b"x", ALL), Create(y, b"y", ALL)])
        assert await a.get_many([y, x]) == [b"y", b"x"]
        found = await a.find_many([x, none, y])
        assert [znode and (znode.data, znode.version, znode.owner) for znode in found] == [
            (b"x", 0, 0),
            None,
            (b"y", 0, 0),
        ]
        assert await a.find_many([]) == []
        for call in (a.get_many([x, none]), a.get(none), a.children(none), a.check(none)):
            with pytest.raises(NoNode):
                await call
        await a.check(x)

    async def test_what_was_created_earlier_has_the_lower_number_and_a_change_keeps_it(self, world: World) -> None:
        a = await world.session("a")
        x, y, z = (f"{world.root}/{name}" for name in "xyz")
        await a.multi([Create(y, b"", ALL)])
        await a.multi([Create(x, b"", ALL), Create(z, b"", ALL)])
        await a.multi([SetData(y, b"new", 0)])
        first, second, third = [znode.created for znode in await a.find_many([y, x, z]) if znode is not None]
        assert first < second == third

    async def test_names_of_children_come_without_their_path(self, world: World) -> None:
        a = await world.session("a")
        x = f"{world.root}/x"
        await a.multi([Create(x, b"", ALL), *(Create(f"{x}/{name}", b"", ALL) for name in "cab")])
        assert sorted(await a.children(x)) == ["a", "b", "c"]

    async def test_of_two_who_set_the_same_version_one_fails(self, world: World) -> None:
        a, b = await world.session("a"), await world.session("b")
        x = f"{world.root}/x"
        await a.multi([Create(x, b"", ALL)])
        outcomes = await asyncio.gather(
            *(one.multi([SetData(x, b"", 0)]) for one in (a, b, a, b)), return_exceptions=True
        )
        assert outcomes.count([1]) == 1
        assert sum(isinstance(outcome, BadVersion) for outcome in outcomes) == 3

    async def test_what_one_wrote_another_reads_after_a_sync(self, world: World) -> None:
        a, b = await world.session("a"), await world.session("b")
        x = f"{world.root}/x"
        for number in range(5):
            await a.multi([Create(f"{x}{number}", b"", ALL)])
            await b.sync("/")
            assert await b.exists(f"{x}{number}")

    async def test_requests_of_one_session_are_done_in_order(self, world: World) -> None:
        a = await world.session("a")
        x = f"{world.root}/x"
        made = asyncio.ensure_future(a.multi([Create(x, b"", ALL)]))
        seen = asyncio.ensure_future(a.exists(x))
        gone = asyncio.ensure_future(a.multi([Delete(x, 0)]))
        after = asyncio.ensure_future(a.exists(x))
        assert await asyncio.gather(made, seen, gone, after) == [[x], True, [0], False]

    # -- Who may what --------------------------------------------------------------------------------------------------

    async def test_what_may_only_be_read_cannot_be_changed_but_deleted_by_who_may_in_its_parent(
        self, world: World
    ) -> None:
        a = await world.session("a")
        open_, shut = f"{world.root}/open", f"{world.root}/shut"
        await a.multi([Create(open_, b"", ALL), Create(shut, b"", READ | CREATE)])
        await a.multi([Create(f"{one}/x", b"", READ) for one in (open_, shut)])
        for refused in (
            SetData(f"{open_}/x", b"", ANY),
            Create(f"{open_}/x/y", b"", ALL),
            SetData(shut, b"", ANY),
            Delete(f"{shut}/x", ANY),
        ):
            with pytest.raises(NotAllowed) as refusal:
                await a.multi([refused])
            assert refusal.value.code == "log.not_allowed"
        await a.multi([Delete(f"{open_}/x", ANY)])

    async def test_another_identity_has_no_access(self, world: World) -> None:
        a = await world.session("a", credentials=Credentials(user="pvc", password="right"))
        b = await world.session("b", credentials=Credentials(user="pvc", password="wrong"))
        x = f"{world.root}/x"
        await a.multi([Create(x, b"secret", ALL)])
        await b.sync("/")
        for call in (b.get(x), b.children(x), b.multi([SetData(x, b"", ANY)]), b.multi([Create(f"{x}/y", b"", ALL)])):
            with pytest.raises(NotAllowed):
                await call
        assert await a.get(x) == (b"secret", 0)

    async def test_a_second_identity_may_what_an_acl_gives_it_and_owns_nothing(self, world: World) -> None:
        node, keeper = Credentials(user="pvc", password="right"), Credentials(user="archivist", password="other")
        a, both = await world.session("a", credentials=node), await world.session("b", credentials=node, also=keeper)
        x = f"{world.root}/x"
        await a.multi([Create(x, b"", READ | CREATE, others=((digest_of(keeper), READ | DELETE),))])
        await both.multi([Create(f"{x}/y", b"", READ), Create(f"{x}/z", b"", READ)])
        with pytest.raises(NotAllowed):
            await a.multi([Delete(f"{x}/y", ANY)])
        await both.sync("/")
        await both.multi([Delete(f"{x}/y", ANY)])
        await a.sync("/")
        assert await a.children(x) == ["z"]

    # -- Watches -------------------------------------------------------------------------------------------------------

    async def test_a_watch_fires_once(self, world: World) -> None:
        a, b = await world.session("a"), await world.session("b")
        x, fired = f"{world.root}/x", Fired()
        await a.multi([Create(x, b"", ALL)])
        await b.sync("/")
        await b.get(x, fired.note)
        await a.multi([SetData(x, b"1", ANY)])
        await fired.reach(1)
        await a.multi([SetData(x, b"2", ANY)])
        await b.sync("/")
        assert await b.get(x) == (b"2", 2)
        assert fired.times == 1

    async def test_the_same_function_set_twice_fires_once(self, world: World) -> None:
        a = await world.session("a")
        x, fired = f"{world.root}/x", Fired()
        await a.multi([Create(x, b"", ALL)])
        await a.get(x, fired.note)
        await a.exists(x, fired.note)
        await a.multi([SetData(x, b"1", ANY)])
        await fired.reach(1)
        await a.get(x)
        assert fired.times == 1

    async def test_what_each_watch_waits_for(self, world: World) -> None:
        a = await world.session("a")
        x = f"{world.root}/x"
        created, deleted, child, gone = Fired(), Fired(), Fired(), Fired()
        assert not await a.exists(x, created.note)
        await a.multi([Create(x, b"", ALL)])
        await created.reach(1)
        await a.children(x, child.note)
        await a.multi([SetData(x, b"", ANY)])  # not a matter of its children
        await a.get(x)
        assert child.times == 0
        await a.multi([Create(f"{x}/y", b"", ALL)])
        await child.reach(1)
        await a.get(x, deleted.note)
        await a.children(x, gone.note)
        await a.multi([Delete(f"{x}/y", ANY), Delete(x, ANY)])
        await deleted.reach(1)
        await gone.reach(1)

    async def test_a_watch_on_what_could_not_be_read_does_not_fire(self, world: World) -> None:
        a = await world.session("a")
        x, fired = f"{world.root}/x", Fired()
        for call in (a.get(x, fired.note), a.children(x, fired.note)):
            with pytest.raises(NoNode):
                await call
        await a.multi([Create(x, b"", ALL)])
        await a.get(x)
        assert fired.times == 0

    # -- Connections and sessions --------------------------------------------------------------------------------------

    async def test_a_lost_connection_fires_each_watch_and_fails_what_was_asked(self, world: World) -> None:
        connected = Fired()
        a = await world.session("a", on_connected=connected.note)
        x, fired = f"{world.root}/x", Fired()
        await a.multi([Create(x, b"", ALL)])
        await a.get(x, fired.note)
        session = a.session
        world.swallow("a", "replies")
        written = asyncio.ensure_future(a.multi([SetData(x, b"!", 0)]))
        await asyncio.sleep(world.timeout_s / 20)
        assert not written.done()
        world.restore("a")
        with pytest.raises(Lost):
            await written
        await connected.reach(2)
        assert a.session == session
        await fired.reach(1)
        assert await a.get(x) == (b"!", 1), "only the reply was lost"

    async def test_who_is_not_answered_gives_the_connection_up(self, world: World) -> None:
        a = await world.session("a")
        world.swallow("a", "both")
        with pytest.raises(Lost):
            await a.exists("/")
        await until(lambda: not a.connected, world.timeout_s)
        with pytest.raises(NoSession):
            await a.exists("/")
        world.restore("a")
        async with asyncio.timeout(4 * world.timeout_s):
            await a.wait_connected()
        assert await a.exists("/")

    async def test_what_is_ephemeral_goes_with_its_session_and_not_before(self, world: World) -> None:
        connected = Fired()
        a, b = await world.session("a", on_connected=connected.note), await world.session("b")
        x = f"{world.root}/x"
        await a.multi([Create(x, b"", ALL, ephemeral=True)])
        session = a.session
        assert session is not None
        await b.sync("/")
        [znode] = await b.find_many([x])
        assert znode is not None and znode.owner == session[0]
        world.swallow("a", "both")
        await asyncio.sleep(world.timeout_s / 2)
        assert await b.exists(x)
        await comes_true(lambda: gone(b, x), 4 * world.timeout_s)
        world.restore("a")
        await connected.reach(2)
        assert a.session is not None and a.session[0] != session[0]
        assert a.handshake is not None and a.handshake.session == a.session[0]
        assert a.handshake.timeout_s == pytest.approx(world.timeout_s)

    async def test_a_session_that_is_ended_takes_its_znodes_along_at_once(self, world: World) -> None:
        a, b = await world.session("a"), await world.session("b")
        x = f"{world.root}/x"
        await a.multi([Create(x, b"", ALL, ephemeral=True)])
        await a.close()
        await b.sync("/")
        assert not await b.exists(x)
        with pytest.raises(NoSession):
            await a.exists(x)

    async def test_a_session_that_is_left_to_its_expiry_lives_on(self, world: World) -> None:
        a, b = await world.session("a"), await world.session("b")
        x = f"{world.root}/x"
        await a.multi([Create(x, b"", ALL, ephemeral=True)])
        await a.close(end_session=False)
        assert not a.connected
        await asyncio.sleep(world.timeout_s / 4)
        assert await b.exists(x)
        await comes_true(lambda: gone(b, x), 4 * world.timeout_s)

    async def test_an_ephemeral_znode_can_be_replaced_in_one_transaction_by_another_session(self, world: World) -> None:
        a, b = await world.session("a"), await world.session("b")
        x = f"{world.root}/x"
        await a.multi([Create(x, b"a", ALL, ephemeral=True)])
        await b.sync("/")
        await b.multi([Delete(x, 0), Create(x, b"b", ALL, ephemeral=True)])
        await a.close()
        await b.sync("/")
        assert await b.get(x) == (b"b", 0)
