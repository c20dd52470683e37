"""When many nodes write at once, and when that is over."""

from __future__ import annotations

from pvc.runtime.writers import CALM, CROWD, WINDOW_S, Writers


def noted(count: int, now_s: float, writers: Writers | None = None) -> Writers:
    """So many nodes write at this moment."""
    writers = writers or Writers()
    for number in range(count):
        writers.note(f"hv{number}", now_s)
    return writers


def test_three_coordinators_are_no_crowd_and_seven_nodes_are() -> None:
    assert not noted(3, 100.0).crowded(100.0)
    assert noted(7, 100.0).crowded(100.0)


def test_a_crowd_begins_with_one_more_than_may_write_by_themselves() -> None:
    assert not noted(CROWD - 1, 100.0).crowded(100.0)
    assert noted(CROWD, 100.0).crowded(100.0)


def test_a_node_counts_once_however_much_it_writes() -> None:
    writers = Writers()
    for second in range(50):
        writers.note("hv1", float(second))
    assert writers.count(50.0) == 1


def test_who_has_not_written_for_the_window_does_not_count() -> None:
    writers = noted(3, 100.0)
    writers.note("hv1", 105.0)
    assert writers.count(100.0 + WINDOW_S) == 3
    assert writers.count(100.1 + WINDOW_S) == 1
    assert writers.count(105.1 + WINDOW_S) == 0


def test_a_crowd_lasts_until_it_has_become_clearly_smaller() -> None:
    writers = noted(CROWD, 100.0)
    assert writers.crowded(100.0)
    noted(CALM + 1, 109.0, writers)
    assert writers.count(111.0) == CALM + 1
    assert writers.crowded(111.0), "at the border what was true stays true"
    noted(CALM, 118.0, writers)
    assert not writers.crowded(120.0)
    noted(CALM + 1, 121.0, writers)
    assert not writers.crowded(121.0), "and what was not stays so too"


def test_a_crowd_can_be_of_any_size() -> None:
    assert Writers(crowd=0).crowded(1.0)
    assert noted(3, 1.0, Writers(crowd=3)).crowded(1.0)
    assert not noted(2, 1.0, Writers(crowd=3)).crowded(1.0)
