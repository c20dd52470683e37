"""The fold: what was written once is read for ever, and always to the same state."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.errors import LogDamaged
from pvc.events.record import check_follows
from pvc.events.registry import EVENTS, decode_event, encode_event
from pvc.events.vm import VmStarted
from pvc.events.vm_moves import VmArrived, VmRecovered
from pvc.projections.fold import fold
from pvc.projections.snapshot import PROJECTION_VERSION, restore, snapshot
from pvc.projections.state import ClusterState
from tests.support import golden
from tests.support.core import TinyCluster, a_cluster_with_vm, replayed
from tests.support.samples import SAMPLES
from tests.support.story_of_a_cluster import live

CORPORA = golden.corpora()


def test_there_is_a_corpus_to_replay() -> None:
    assert golden.living() in CORPORA
    assert {path.parent for path in CORPORA} >= {path for path in golden.RELEASED.glob("[0-9]*") if path.is_dir()}


@pytest.mark.parametrize("path", CORPORA, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_log_of_every_released_version_folds_to_what_it_folded_to_then(path: Path) -> None:
    corpus = golden.read(path)
    state = ClusterState()
    seen: dict[int, str] = {}
    for entry in corpus.entries:
        check_follows(entry, state.head)
        fold(state, entry)
        if state.position in corpus.hashes:
            seen[state.position] = state.state_hash()
    assert state.position == len(corpus.records) == max(corpus.hashes)
    if corpus.projection_version == PROJECTION_VERSION:
        assert seen == corpus.hashes


def test_every_event_is_in_a_corpus() -> None:
    held = {raw.type for path in CORPORA[-1:] for entry in golden.read(path).entries for raw in entry.record.events}
    assert {event.TYPE for event in EVENTS} - held == set(), "write the next: python -m tests.support.golden records-vN"


def test_the_story_of_a_cluster_has_every_event_in_it() -> None:
    cluster = TinyCluster()
    for _ in live(cluster):
        pass
    told = {raw.type for entry in cluster.entries for raw in entry.record.events}
    assert {event.TYPE for event in EVENTS} - told == set()


def test_stored_events_are_encoded_as_they_are_today() -> None:
    for entry in golden.read(CORPORA[-1]).entries:
        for raw in entry.record.events:
            assert encode_event(decode_event(raw)).data == raw.data


@pytest.mark.parametrize("cut", [1, 7, 20, 40])
def test_from_a_snapshot_the_fold_comes_to_the_same_end(cut: int) -> None:
    entries = golden.read(CORPORA[0]).entries
    whole = replayed(entries)
    resumed = replayed(entries[cut:], restore(snapshot(replayed(entries[:cut]))))
    assert resumed.state_hash() == whole.state_hash()
    assert resumed.recent == whole.recent
    assert resumed.vm_names == whole.vm_names
    assert all(resumed.load_of(node) == whole.load_of(node) for node in whole.nodes)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_an_event_that_makes_no_sense_changes_nothing_and_stops_nothing(event: type) -> None:
    cluster = TinyCluster()
    for sample in SAMPLES[event]:
        cluster.record(sample)
        cluster.record(sample)
    assert cluster.state.position == 2 * len(SAMPLES[event])
    if event.TYPE.startswith("vm.") and event.TYPE != "vm.defined":  # type: ignore[attr-defined]
        assert not cluster.state.vms


def test_a_record_out_of_order_leaves_the_state_as_it_was() -> None:
    cluster = a_cluster_with_vm("running")
    state = replayed(cluster.entries[:2])
    before = (state.head, state.state_hash(), dict(state.recent))
    for wrong in (cluster.entries[0], cluster.entries[3]):
        with pytest.raises(LogDamaged, match="was read where 3 should be"):
            fold(state, wrong)
    assert (state.head, state.state_hash(), dict(state.recent)) == before


def test_a_record_of_another_history_is_noticed() -> None:
    one, other = a_cluster_with_vm(), a_cluster_with_vm(memory_mib=2048)
    other.do("vm.start", vm="web01")
    with pytest.raises(LogDamaged) as failure:
        fold(replayed(one.entries), other.entries[3])
    assert failure.value.code == "log.chain_broken"
    assert failure.value.hint


def test_a_name_taken_meanwhile_is_not_given_twice_by_the_fold() -> None:
    cluster = a_cluster_with_vm()
    (defined,) = SAMPLES[next(event for event in EVENTS if event.TYPE == "vm.defined")][:1]
    first = cluster.vm()
    cluster.record(defined)
    assert cluster.state.vms == {first.id: first}


def test_a_fact_that_is_no_longer_or_not_yet_true_changes_nothing() -> None:
    cluster = a_cluster_with_vm()
    before = cluster.vm()
    cluster.record(VmStarted(vm=before.id, node="hv1", epoch=0))
    cluster.record(VmArrived(vm=before.id, node="hv1", epoch=0))
    cluster.record(VmRecovered(vm=before.id, source="hv1", target="hv2", epoch=1))
    assert cluster.vm() == before
