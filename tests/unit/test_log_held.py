"""A log that somebody holds: who else may append, and how the hold ends."""

from __future__ import annotations

import random

import pytest

from pvc.errors import Conflict, Unavailable
from pvc.events.record import EMPTY
from pvc.log.zookeeper import ZookeeperLog
from pvc.log.zookeeper_layout import RESTORE, SegmentLimits
from pvc.sim.zookeeper_ensemble import Ensemble
from tests.contract.log_records import a_chain
from tests.support.virtual import virtual

SMALL = SegmentLimits(records=3)


async def a_log(ensemble: Ensemble, name: str, holder: str = "") -> ZookeeperLog:
    return await ZookeeperLog.open("simulated", "test", holder=holder, limits=SMALL, bridge=ensemble.client(name))


def an_ensemble() -> Ensemble:
    return Ensemble(random.Random(1), ["s1", "s2", "s3"])


@virtual
async def test_the_last_record_of_a_restore_and_the_end_of_its_hold_are_one_step() -> None:
    ensemble = an_ensemble()
    restore, node = await a_log(ensemble, "restore", RESTORE), await a_log(ensemble, "node")
    entries = a_chain(EMPTY, 4)
    await restore.mending.hold()
    await restore.append(entries[:3], after=EMPTY)
    assert (await node.head(), node.held_by) == (entries[2].head, RESTORE)
    await restore.append(entries[3:], after=entries[2].head, release=True)  # into a new segment
    assert (await node.head(), node.held_by) == (entries[3].head, "")
    await node.append(a_chain(entries[3].head, 1), after=entries[3].head)


@virtual
async def test_who_has_lost_the_hold_appends_nothing_more() -> None:
    ensemble = an_ensemble()
    restore, other = await a_log(ensemble, "restore", RESTORE), await a_log(ensemble, "other", "repair by hv2")
    entries = a_chain(EMPTY, 3)
    await restore.mending.hold()
    await restore.append(entries[:1], after=EMPTY)
    await other.mending.hold(take_over=True)
    await other.mending.release()
    head = await restore.head()
    with pytest.raises(Unavailable, match="no longer held by a restore") as refusal:
        await restore.append(entries[1:2], after=head)
    assert refusal.value.code == "log.held"
    assert await other.head() == entries[0].head
    await restore.mending.hold()
    assert await restore.append(entries[1:], after=head) == entries[2].head


@virtual
async def test_whoever_is_refused_learns_what_goes_on_with_it() -> None:
    ensemble = an_ensemble()
    node = await a_log(ensemble, "node")
    for holder, way_on in ((RESTORE, "`pvc cluster restore` again"), ("repair by hv1", "`pvc log repair --take-over`")):
        held = await a_log(ensemble, holder, holder)
        await held.mending.hold(take_over=True)
        await node.head()
        with pytest.raises(Unavailable) as refused:
            await node.append(a_chain(EMPTY, 1), after=EMPTY)
        with pytest.raises(Conflict) as barred:
            await node.mending.hold()
        assert way_on in refused.value.hint and way_on in barred.value.hint
