"""For how long ZooKeeper did not answer, and who tells of it."""

from __future__ import annotations

from pvc.node.outage import KEPT_S, Outage

SESSION_S = 10.0


def an_outage(lasted_s: float = 30.0, *, epoch: int = 3) -> Outage:
    """Last answered at 100, again after so long; in epoch 3."""
    outage = Outage(SESSION_S)
    outage.note(SESSION_S, 100.0, epoch)
    outage.note(0.0, 100.0 + lasted_s / 2, epoch)
    outage.note(SESSION_S, 100.0 + lasted_s, epoch)
    return outage


def test_an_outage_lasts_from_the_last_answer_to_the_next_and_is_told_of_once() -> None:
    outage = an_outage(30.0)
    assert outage.take(131.0, 3) == 30.0
    assert outage.take(131.0, 3) == 0.0


def test_who_had_no_lease_yet_has_lost_none() -> None:
    outage = Outage(SESSION_S)
    outage.note(0.0, 1.0, 0)
    outage.note(SESSION_S, 60.0, 0)
    assert outage.take(61.0, 0) == 0.0


def test_a_silence_that_the_lease_outlasts_is_none() -> None:
    outage = Outage(SESSION_S)
    outage.note(SESSION_S, 100.0, 1)
    outage.note(2.0, 108.0, 1)
    outage.note(SESSION_S, 109.0, 1)
    assert outage.take(110.0, 1) == 0.0


def test_what_another_primary_has_told_of_or_what_is_long_over_is_not_told_of_again() -> None:
    assert an_outage(epoch=3).take(131.0, 4) == 0.0
    assert an_outage(epoch=3).take(130.0 + KEPT_S + 1, 3) == 0.0
