"""Manifests say what a copy must be; shelves find one, and set bad ones aside."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pvc.archive.memory import MemoryArchive
from pvc.errors import LogDamaged, NotFound, PvcError, Unavailable
from pvc.events.record import EMPTY, ZERO_HASH
from pvc.log.manifest import (
    Manifest,
    check_records,
    decode_blob,
    decode_manifest,
    describe,
    encode_blob,
    encode_manifest,
)
from pvc.log.segments import Chained, check_chain
from pvc.runtime.shelves import AllCopies, Shelf
from tests.contract.log_records import a_chain, bytes_of

ENTRIES = a_chain(EMPTY, 12, size=40)


def a_manifest(first: int = 1, last: int = 6, *, previous: bytes = b"", by: str = "hv1") -> Manifest:
    records = bytes_of(ENTRIES[first - 1 : last])
    return describe(first, records, incarnation="x", root=bytes(32), previous=previous, sealed_by=by)


def records_of(manifest: Manifest) -> list[bytes]:
    return bytes_of(ENTRIES[manifest.first - 1 : manifest.last])


def test_a_manifest_names_both_ends_of_its_segment_and_comes_back_as_it_was() -> None:
    manifest = a_manifest(4, 9)
    assert (manifest.before, manifest.hash, manifest.record) == (
        ENTRIES[2].hash,
        ENTRIES[8].hash,
        ENTRIES[8].record.id,
    )
    assert manifest.head == ENTRIES[8].head
    assert a_manifest().before == ZERO_HASH
    assert decode_manifest(encode_manifest(manifest)) == manifest
    with pytest.raises(LogDamaged):
        decode_manifest(b'{"first": 1}')


def test_two_nodes_agree_about_the_same_records_whoever_signed() -> None:
    assert a_manifest().agrees_with(replace(a_manifest(by="hv2"), note="signed", previous=b"other"))
    assert not a_manifest().agrees_with(replace(a_manifest(), root=b"x" * 32))
    assert not a_manifest().agrees_with(a_manifest(1, 5))


def test_only_the_very_records_pass_for_a_copy() -> None:
    manifest = a_manifest()
    records = records_of(manifest)
    assert decode_blob(encode_blob(1, records), manifest) == records
    changed = [*records[:2], records[2][:-1] + bytes([records[2][-1] ^ 1]), *records[3:]]
    # The lengths are part of the digest: bytes cannot be moved from one record to the next.
    moved = [records[0] + records[1][:3], records[1][3:], *records[2:]]
    for wrong in (records[:-1], records[::-1], changed, moved):
        with pytest.raises(LogDamaged):
            check_records(wrong, manifest)
    with pytest.raises(LogDamaged) as damage:
        decode_blob(encode_blob(1, records)[:-30], manifest)
    assert damage.value.code == "log.copy_damaged"


def test_manifests_follow_one_another_without_a_hole() -> None:
    first = Chained(manifest=a_manifest(1, 6), hash=b"h" * 32)
    check_chain(None, first.manifest)
    check_chain(first, a_manifest(7, 9, previous=b"h" * 32))
    for wrong in (a_manifest(8, 9, previous=b"h" * 32), a_manifest(7, 9), a_manifest(7, 9, previous=b"i" * 32)):
        with pytest.raises(LogDamaged):
            check_chain(first, wrong)
    with pytest.raises(LogDamaged):
        check_chain(first, replace(a_manifest(7, 9, previous=b"h" * 32), before=bytes(32)))


async def test_what_is_kept_is_found_again_also_by_a_shelf_that_looked_before() -> None:
    archive, manifest = MemoryArchive(), a_manifest()
    late, shelf = Shelf(archive), Shelf(archive)
    with pytest.raises(NotFound):
        await late.fetch(manifest)
    await shelf.keep(manifest, records_of(manifest))
    await shelf.keep(manifest, records_of(manifest))
    assert await late.fetch(manifest) == records_of(manifest)
    assert await shelf.spans() == {(1, 6)}
    assert len(archive.blobs) == 1


async def test_a_bad_copy_is_passed_over_set_aside_and_named() -> None:
    near, far = MemoryArchive("near"), MemoryArchive("far")
    manifest = a_manifest()
    shelves = Shelf(near), Shelf(far)
    for shelf in shelves:
        await shelf.keep(manifest, records_of(manifest))
    (name,) = near.blobs
    near.blobs[name] = near.blobs[name][:-40]
    copies = AllCopies(shelves)
    assert await copies.fetch(manifest) == records_of(manifest)
    assert [text.partition(":")[0] for text in copies.damage] == ["near"]
    assert await shelves[0].spans() == frozenset() and list(near.blobs) == [f"{name}.damaged"]
    assert {title: one.segments for title, one in copies.fetched.items()} == {"far": 1}
    await shelves[0].keep(manifest, records_of(manifest))
    assert await copies.fetch(manifest) == records_of(manifest)
    assert {title: one.segments for title, one in copies.fetched.items()} == {"far": 1, "near": 1}


async def test_a_whole_file_of_another_log_is_no_copy() -> None:
    archive, manifest = MemoryArchive(), a_manifest()
    stranger = a_chain(EMPTY, 6, size=40)
    await Shelf(archive).keep(manifest, bytes_of(stranger))  # as a log that was cut off and written anew would leave it
    copies = AllCopies([Shelf(archive)])
    with pytest.raises(Unavailable) as refusal:
        await copies.fetch(manifest)
    assert refusal.value.code == "log.archive_unreachable" and "memory" in refusal.value.message
    assert len(copies.damage) == 1


async def test_when_nobody_has_it_everybody_who_was_asked_is_named() -> None:
    broken = MemoryArchive("broken")
    broken.failure = Unavailable("no such host", code="archive.unreachable")
    copies = AllCopies([Shelf(broken), Shelf(MemoryArchive("empty"))])
    with pytest.raises(PvcError) as refusal:
        await copies.fetch(a_manifest())
    assert "broken: no such host" in refusal.value.message and "empty" in refusal.value.message
    assert not copies.damage, "what cannot be reached is not damaged"


async def test_copies_of_what_was_given_up_make_room_also_for_segments_with_the_same_ends() -> None:
    archive = MemoryArchive()
    shelf, common, given_up = Shelf(archive), a_manifest(1, 3), a_manifest(4, 9)
    await shelf.keep(common, records_of(common))
    stranger = bytes_of(a_chain(ENTRIES[2].head, 6, size=40))
    # Put there by another process, after this one has looked.
    await Shelf(archive).keep(given_up, stranger)
    await shelf.discard_after(3)
    assert await shelf.spans() == {(1, 3)}
    assert sorted(name.partition(".")[2] for name in archive.blobs) == ["pvclog", "pvclog.damaged"]
    await shelf.keep(given_up, records_of(given_up))
    assert await shelf.fetch(given_up) == records_of(given_up)
    await shelf.discard_after(8)
    assert await shelf.spans() == {(1, 3)}, "a segment of which a part was given up is no copy either"


async def test_a_copy_that_was_taken_away_is_not_counted_any_more() -> None:
    archive, manifest = MemoryArchive(), a_manifest()
    shelf = Shelf(archive)
    await shelf.keep(manifest, records_of(manifest))
    archive.blobs.clear()
    assert await shelf.spans() == {(1, 6)}
    with pytest.raises(NotFound):
        await shelf.fetch(manifest)
    assert await shelf.spans() == frozenset()
