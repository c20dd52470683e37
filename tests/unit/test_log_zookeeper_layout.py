"""Paths and contents of the log's znodes, which every release must keep."""

from __future__ import annotations

import pytest

from pvc.errors import InvalidInput, LogDamaged
from pvc.events.record import EMPTY
from pvc.log.zookeeper_layout import NOTHING, Active, Layout, SegmentLimits, decode_active, decode_head, encode_head
from pvc.zookeeper.types import DELETE, READ, Create, SetData
from tests.contract.log_records import an_entry


def test_paths_are_those_of_the_design() -> None:
    layout = Layout("lab")
    assert layout.active == "/pvc/lab/log/active"
    assert layout.segment(1) == "/pvc/lab/log/s/00000000000000000001"
    assert layout.entry(1, 1) == "/pvc/lab/log/s/00000000000000000001/e-0000000000"
    assert layout.entry(4097, 4100) == "/pvc/lab/log/s/00000000000000004097/e-0000000003"


def test_a_position_before_its_segment_is_a_fault() -> None:
    with pytest.raises(AssertionError):
        Layout("lab").entry(4097, 4096)


def test_a_head_comes_back_as_it_was_and_can_be_read_by_a_person() -> None:
    entry = an_entry(EMPTY, id="01JD0000000000000000000000")
    stored = NOTHING.after([entry])
    assert stored.head == entry.head
    encoded = encode_head(stored)
    assert decode_head(encoded) == stored
    assert encoded.startswith(b'{"next":2,"hash":"')
    assert f'"record":"01JD0000000000000000000000","size_bytes":{len(entry.data)},'.encode() in encoded
    assert decode_head(encode_head(NOTHING)).head == EMPTY


def test_a_field_that_a_newer_version_adds_to_the_head_is_ignored() -> None:
    stored = encode_head(NOTHING)
    assert decode_head(stored[:-1] + b',"colour":"blue"}') == NOTHING


@pytest.mark.parametrize("stored", [b"", b"{}", b"null", b'{"next":"one","hash":"","record":"","level":1}'])
def test_contents_that_make_no_sense_are_damage(stored: bytes) -> None:
    with pytest.raises(LogDamaged) as damage:
        decode_head(stored)
    assert damage.value.code == "log.undecodable"
    with pytest.raises(LogDamaged):
        decode_active(stored)


def test_a_new_log_names_its_first_segment_and_incarnation() -> None:
    foundation = {create.path: create for create in Layout("lab").foundation("an-incarnation")}
    assert list(foundation) == [
        "/pvc/lab/log",
        "/pvc/lab/log/s",
        "/pvc/lab/log/m",
        "/pvc/lab/log/s/00000000000000000001",
        "/pvc/lab/log/active",
    ]
    assert decode_active(foundation["/pvc/lab/log/active"].data) == Active(
        segment=f"{1:020d}", incarnation="an-incarnation"
    )


def test_records_are_only_read_and_nothing_else_than_they_can_be_deleted() -> None:
    layout = Layout("lab")
    for create in [*layout.ancestors(), *layout.foundation("x")]:
        deletable = create.path in (layout.segments, layout.manifests, layout.segment(1))
        assert bool(create.permissions & DELETE) == deletable and not create.others
    assert layout.new_entry(1, an_entry(EMPTY)).permissions == READ


def test_where_there_is_an_archivist_it_alone_can_delete_and_it_cannot_create() -> None:
    layout = Layout("lab")
    for create in [*layout.ancestors(), *layout.foundation("x", "archivist:hash")]:
        deletable = create.path in (layout.segments, layout.manifests, layout.segment(1))
        assert not create.permissions & DELETE
        assert create.others == ((("archivist:hash", READ | DELETE),) if deletable else ())


def test_a_roll_seals_the_old_segment_begins_the_new_and_names_it_in_one_step() -> None:
    layout, entry = Layout("lab"), an_entry(EMPTY)
    stored = NOTHING.after([entry])
    seal, create, active = layout.roll(1, stored, 7, Active(segment="1", incarnation="x"), 3)
    assert isinstance(seal, SetData) and (seal.path, seal.version) == (layout.segment(1), 7)
    assert decode_head(seal.data).sealed and decode_head(seal.data).next == 2
    assert isinstance(create, Create) and create.path == layout.segment(2)
    begun = decode_head(create.data)
    assert (begun.head, begun.size_bytes, begun.began_us, begun.sealed) == (entry.head, 0, 0, False)
    assert isinstance(active, SetData) and (active.path, active.version) == (layout.active, 3)
    assert decode_active(active.data) == Active(segment=f"{2:020d}", incarnation="x")


def test_a_segment_is_full_by_records_bytes_or_age_and_never_while_it_is_empty() -> None:
    first = an_entry(EMPTY, size=1_000)
    stored = NOTHING.after([first])
    more = [an_entry(first.head, size=1_000)]
    assert not SegmentLimits().is_full(1, stored, more)
    assert SegmentLimits(records=1).is_full(1, stored, more)
    assert SegmentLimits(size_bytes=2_000).is_full(1, stored, more)
    assert SegmentLimits(age_s=0.0).is_full(1, stored, more)
    assert not SegmentLimits(records=1, size_bytes=1, age_s=0.0).is_full(1, NOTHING, [first])


@pytest.mark.parametrize("name", ["", "Lab", "a/b", "-lab", "lab-", "l b", "x" * 64, "..", "zookeeper\n"])
def test_a_bad_cluster_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Layout(name)
    assert (refusal.value.code, refusal.value.field) == ("cluster.bad_name", "cluster")
