"""Many who ask at once, or stay: nobody is made to wait behind a flood, and nobody alone takes all the places."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.daemon.crowd import Crowd, Guest, group_of
from pvc.errors import Unavailable
from pvc.gateway import event_hub
from pvc.gateway.budget import Budget
from pvc.gateway.places import ConsolePlaces
from pvc.gateway.turns import Turns
from tests.unit.gateway_house import House, a_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        await made.define()
        yield made


async def test_a_flood_goes_a_few_at_a_turn_and_what_is_due_meanwhile_is_done() -> None:
    turns, began, loop_turns = Turns(at_once=4), 0, 0

    async def ask() -> None:
        nonlocal began
        await turns.take("flood")
        began += 1

    async def lease() -> None:
        nonlocal loop_turns
        while began < 1_000:
            await asyncio.sleep(0)
            loop_turns += 1

    await asyncio.gather(*(ask() for _ in range(1_000)), lease())
    assert loop_turns >= 1_000 / 4


async def test_who_asks_for_little_does_not_wait_behind_who_asks_for_much() -> None:
    turns, order = Turns(at_once=4), list[str]()

    async def ask(whose: str) -> None:
        await turns.take(whose)
        order.append(whose)

    await asyncio.gather(*(ask("flood") for _ in range(500)), ask("anna"), ask("bert"))
    assert max(order.index("anna"), order.index("bert")) <= 8 and len(order) == 502


async def test_who_has_gone_takes_no_turn_from_the_others() -> None:
    turns = Turns(at_once=1)
    gone = [asyncio.create_task(turns.take("flood")) for _ in range(100)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    async with asyncio.timeout(5):
        await turns.take("anna")
    await asyncio.gather(*gone, return_exceptions=True)


def test_places_are_given_up_to_what_each_and_all_may_have() -> None:
    places = ConsolePlaces(most=3, each=2)
    with places.taken("anna"), places.taken("anna"):
        with pytest.raises(Unavailable, match="you have 2 consoles"):
            places.require("anna")
        with places.taken("bert"), pytest.raises(Unavailable, match="this gateway has 3 consoles"):
            places.require("carl")
        places.require("carl")
    places.require("anna")


async def test_one_principal_cannot_take_all_the_streams(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_hub, "MAX_STREAMS_EACH", 3)
    anna = house.outside_with(await house.member("anna", {"role": "viewer"}))
    bert = house.outside_with(await house.member("bert", {"role": "viewer"}))
    await house.settle()
    after = {"after": house.services.world.position + 5, "wait_s": 2}
    waiting = [asyncio.create_task(anna.get("/events", params=after)) for _ in range(3)]
    await asyncio.sleep(0.1)
    refused = await anna.get("/events", params=after)
    assert (refused.status_code, refused.json()["code"]) == (503, "event.too_many_streams")
    assert (await bert.get("/events", params={**after, "wait_s": 0})).status_code == 200
    assert [reply.status_code for reply in await asyncio.gather(*waiting)] == [200] * 3
    assert (await anna.get("/events", params={**after, "wait_s": 0})).status_code == 200


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff:1", 2, 0, 0), True),
        (("2001:db8::1", 1, 0, 0), ("2001:db8:0:1::1", 1, 0, 0), False),
        (("::ffff:192.0.2.1", 1, 0, 0), ("192.0.2.1", 9), True),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2%eth0", 1, 0, 2), True),
        ((), (), True),
    ],
)
def test_who_counts_as_one(one: tuple[object, ...], other: tuple[object, ...], same: bool) -> None:
    assert (group_of(one) == group_of(other)) is same


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "tell", "leave"]),
            st.integers(0, 3),
            st.integers(0, 6),
            st.sampled_from(["anna", "bert", None]),
        ),
        max_size=80,
    )
)
def test_a_crowd_never_holds_more_than_it_may_and_no_stranger_sends_away_who_is_known(
    moves: list[tuple[str, int, int, str | None]],
) -> None:
    crowd, here = Crowd(most=8, strangers=5, strangers_each=3), dict[tuple[str, int], _Named]()
    for move, host, port, whose in moves:
        address = (f"192.0.2.{host}", port)
        guest = here.get(address)
        before = {one: one.whose for one in here.values()}
        if move == "come" and guest is None:
            guest = here[address] = _Named()
            assert crowd.enter(guest, address)
        elif move == "tell" and guest is not None:
            crowd.tell(address, whose, guest.abort)
            assert guest.whose == whose or guest.gone
        elif move == "leave" and guest is not None:
            crowd.leave(guest)
            del here[address]
        for one in [address for address, guest in here.items() if guest.gone]:
            gone = here.pop(one)
            crowd.leave(gone)
            if before.get(gone) is not None and gone is not guest:
                now = Counter(one.whose for one in here.values() if one.whose is not None)
                assert move == "tell" and whose is not None and crowd.known == 7
                assert now[str(before[gone])] + 1 >= max(now.values()), "of who has most"
        assert len(crowd) == len(here) <= 8 and crowd.strangers <= 5 and crowd.known <= 7
        assert crowd.known == sum(guest.whose is not None for guest in here.values())
        assert crowd.strangers == len(here) - crowd.known
        hosts = [address[0] for address, guest in here.items() if guest.whose is None]
        assert all(hosts.count(name) <= 3 for name in hosts)


def test_of_who_is_known_the_one_with_most_makes_room_however_many_tokens_were_shown() -> None:
    crowd = Crowd(most=16, strangers=16, strangers_each=16)
    many = [_Named() for _ in range(40)]
    for port, guest in enumerate(many):
        assert crowd.enter(guest, ("192.0.2.1", port))
        crowd.tell(("192.0.2.1", port), "many", guest.abort)
        for one in many[: port + 1]:
            if one.gone and one.aborted:
                crowd.leave(one)
    admin = _Named()
    assert crowd.enter(admin, ("192.0.2.9", 1))
    crowd.tell(("192.0.2.9", 1), "admin", admin.abort)
    assert not admin.gone and sum(not one.gone for one in many) == 13 and not many[-1].gone
    assert all(one.aborted == one.gone for one in many), "who reads nothing hears nothing of a shutdown"


def test_who_shows_no_token_any_more_is_a_stranger_again_and_who_is_sent_away_stays_nobody() -> None:
    crowd, first, second = Crowd(most=16, strangers=1, strangers_each=1), _Named(), _Named()
    assert crowd.enter(first, ("192.0.2.1", 1))
    crowd.tell(("192.0.2.1", 1), "anna", first.abort)
    assert (crowd.known, crowd.strangers) == (1, 0)
    crowd.tell(("192.0.2.1", 1), None, first.abort)
    assert (crowd.known, crowd.strangers) == (0, 1)
    assert crowd.enter(second, ("192.0.2.2", 1)) and first.gone
    crowd.tell(("192.0.2.1", 1), "anna", first.abort)
    assert (crowd.known, crowd.strangers, len(crowd)) == (0, 1, 2)


def test_who_comes_too_often_is_turned_away_and_others_are_not() -> None:
    clock = _Clock()
    crowd = Crowd(coming=Budget(clock, burst=10, every_s=0.1))
    let_in = [crowd.enter(_Named(), ("192.0.2.1", port)) for port in range(30)]
    assert let_in == [True] * 10 + [False] * 20
    assert crowd.enter(_Named(), ("192.0.2.2", 1))
    clock.now_s += 0.25
    assert [crowd.enter(_Named(), ("192.0.2.1", port)) for port in range(100, 104)] == [True, True, False, False]


def test_it_is_told_when_many_have_gone() -> None:
    crowd, told = Crowd(most=1_000, strangers=1_000, strangers_each=1_000), list[int]()
    crowd.thinned = lambda: told.append(len(crowd))
    guests = [_Named() for _ in range(400)]
    for port, guest in enumerate(guests):
        assert crowd.enter(guest, ("192.0.2.1", port))
    for guest in guests:
        crowd.leave(guest)
    assert told == [200, 0]


class _Clock:
    """Stands still."""

    now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall_us(self) -> int:
        return int(self.now_s * 1_000_000)


class _Named(Guest):
    """A connection that is none."""

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.gone = self.aborted = False

    def shutdown(self, how: int) -> None:
        self.gone = True

    def abort(self) -> None:
        self.aborted = True
