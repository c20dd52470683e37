"""The lease never promises more than the leader of a simulated ensemble grants, whose followers tell it late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from pvc.presence.lease import DRIFT_PART, RELAY_PART, RENEWAL_PART, Lease
from pvc.sim.loop import VirtualClock, run_virtual

T = 10.0
LIFE = T * (1 - DRIFT_PART)


class GivenClock:
    """A clock that says what it is told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall_us(self) -> int:
        return 0


@pytest.fixture
def clock() -> GivenClock:
    return GivenClock()


@pytest.fixture
def lease(clock: GivenClock) -> Lease:
    """Connected at 100, with a write that was sent at 101 and answered at 102."""
    lease = Lease(clock)
    lease.connected(100.0, T, same_session=False)
    assert lease.left_s() == 0.0
    clock.now = 102.0
    lease.answered(101.0)
    return lease


def answer(lease: Lease, clock: GivenClock, sent: float, answered: float) -> float:
    """Until when the lease lasts after that."""
    clock.now = answered
    lease.answered(sent)
    return answered + lease.left_s()


def test_the_first_write_proves_the_handshake(lease: Lease, clock: GivenClock) -> None:
    assert clock.now + lease.left_s() == pytest.approx(100 + LIFE)


def test_a_lease_runs_down_to_nothing_and_not_below(lease: Lease, clock: GivenClock) -> None:
    clock.now = 100 + LIFE
    assert lease.left_s() == pytest.approx(0.0)
    clock.now = 200
    assert lease.left_s() == 0.0


def test_a_write_counts_once_two_later_ones_prove_it(lease: Lease, clock: GivenClock) -> None:
    assert answer(lease, clock, 103.0, 103.1) == pytest.approx(100 + LIFE)
    # Sent a quarter of the time-out after the answer at 102: C of the proof; the next one is D.
    assert answer(lease, clock, 102 + RELAY_PART * T, 104.6) == pytest.approx(100 + LIFE)
    assert answer(lease, clock, 104.7, 104.8) == pytest.approx(101 + LIFE)


def test_an_answer_to_a_write_of_an_earlier_connection_proves_nothing(lease: Lease, clock: GivenClock) -> None:
    lease.connected(105.0, T, same_session=True)
    assert answer(lease, clock, 104.9, 105.5) == pytest.approx(100 + LIFE)
    assert answer(lease, clock, 105.2, 105.6) == pytest.approx(105 + LIFE)


def test_a_new_session_begins_without_a_lease(lease: Lease, clock: GivenClock) -> None:
    lease.connected(105.0, T, same_session=False)
    assert lease.left_s() == 0.0
    assert answer(lease, clock, 105.2, 105.6) == pytest.approx(105 + LIFE)
    lease.lost()
    assert lease.left_s() == 0.0


def test_an_answer_that_was_read_only_after_a_long_sleep_gives_no_lease(lease: Lease, clock: GivenClock) -> None:
    assert answer(lease, clock, 103.0, 1000.0) == 1000.0


# -- A leader, a follower and a client, with delays on all ways ------------------------------------------------------


class Way:
    """Messages arrive late, but in order."""

    def __init__(self, rng: random.Random, longest_s: float) -> None:
        self._rng = rng
        self._longest_s = longest_s
        self._last = 0.0

    def send(self, arrive: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        delay_s = self._rng.choice([0.001, 0.01, self._longest_s]) * self._rng.random()
        self._last = max(self._last + 1e-6, loop.time() + delay_s)
        loop.call_at(self._last, arrive)


class Ensemble:
    """A leader that hears of the client's session through one follower, as ZooKeeper's do."""

    def __init__(self, rng: random.Random, half_tick_s: float) -> None:
        self.to_leader, self.to_follower = Way(rng, 2.0), Way(rng, 2.0)
        self.from_client, self.to_client = Way(rng, 1.0), Way(rng, 1.0)
        self.half_tick_s = half_tick_s
        self.heard = 0.0
        """When the leader last heard of the session; it expires T later."""
        self._touched = False

    async def lead(self) -> None:
        while True:
            self.to_follower.send(self._answer_ping)
            await asyncio.sleep(self.half_tick_s)

    def _answer_ping(self) -> None:
        if self._touched:
            self._touched = False
            self.to_leader.send(self._hear)

    def _hear(self) -> None:
        self.heard = asyncio.get_running_loop().time()

    async def handshake(self) -> None:
        await self._through(self._hear)

    async def write(self) -> None:
        await self._through(lambda: None)

    async def _through(self, at_leader: Callable[[], None]) -> None:
        done = asyncio.Event()

        def at_follower() -> None:
            self._touched = True
            self.to_leader.send(leader)

        def leader() -> None:
            at_leader()
            self.to_follower.send(lambda: self.to_client.send(done.set))

        self.from_client.send(at_follower)
        await done.wait()


async def _excess(seed: int, renewals: int) -> tuple[float, float, float]:
    """By how much the lease, and one that takes each answer for a proof, outlast the session; and the least left."""
    rng, clock = random.Random(seed), VirtualClock()
    ensemble = Ensemble(rng, half_tick_s=RELAY_PART * T * rng.choice([0.2, 0.5, 0.999]))
    leading = asyncio.create_task(ensemble.lead())
    lease = Lease(clock)
    began = clock.monotonic()
    await ensemble.handshake()
    lease.connected(began, T, same_session=False)
    excess = plain_excess = -T
    least = T
    for _ in range(renewals):
        sent = clock.monotonic()
        await ensemble.write()
        lease.answered(sent)
        expiry = ensemble.heard + T  # if nothing reached the leader any more from now on
        excess = max(excess, clock.monotonic() + lease.left_s() - expiry) if lease.left_s() else excess
        plain_excess = max(plain_excess, sent + LIFE - expiry)
        await asyncio.sleep(T * RENEWAL_PART)
        least = min(least, lease.left_s())
    leading.cancel()
    return excess, plain_excess, least


@pytest.mark.parametrize("seed", range(30))
def test_the_lease_ends_before_the_leader_could_expire_the_session(seed: int) -> None:
    excess, _, _ = run_virtual(_excess(seed, 300))
    assert excess < 0


def test_the_time_of_each_answered_request_would_promise_too_much() -> None:
    assert max(run_virtual(_excess(seed, 300))[1] for seed in range(30)) > 0
