"""Verification of stored logs: each kind of damage and each kind of attack is found and named, and nothing else is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pvc.proof.files import verify_files
from pvc.proof.findings import Kind, Unproven
from pvc.proof.frames import encode_file
from pvc.proof.note import parse_checkpoint
from pvc.proof.verify import Verification, Verifier
from tests.support.keys import ORIGIN, TestKey
from tests.support.signed_log import SignedLog

KEY, NEW, MALLORY = TestKey("old"), TestKey("new"), TestKey("mallory")


@pytest.fixture(scope="module")
def log() -> SignedLog:
    """10,000 records with checkpoints, and a rotation in the middle."""
    log = SignedLog().begin(KEY)
    for _ in range(20):
        log.live(250)
        log.checkpoint(KEY)
    log.add_key(NEW)
    log.retire(KEY)
    for _ in range(20):
        log.live(250)
        log.checkpoint(NEW)
    return log


def verified(path: Path, records: list[bytes] | bytes, **options: object) -> Verification:
    file = path / "log.pvc"
    file.write_bytes(records if isinstance(records, bytes) else encode_file(1, records))
    verifier = Verifier(**options)  # type: ignore[arg-type]
    verify_files([file], verifier, workers=1)
    return verifier.verdict()


def test_a_log_that_nobody_touched_is_whole(log: SignedLog, tmp_path: Path) -> None:
    found = verified(tmp_path, log.records, keys=[KEY.public, NEW.public])
    assert found.ok
    assert (found.records, found.last, found.checkpoints) == (len(log.records), len(log.records), 40)
    assert found.root == log.tree.root().hex()
    assert found.newest_checkpoint == len(log.records) - 1
    assert (found.origin, found.unchecked, found.given_keys) == (ORIGIN, 0, 2)


def test_several_processes_find_the_same(log: SignedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvc.proof.files.SMALL", 100)
    file = tmp_path / "log.pvc"
    file.write_bytes(encode_file(1, log.rewritten(7_000, chained=False), compress=False))
    verifier = Verifier()
    seen: list[int] = []
    verify_files([file], verifier, workers=2, progress=seen.append)
    assert next((f.position, f.kind) for f in verifier.verdict().findings) == (7_000, Kind.CHAIN)
    assert seen == [4_096, 8_192, len(log.records)]


@pytest.mark.parametrize("position", [1, 2, 300, 4_095, 4_096, 4_097, 9_999])
def test_a_changed_record_is_named(log: SignedLog, tmp_path: Path, position: int) -> None:
    found = verified(tmp_path, log.rewritten(position, chained=False))
    assert (found.findings[0].position, found.findings[0].kind) == (position, Kind.CHAIN)


def test_the_last_record_changed_in_the_file_is_named_by_its_end(log: SignedLog, tmp_path: Path) -> None:
    last = len(log.records)
    data = encode_file(1, log.records)
    forged = encode_file(1, log.rewritten(last, chained=False))[: -48 + 4] + data[-48 + 4 :]
    found = verified(tmp_path, forged)
    assert [(f.position, f.kind) for f in found.findings] == [(last, Kind.CHAIN)]


def test_a_log_chained_anew_is_found_by_the_next_checkpoint(log: SignedLog, tmp_path: Path) -> None:
    found = verified(tmp_path, log.rewritten(3_000, chained=True))
    assert [f.kind for f in found.findings] == [Kind.ROOT]
    size = next(s for s in (parse_checkpoint(n).checkpoint.size for n in log.notes) if s >= 3_000)
    assert found.findings[0].position == size + 1
    assert f"among the records {found.newest_checkpoint + 1} to {size}" in found.findings[0].message


def test_an_attacker_with_a_key_of_his_own_is_found_by_the_given_keys(tmp_path: Path) -> None:
    forged = SignedLog().begin(MALLORY)
    forged.live(50)
    forged.checkpoint(MALLORY)
    assert verified(tmp_path, forged.records).ok, "nothing inside contradicts it"
    found = verified(tmp_path, forged.records, keys=[KEY.public])
    assert [f.kind for f in found.findings] == [Kind.SIGNATURE]


def test_a_rewritten_log_signed_with_the_stolen_key_is_found_by_an_anchored_checkpoint(
    log: SignedLog, tmp_path: Path
) -> None:
    forged = SignedLog().begin(KEY)
    forged.live(6_000)
    forged.checkpoint(KEY)
    assert verified(tmp_path, forged.records, keys=[KEY.public]).ok
    anchored = parse_checkpoint(log.notes[3])
    found = verified(tmp_path, forged.records, keys=[KEY.public], checkpoints=[anchored])
    assert [(f.position, f.kind) for f in found.findings] == [(anchored.checkpoint.size, Kind.ROOT)]
    assert found.anchored == ()


def test_anchored_checkpoints_hold_for_the_log_they_are_of(log: SignedLog, tmp_path: Path) -> None:
    anchored = [parse_checkpoint(note) for note in (log.notes[0], log.notes[30])]
    found = verified(tmp_path, log.records, checkpoints=anchored)
    assert found.ok
    assert found.anchored == tuple(each.checkpoint.size for each in anchored)


def test_a_log_cut_short_is_found_by_an_anchored_checkpoint(log: SignedLog, tmp_path: Path) -> None:
    anchored = parse_checkpoint(log.notes[-1])
    found = verified(tmp_path, log.records[:5_000], keys=[KEY.public, NEW.public], checkpoints=[anchored])
    assert [(f.position, f.kind, f.last) for f in found.findings] == [(5_001, Kind.TRUNCATED, anchored.checkpoint.size)]


def test_what_a_retired_key_signs_does_not_count(tmp_path: Path) -> None:
    log = SignedLog().begin(KEY)
    log.checkpoint(KEY)
    log.add_key(NEW)
    log.retire(KEY)
    log.live(10)
    log.checkpoint(KEY)
    found = verified(tmp_path, log.records)
    assert [(f.position, f.kind) for f in found.findings] == [(len(log.records), Kind.SIGNATURE)]
    assert found.checkpoints == 1


def test_missing_repeated_and_exchanged_records_are_named(log: SignedLog, tmp_path: Path) -> None:
    records = log.records[:600]
    for forged, position in (
        ([*records[:299], *records[300:]], 300),
        ([*records[:300], *records[299:]], 301),
        ([*records[:299], records[300], records[299], *records[301:]], 300),
    ):
        found = verified(tmp_path, forged)
        assert (found.findings[0].position, found.findings[0].kind) == (position, Kind.GAP)


def test_bytes_that_are_no_record_are_named(log: SignedLog, tmp_path: Path) -> None:
    records = [*log.records[:600]]
    records[99] = b"\xc1" + records[99][1:]
    found = verified(tmp_path, records)
    assert (found.findings[0].position, found.findings[0].kind) == (100, Kind.UNREADABLE)


def test_a_damaged_block_is_told_with_its_records_and_the_rest_is_still_looked_at(
    log: SignedLog, tmp_path: Path
) -> None:
    data = encode_file(1, log.rewritten(9_000, chained=False))
    found = verified(tmp_path, data[:5_000] + bytes([data[5_000] ^ 4]) + data[5_001:])
    assert [(f.position, f.last, f.kind) for f in found.findings] == [
        (1, 4_096, Kind.DAMAGED),
        (9_000, 0, Kind.CHAIN),
    ]
    assert found.unchecked > 0
    assert found.root == ""


def test_a_flipped_bit_in_a_plain_file_names_the_record(log: SignedLog, tmp_path: Path) -> None:
    records = log.records[:600]
    data = encode_file(1, records, compress=False)
    at = data.index(records[299]) + len(records[299]) - 3
    found = verified(tmp_path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert found.findings[0].position == 300


def test_a_cut_file_is_told_with_the_position(log: SignedLog, tmp_path: Path) -> None:
    data = encode_file(1, log.records)
    found = verified(tmp_path, data[: len(data) - 60])
    assert [(f.position, f.kind) for f in found.findings] == [(8_193, Kind.TRUNCATED)]


def test_a_nodes_own_database_is_read_as_well(log: SignedLog, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("CREATE TABLE record (position INTEGER PRIMARY KEY, data BLOB)")
        records = log.rewritten(42, chained=False)
        db.executemany("INSERT INTO record VALUES (?, ?)", enumerate(records, start=1))
        db.execute("DELETE FROM record WHERE position = 5000")
    db.close()
    verifier = Verifier()
    verify_files([tmp_path / "log.db"], verifier)
    named = [(f.position, f.kind) for f in verifier.verdict().findings]
    assert named == [(42, Kind.CHAIN), (253, Kind.ROOT), (5_000, Kind.GAP)]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unproven) as refused:
        verified(tmp_path, b"PK\x03\x04 something else")
    assert refused.value.code == "proof.foreign_file"


def test_portions_in_several_files_are_one_log(log: SignedLog, tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(encode_file(1, log.records[:5_000]))
    two.write_bytes(encode_file(5_001, log.records[5_000:]))
    verifier = Verifier()
    verify_files([one, two], verifier)
    assert verifier.verdict().ok
    assert verifier.verdict().root == log.tree.root().hex()
    verifier = Verifier()
    verify_files([two], verifier)
    part = verifier.verdict()
    assert (part.first, part.root) == (5_001, "")
    assert part.unchecked > 0
