"""Exported files: what is written is read again, and whatever is damaged is named by position, never by a traceback."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest

from pvc.proof.findings import Unproven
from pvc.proof.frames import Block, Damaged, End, encode_file, read_file, records_of
from tests.support.keys import TestKey
from tests.support.signed_log import SignedLog

KEY = TestKey("frames")


def a_log(count: int) -> list[bytes]:
    log = SignedLog().begin(KEY)
    log.live(count - 2)
    return log.records


def read(data: bytes) -> list[bytes]:
    found: list[bytes] = []
    for part in read_file(io.BytesIO(data)):
        if isinstance(part, Block):
            assert part.first == len(found) + 1
            found += records_of(part)
        else:
            assert isinstance(part, End)
            assert part.last == len(found)
    return found


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("count", [2, 4_096, 4_097, 9_000])
def test_what_is_written_is_read_again(count: int, compress: bool) -> None:
    records = a_log(count)
    assert read(encode_file(1, records, compress=compress)) == records


@pytest.mark.parametrize("compress", [True, False])
def test_a_file_cut_off_anywhere_is_told_with_the_position(compress: bool) -> None:
    data = encode_file(1, a_log(5_000), compress=compress)
    rng = random.Random(1)
    for cut in {*range(60), *(rng.randrange(len(data)) for _ in range(200)), len(data) - 1}:
        with pytest.raises(Damaged) as damaged:
            read(data[:cut])
        assert damaged.value.first in (0, 1, 4_097, 5_001)
        assert damaged.value.truncated or cut < 8


@pytest.mark.parametrize("compress", [True, False])
def test_a_flipped_bit_anywhere_is_an_error_of_ours_or_leaves_other_records(compress: bool) -> None:
    records = a_log(600)
    data = encode_file(1, records, compress=compress)
    rng = random.Random(2)
    for at in {*range(60), *(rng.randrange(len(data)) for _ in range(300)), *range(len(data) - 50, len(data))}:
        flipped = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        try:
            found = read(flipped)
        except Unproven:
            continue
        assert (not compress and found != records) or at >= len(data) - 50


def test_a_header_that_claims_gigabytes_is_not_believed() -> None:
    data = encode_file(1, a_log(10))
    header = bytearray(data[8:40])
    struct.pack_into(">I", header, 24, 0xFFFFFFFF)
    forged = data[:8] + bytes(header) + struct.pack(">I", zlib.crc32(bytes(header)))
    with pytest.raises(Damaged) as damaged:
        read(forged + data[44:])
    assert "senseless" in damaged.value.message


def test_what_follows_the_end_is_told() -> None:
    with pytest.raises(Damaged):
        read(encode_file(1, a_log(10)) + b"x")
