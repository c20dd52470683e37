"""The log over a simulated ZooKeeper, driven by hypothesis: a failure is shrunk to the few deeds that lead to it."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pvc.log.zookeeper import ZookeeperLog
from pvc.sim.cluster_process import ClusterLoop, bury
from pvc.sim.log_world import LogWorld
from pvc.sim.mutants_log import LOG_MUTANTS
from pvc.sim.mutation import mutated

T = TypeVar("T")
CLIENTS = st.integers(0, 2)
SERVERS = st.integers(0, 2)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class LogMachine(RuleBasedStateMachine):
    """Each rule begins something; time passes with `wait`, and a little with each rule."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = ClusterLoop()
        self.lost = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @initialize(seed=st.integers(0, 9), servers=st.sampled_from([3, 1]))
    def begin(self, seed: int, servers: int) -> None:
        async def begin() -> LogWorld:
            return LogWorld(random.Random(seed), servers=servers, clients=3)

        self.world = self.run(begin())
        self.wait(1.0)

    def does(self, deed: str, *arguments: Any) -> None:
        async def do() -> None:
            getattr(self.world, deed)(*arguments)
            await self.world.advance(0.003)

        self.run(do())

    @rule(seconds=st.sampled_from([0.002, 0.05, 1.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.run(self.world.advance(seconds))

    @rule(client=CLIENTS, entries=st.integers(1, 3))
    def append(self, client: int, entries: int) -> None:
        self.does("append", client, entries)

    @rule(client=CLIENTS)
    def break_off(self, client: int) -> None:
        self.does("break_off", client)

    @rule(client=CLIENTS, what=st.sampled_from(["requests", "replies", "both"]))
    def swallow(self, client: int, what: str) -> None:
        self.does("swallow", client, what)

    @rule(client=CLIENTS)
    def restore(self, client: int) -> None:
        self.does("restore", client)

    @rule(client=CLIENTS, server=SERVERS)
    def cut_client(self, client: int, server: int) -> None:
        self.does("cut_client", client, server)

    @rule(client=CLIENTS, deed=st.sampled_from(["freeze_client", "thaw_client", "kill_client", "start_client"]))
    def client(self, client: int, deed: str) -> None:
        self.does(deed, client)

    @rule(server=SERVERS, deed=st.sampled_from(["stop_server", "freeze_server", "cut_server_off"]))
    def server(self, server: int, deed: str) -> None:
        self.does(deed, server)

    @rule(server=SERVERS, seconds=st.floats(0, 6))
    def lag(self, server: int, seconds: float) -> None:
        self.does("lag", server, seconds)

    @rule(deed=st.sampled_from(["stop_leader", "mend_servers"]))
    def servers(self, deed: str) -> None:
        self.does(deed)

    @precondition(lambda self: not self.lost)
    @rule(count=st.integers(1, 4))
    def lose_tail(self, count: int) -> None:
        self.lost = True
        self.does("lose_tail", count)

    @invariant()
    def nothing_is_broken(self) -> None:
        world = getattr(self, "world", None)
        assert world is None or not world.broken, world.broken

    def teardown(self) -> None:
        try:
            if hasattr(self, "world") and not self.world.broken:
                self.does("heal")
                self.run(self.world.check_settled())
        finally:
            self.run(bury(self.loop))
            self.loop.close()


QUICK = settings(max_examples=50, stateful_step_count=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
"""To shrink a failure takes minutes: `HYPOTHESIS_PROFILE=deep` does it, and looks much longer."""

LogMachine.TestCase.settings = settings.get_profile("deep") if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else QUICK
TestLogMachine = LogMachine.TestCase


@pytest.mark.many_seeds
def test_hypothesis_finds_a_known_bug() -> None:
    [mutant] = [mutant for mutant in LOG_MUTANTS if mutant.changes[0][:2] == (ZookeeperLog, "_took_place")][:1]
    quick = settings(max_examples=50, stateful_step_count=8, database=None, phases=[Phase.generate])
    with mutated(mutant), pytest.raises(AssertionError):
        run_state_machine_as_test(LogMachine, settings=quick)
