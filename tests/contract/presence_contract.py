"""What every Presence must do. A backend's test gives the world: clients by name, and the ways to disturb them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import pytest

from pvc.clock import Clock
from pvc.errors import Conflict, Unavailable
from pvc.presence.base import Presence
from pvc.presence.lease import DRIFT_PART

T = TypeVar("T")

PATIENCE = 6
"""In session time-outs: how long to wait for what must come; several times what it takes."""


class World(Protocol):
    """Some servers, and a network between each client and them."""

    timeout_s: float
    """As granted."""
    poll_s: float
    """How often it makes sense to look."""
    clock: Clock

    async def client(self, name: str, machine: str = "") -> Presence:
        """A new client of that name; what is done to the name is done to all that have it."""
        ...

    def cut(self, name: str) -> None: ...

    def lose_replies(self, name: str) -> None: ...

    def restore(self, name: str) -> None: ...


class PresenceContract:
    @pytest.fixture
    def world(self) -> World:
        raise NotImplementedError

    # -- Membership ----------------------------------------------------------------------------------------------------

    async def test_who_joins_is_a_member_with_its_hello(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        assert not a.joined
        await a.join("a", b"I am a")
        await b.join("b", b"I am b")
        assert a.joined and b.joined
        members = await a.members()
        assert {name: (member.name, member.hello) for name, member in members.items()} == {
            "a": ("a", b"I am a"),
            "b": ("b", b"I am b"),
        }
        assert members == await b.members()
        assert members["a"].session != members["b"].session

    async def test_an_update_changes_the_hello_alone(self, world: World) -> None:
        a = await world.client("a")
        await a.join("a", b"old")
        before = (await a.members())["a"]
        await a.update(b"new")
        after = (await a.members())["a"]
        assert (before.hello, after.hello) == (b"old", b"new")
        assert (before.name, before.session) == (after.name, after.session)

    async def test_joining_again_changes_nothing_but_the_hello(self, world: World) -> None:
        a = await world.client("a")
        await a.join("a", b"1")
        before = (await a.members())["a"]
        await a.join("a", b"2")
        after = (await a.members())["a"]
        assert (after.session, after.hello) == (before.session, b"2")

    async def test_who_leaves_is_gone_at_once_with_its_primaryship(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        await a.join("a", b"")
        assert await a.claim_primary("a")
        await a.leave()
        assert (a.joined, a.lease_left_s()) == (False, 0.0)
        assert (await b.members(), await b.primary()) == ({}, "")

    async def test_a_session_that_is_ended_takes_its_place_along(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        await a.join("a", b"")
        await a.close(expire=False)
        await until(world, lambda: holds(b.members, lambda members: members == {}), patience_s=world.timeout_s / 2)

    async def test_without_a_place_there_is_nothing_to_update_or_publish(self, world: World) -> None:
        a = await world.client("a")
        for call in (a.update(b"x"), a.publish(b"x")):
            with pytest.raises(Unavailable) as refused:
                await call
            assert refused.value.code == "presence.not_joined"

    async def test_another_machine_cannot_take_a_live_name_but_that_of_a_dead_one(self, world: World) -> None:
        a, twin = await world.client("a"), await world.client("twin")
        await a.join("a", b"the first")
        with pytest.raises(Conflict) as refused:
            await twin.join("a", b"the second")
        assert refused.value.code == "presence.name_taken"
        assert not twin.joined and a.joined
        assert (await twin.members())["a"].hello == b"the first"
        world.cut("a")
        await until(world, lambda: holds(twin.members, lambda members: members == {}))
        await twin.join("a", b"the second")
        assert (await twin.members())["a"].hello == b"the second"

    # -- Expiry and restart --------------------------------------------------------------------------------------------

    async def test_an_expired_session_vanishes_and_its_primaryship_falls_free(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        await a.join("a", b"")
        await b.join("b", b"")
        assert await a.claim_primary("a")
        assert not await b.claim_primary("b")
        world.cut("a")
        await until(world, lambda: holds(b.members, lambda members: set(members) == {"b"}))
        assert await b.primary() == ""
        assert await b.claim_primary("b")
        assert await b.primary() == "b"

    async def test_an_expired_node_learns_it_and_joins_again(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        await a.join("a", b"")
        before = (await b.members())["a"].session
        async with listening(a) as hints:
            world.cut("a")
            await until(world, lambda: holds(b.members, lambda members: members == {}))
            assert a.lease_left_s() == 0.0
            hints.clear()
            world.restore("a")
            await until(world, lambda: not a.joined)
            assert a.lease_left_s() == 0.0
            await until(world, lambda: hints)
        await a.join("a", b"again")
        assert a.joined
        assert (await b.members())["a"].session != before
        await until(world, lambda: a.lease_left_s() > 0)

    async def test_a_short_cut_costs_nothing(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        await a.join("a", b"")
        before = (await b.members())["a"]
        world.cut("a")
        await asyncio.sleep(world.timeout_s / 4)
        world.restore("a")
        start = world.clock.monotonic()
        while world.clock.monotonic() < start + 2 * world.timeout_s:
            assert (await b.members()).get("a") == before
            await asyncio.sleep(world.poll_s)
        assert a.joined and a.lease_left_s() > 0

    async def test_a_restart_within_the_timeout_leaves_no_gap(self, world: World) -> None:
        b = await world.client("b")
        old = await world.client("a", machine="m")
        await old.join("a", b"old")
        assert await old.claim_primary("a")
        seen: list[str] = []
        async with asyncio.TaskGroup() as both:
            looking = both.create_task(look_at(b, "a", seen, world))
            await old.close()
            await asyncio.sleep(world.timeout_s / 4)
            new = await world.client("a", machine="m")
            await new.join("a", b"new")
            assert await new.claim_primary("a")
            # Past the expiry of the old session, which must not take the new one's place along.
            await asyncio.sleep(2 * world.timeout_s)
            looking.cancel()
        sessions = list(dict.fromkeys(seen))
        assert len(sessions) == 2 and "" not in sessions
        assert (await b.members())["a"].hello == b"new"
        assert await b.primary() == "a"
        assert new.joined and new.lease_left_s() > 0

    async def test_a_daemon_whose_place_was_taken_by_a_second_one_on_its_machine_learns_it(self, world: World) -> None:
        first, second = await world.client("a", machine="m"), await world.client("b", machine="m")
        await first.join("a", b"first")
        await second.join("a", b"second")
        await until(world, lambda: not first.joined)
        assert first.lease_left_s() == 0.0
        assert second.joined and (await second.members())["a"].hello == b"second"

    # -- The lease -----------------------------------------------------------------------------------------------------

    async def test_a_healthy_node_always_has_a_lease_that_outlasts_an_outage_of_a_third_of_the_timeout(
        self, world: World
    ) -> None:
        a = await world.client("a")
        assert a.lease_left_s() == 0.0
        await a.join("a", b"")
        start = world.clock.monotonic()
        least, most = world.timeout_s, 0.0
        while world.clock.monotonic() < start + 2 * world.timeout_s:
            least, most = min(least, a.lease_left_s()), max(most, a.lease_left_s())
            await asyncio.sleep(world.poll_s)
        assert least > world.timeout_s / 3
        assert most <= world.timeout_s * (1 - DRIFT_PART)

    async def test_the_lease_is_over_before_anyone_can_see_the_node_gone(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        await a.join("a", b"")
        await asyncio.sleep(world.timeout_s)
        ends: list[float] = []
        async with asyncio.TaskGroup() as both:
            sampling = both.create_task(sample_ends(a, ends, world))
            await asyncio.sleep(world.timeout_s / 3)
            world.cut("a")
            await until(world, lambda: holds(b.members, lambda members: members == {}))
            gone = world.clock.monotonic()
            sampling.cancel()
        assert ends and max(ends) <= gone

    async def test_a_lost_reply_does_not_extend_the_lease(self, world: World) -> None:
        a = await world.client("a")
        await a.join("a", b"")
        await asyncio.sleep(world.timeout_s / 2)
        ends: list[float] = []
        world.lose_replies("a")
        muted = world.clock.monotonic()
        async with asyncio.TaskGroup() as both:
            sampling = both.create_task(sample_ends(a, ends, world))
            await until(world, lambda: a.lease_left_s() == 0.0)
            sampling.cancel()
        assert ends and max(ends) <= muted + world.timeout_s * (1 - DRIFT_PART)
        world.restore("a")

    # -- Election ------------------------------------------------------------------------------------------------------

    async def test_of_many_claims_one_succeeds(self, world: World) -> None:
        clients = {name: await world.client(name) for name in ("a", "b", "c")}
        for name, client in clients.items():
            await client.join(name, b"")
        won = await asyncio.gather(*(client.claim_primary(name) for name, client in clients.items()))
        [winner] = [name for name, success in zip(clients, won, strict=True) if success]
        assert {await client.primary() for client in clients.values()} == {winner}
        assert await clients[winner].claim_primary(winner)

    async def test_who_resigns_may_be_followed(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        await a.join("a", b"")
        await b.join("b", b"")
        assert await a.claim_primary("a")
        await b.resign_primary()  # not its own to give up
        assert await b.primary() == "a"
        await a.resign_primary()
        assert await b.primary() == ""
        assert await b.claim_primary("b")

    async def test_without_a_place_nobody_is_primary(self, world: World) -> None:
        a = await world.client("a")
        assert not await a.claim_primary("a")
        assert await a.primary() == ""

    # -- Hints ---------------------------------------------------------------------------------------------------------

    async def test_changes_hint_at_members_and_primary(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        async with listening(b) as hints:
            await until(world, lambda: hints)  # the one at once
            steps: list[Callable[[], Awaitable[object]]] = [
                lambda: a.join("a", b""),
                lambda: a.claim_primary("a"),
                a.resign_primary,
                a.leave,
            ]
            for step in steps:
                await asyncio.sleep(10 * world.poll_s)
                hints.clear()
                await step()
                await until(world, lambda: hints, patience_s=world.timeout_s / 2)

    # -- Telemetry -----------------------------------------------------------------------------------------------------

    async def test_telemetry_is_the_last_of_each_node_and_outlives_its_session(self, world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        await a.join("a", b"")
        await b.join("b", b"")
        await a.publish(b"1")
        await a.publish(b"2")
        await b.publish(b"x")
        await until(world, lambda: holds(b.telemetry, lambda all_: all_ == {"a": b"2", "b": b"x"}))
        await a.close(expire=False)
        await until(world, lambda: holds(b.members, lambda members: set(members) == {"b"}))
        assert await b.telemetry() == {"a": b"2", "b": b"x"}
        await b.forget("a")
        await b.forget("a")
        assert await b.telemetry() == {"b": b"x"}

    # -- Ends ----------------------------------------------------------------------------------------------------------

    async def test_without_servers_a_call_is_refused_in_time(self, world: World) -> None:
        a = await world.client("a")
        world.cut("a")
        start = world.clock.monotonic()
        with pytest.raises(Unavailable) as refused:
            await a.members()
        assert refused.value.code == "presence.unreachable"
        assert world.clock.monotonic() - start < 2 * world.timeout_s
        world.restore("a")
        await until(world, lambda: holds(a.members, lambda members: members == {}))

    async def test_what_is_closed_refuses_everything(self, world: World) -> None:
        a = await world.client("a")
        await a.join("a", b"")
        changes = a.changes()
        await anext(changes)
        await a.close()
        await a.close()
        assert (a.joined, a.lease_left_s()) == (False, 0.0)
        for refused in (a.members(), a.join("a", b""), a.claim_primary("a"), a.telemetry(), anext(changes)):
            with pytest.raises(Unavailable) as error:
                await refused
            assert error.value.code == "presence.closed"


async def until(
    world: World, condition: Callable[[], object | Awaitable[object]], *, patience_s: float | None = None
) -> None:
    """Return once the condition holds; fail when it does not in time."""
    try:
        async with asyncio.timeout(patience_s or PATIENCE * world.timeout_s):
            while True:
                result = condition()
                if await result if isinstance(result, Awaitable) else result:
                    return
                await asyncio.sleep(world.poll_s)
    except TimeoutError:
        raise AssertionError("it did not come about in time") from None


async def holds(ask: Callable[[], Awaitable[T]], condition: Callable[[T], bool]) -> bool:
    return condition(await ask())


@contextlib.asynccontextmanager
async def listening(presence: Presence) -> AsyncIterator[list[None]]:
    """The hints that the client gets meanwhile."""
    hints: list[None] = []

    async def listen() -> None:
        async for hint in presence.changes():
            hints.append(hint)

    task = asyncio.create_task(listen())
    try:
        yield hints
    finally:
        task.cancel()


async def look_at(presence: Presence, name: str, seen: list[str], world: World) -> None:
    """Note the session of the member again and again, empty where it is absent."""
    while True:
        member = (await presence.members()).get(name)
        seen.append(member.session if member is not None else "")
        await asyncio.sleep(world.poll_s)


async def sample_ends(presence: Presence, ends: list[float], world: World) -> None:
    """Note until when the lease lasts, again and again, while there is one."""
    while True:
        now = world.clock.monotonic()  # read before, so that the noted end is rather too early
        if (left_s := presence.lease_left_s()) > 0:
            ends.append(now + left_s)
        await asyncio.sleep(world.poll_s)
