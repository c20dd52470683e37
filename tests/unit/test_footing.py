"""Nobody acts by a log that is being filled again: what it says of a guest that runs is of the past."""

from __future__ import annotations

import asyncio
import random

import pytest

from pvc.drivers.hypervisor import DomainState
from pvc.errors import LogDamaged, Unavailable
from pvc.events.record import EMPTY
from pvc.events.vm import VmSpec
from pvc.log.memory import MemoryLog
from pvc.log.zookeeper import ZookeeperLog
from pvc.node.footing import Footing
from pvc.runtime.world import World, catch_up
from pvc.sim.loop import run_virtual
from pvc.sim.zookeeper_ensemble import Ensemble
from tests.contract.log_records import a_chain
from tests.support.virtual import virtual
from tests.unit.test_node import House, a_house

SPEC = VmSpec(memory_mib=64, vcpus=1)


class FilledLog(MemoryLog):
    """Somebody fills it again."""

    held_by = ""
    filled_to = 0


async def a_guest(house: House) -> None:
    """One that the log does not know: not any more, or not yet."""
    await house.machine.define("guest", "guest", SPEC, epoch=1)
    await house.machine.start("guest", may_run=lambda: True)


async def runs(house: House) -> bool:
    domain = await house.machine.get_domain("guest")
    return domain is not None and domain.state is DomainState.RUNNING


@pytest.mark.parametrize("how", ["held", "not folded to where it was filled"])
def test_a_guest_that_a_half_filled_log_does_not_know_runs_on_until_the_log_is_whole(how: str) -> None:
    async def live() -> None:
        log = FilledLog()
        if how == "held":
            log.held_by = "a restore"
        else:
            log.filled_to = 1_000
        async with a_house(log=log) as house:
            await a_guest(house)
            await house.initialise()
            house.node.queue.wake("guest")
            await asyncio.sleep(120)
            assert house.world.state.cluster is not None and await runs(house)
            assert not house.node.standing.announced
            log.held_by, log.filled_to = "", house.world.position
            await asyncio.sleep(120)
            assert house.node.standing.announced
            assert not await runs(house), "the whole log does not know it either"

    run_virtual(live())


async def a_log(ensemble: Ensemble, name: str, holder: str = "") -> ZookeeperLog:
    return await ZookeeperLog.open("simulated", "test", holder=holder, bridge=ensemble.client(name))


@virtual
async def test_a_node_may_act_again_when_it_has_folded_all_that_came_while_the_log_was_held() -> None:
    ensemble = Ensemble(random.Random(1), ["s1", "s2", "s3"])
    restore, node = await a_log(ensemble, "restore", "a restore"), await a_log(ensemble, "node")
    world = World()
    footing = Footing(world, node)
    entries = a_chain(EMPTY, 9)
    await restore.mending.hold()
    await restore.append(entries[:4], after=EMPTY)
    await node.head()
    world.state.head = entries[3].head
    with pytest.raises(Unavailable, match="is held by a restore"):
        footing.state()
    await restore.append(entries[4:], after=entries[3].head)
    await restore.mending.release()
    await node.head()
    assert node.held_by == ""
    with pytest.raises(Unavailable, match="was filled again up to record 9"):
        footing.state()
    world.state.head = entries[8].head
    assert footing.state() is world.state
    await node.append(a_chain(entries[8].head, 1), after=entries[8].head)
    assert footing.firm, "what comes now is news, to be acted by at once"


@virtual
async def test_a_node_that_saw_nothing_of_the_whole_restore_does_not_act_by_the_first_records_either() -> None:
    ensemble = Ensemble(random.Random(1), ["s1", "s2", "s3"])
    restore, node = await a_log(ensemble, "restore", "a restore"), await a_log(ensemble, "node")
    world = World()
    footing = Footing(world, node)
    assert footing.firm
    await restore.mending.hold()
    entries = a_chain(EMPTY, 9)
    await restore.append(entries, after=EMPTY)
    await restore.mending.release()
    await node.head()
    world.state.head = entries[3].head
    with pytest.raises(Unavailable, match="was filled again up to record 9"):
        footing.state()


@virtual
async def test_where_the_fold_has_stopped_that_is_what_is_told() -> None:
    world = World()
    footing = Footing(world, MemoryLog())
    await catch_up(world, MemoryLog())
    assert footing.state() is world.state
    world.fault = LogDamaged("it was set back")
    with pytest.raises(LogDamaged, match="set back"):
        footing.state()
    assert not footing.firm
