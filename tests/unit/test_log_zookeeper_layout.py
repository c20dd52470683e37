"""Paths and contents of the log's znodes, which every release must keep."""

from __future__ import annotations

import pytest

from pvc.errors import InvalidInput, LogDamaged
from pvc.events.record import EMPTY
from pvc.log.zookeeper_layout import Layout, decode_active, decode_head, encode_head
from pvc.zookeeper.types import CREATE, DELETE, READ, WRITE
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
    stored = encode_head(entry.head, 3)
    assert decode_head(stored) == entry.head
    assert stored.startswith(b'{"next":2,"hash":"')
    assert stored.endswith(b'"record":"01JD0000000000000000000000","level":3}')
    assert decode_head(encode_head(EMPTY, 1)) == EMPTY


def test_a_field_that_a_newer_version_adds_to_the_head_is_ignored() -> None:
    stored = encode_head(EMPTY, 1)
    assert decode_head(stored[:-1] + b',"sealed":true}') == EMPTY


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
    assert decode_active(foundation["/pvc/lab/log/active"].data) == (1, "an-incarnation")


def test_nothing_of_the_log_can_be_deleted_and_records_only_read() -> None:
    layout = Layout("lab")
    for create in [*layout.ancestors(), *layout.foundation("x")]:
        assert not create.permissions & DELETE
    assert layout.new_entry(1, an_entry(EMPTY)).permissions == READ
    segment = layout.foundation("x")[3]
    assert segment.permissions == READ | WRITE | CREATE


@pytest.mark.parametrize("name", ["", "Lab", "a/b", "-lab", "lab-", "l b", "x" * 64, "..", "zookeeper\n"])
def test_a_bad_cluster_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Layout(name)
    assert (refusal.value.code, refusal.value.field) == ("cluster.bad_name", "cluster")
