"""Records: their bytes, their chain, their cap."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from pvc.errors import LogDamaged, TooLarge
from pvc.events.cluster import CommandRejected
from pvc.events.record import EMPTY, MAX_RECORD_BYTES, ZERO_HASH, Head, check_follows, unseal
from tests.support.core import TinyCluster, a_cluster_with_vm


def test_a_record_survives_being_stored() -> None:
    for entry in a_cluster_with_vm("running").entries:
        again = unseal(entry.data)
        assert again == entry
        assert again.hash == hashlib.sha256(entry.data).digest()


def test_records_make_a_chain_from_nothing() -> None:
    head = EMPTY
    for entry in a_cluster_with_vm("running").entries:
        check_follows(entry, head)
        head = entry.head
    assert a_cluster_with_vm().entries[0].record.prev == ZERO_HASH


def test_one_changed_byte_breaks_the_chain() -> None:
    first, second = a_cluster_with_vm().entries[:2]
    changed = unseal(first.data.replace(b"main", b"nain"))
    with pytest.raises(LogDamaged) as failure:
        check_follows(second, changed.head)
    assert failure.value.code == "log.chain_broken"


def test_a_gap_and_a_repetition_are_noticed() -> None:
    entries = a_cluster_with_vm().entries
    for head in (EMPTY, entries[1].head, Head(position=7)):
        with pytest.raises(LogDamaged) as failure:
            check_follows(entries[1], head)
        assert failure.value.code == "log.gap"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"hello", msgspec.msgpack.encode({"position": "one"})])
def test_bytes_that_are_no_record_are_damage(data: bytes) -> None:
    with pytest.raises(LogDamaged) as failure:
        unseal(data)
    assert failure.value.code == "log.undecodable"


def test_a_truncated_record_is_damage() -> None:
    data = a_cluster_with_vm().entries[0].data
    for length in range(0, len(data), 7):
        with pytest.raises(LogDamaged):
            unseal(data[:length])


def test_fields_of_a_later_version_keep_their_hash() -> None:
    entry = a_cluster_with_vm().entries[0]
    later = msgspec.msgpack.encode(msgspec.msgpack.decode(entry.data) | {"signature": b"x"})
    again = unseal(later)
    assert again.record == entry.record
    assert again.data == later and again.hash == hashlib.sha256(later).digest()


def test_a_record_over_the_cap_is_refused_before_any_log_sees_it() -> None:
    cluster = TinyCluster()
    with pytest.raises(TooLarge) as failure:
        cluster.record(CommandRejected(code="x", message="y" * MAX_RECORD_BYTES))
    assert failure.value.code == "log.record_too_large"
    assert failure.value.hint
    assert cluster.state.position == 0
