"""Records in a file: length-prefixed, in blocks, each with its checksum, and an end that shows that nothing is missing.

    file  = MAGIC, block*, end
    block = header ("PVCB", codec, first position, records, bytes inside, bytes stored, CRC-32 of what is stored),
            CRC-32 of the header, then what is stored: the length of each record (4 bytes), then the bytes of all
            records, the whole compressed with zstd or as it is
    end   = header ("PVCE", last position, SHA-256 of the last record's bytes), CRC-32 of the header

All numbers are big-endian. The checksums tell damage (a disk, a cut copy) from tampering, which the chain and the tree
show. A block can be read without those before it, so that several processes can share the work.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from pvc.proof.findings import Unproven

MAGIC = b"PVCLOG1\n"

PLAIN, ZSTD = 0, 1

BLOCK_RECORDS = 4_096
"""Records of a block: as many as of a segment, and 16 subtrees of 256 leaves."""

MAX_BLOCK_RECORDS = 65_536
MAX_BLOCK_BYTES = 64 * 1024 * 1024
"""Of a block's inside; what claims more is damaged, and is not given the memory."""
FULL_BLOCK_BYTES = 8 * 1024 * 1024
"""A writer ends a block that is so large."""

_BLOCK = struct.Struct(">4sBxxxQIIII")
_END = struct.Struct(">4sQ32s")
_CRC = struct.Struct(">I")
_LENGTH_BYTES = 4
_BLOCK_MARK, _END_MARK = b"PVCB", b"PVCE"
BLOCK_HEADER_BYTES = _BLOCK.size + _CRC.size
END_BYTES = _END.size + _CRC.size
_ZSTD_LEVEL = 3
"""Higher ones make records some per cent smaller and take several times as long."""


class Block(NamedTuple):
    """A block as it stands in a file, its inside not yet looked at."""

    first: int
    records: int
    codec: int
    size_bytes: int
    """Of the inside."""
    checksum: int
    stored: bytes

    @property
    def last(self) -> int:
        """The position of its last record."""
        return self.first + self.records - 1


class End(NamedTuple):
    """The end of a file."""

    last: int
    head_hash: bytes


class Damaged(Unproven):
    """Part of a file cannot be read. `first` and `last` are the positions concerned, as far as they are known."""

    def __init__(self, message: str, first: int, last: int = 0, *, truncated: bool = False) -> None:
        super().__init__(message, code="proof.file_truncated" if truncated else "proof.file_damaged")
        self.first = first
        self.last = max(first, last)
        self.truncated = truncated


def encode_block(first: int, records: Sequence[bytes], *, compress: bool = True) -> bytes:
    """A block of records, the first of them at position `first`."""
    assert 0 < len(records) <= MAX_BLOCK_RECORDS, "a block has some records"
    inside = struct.pack(f">{len(records)}I", *map(len, records)) + b"".join(records)
    assert len(inside) <= MAX_BLOCK_BYTES, "a block is no larger than a reader takes"
    codec, stored = (ZSTD, _compress(inside)) if compress else (PLAIN, inside)
    header = _BLOCK.pack(_BLOCK_MARK, codec, first, len(records), len(inside), len(stored), zlib.crc32(stored))
    return header + _CRC.pack(zlib.crc32(header)) + stored


def encode_end(last: int, record: bytes) -> bytes:
    """The end of a file whose last record, at position `last`, has these bytes."""
    header = _END.pack(_END_MARK, last, hashlib.sha256(record).digest())
    return header + _CRC.pack(zlib.crc32(header))


def encode_file(first: int, records: Sequence[bytes], *, compress: bool = True) -> bytes:
    """A whole file of records, the first of them at position `first`."""
    assert records, "a file has at least one record"
    parts = [MAGIC]
    for at, block in blocks_of(first, records):
        parts.append(encode_block(at, block, compress=compress))
    return b"".join([*parts, encode_end(first + len(records) - 1, records[-1])])


def blocks_of(first: int, records: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """The records in portions for blocks, each with the position it begins at."""
    block: list[bytes] = []
    size_bytes = 0
    for position, record in enumerate(records, start=first):
        block.append(record)
        size_bytes += len(record) + _LENGTH_BYTES
        if len(block) == BLOCK_RECORDS or size_bytes >= FULL_BLOCK_BYTES:
            yield position - len(block) + 1, block
            block, size_bytes = [], 0
    if block:
        yield first + len(records) - len(block), block


def read_file(file: BinaryIO) -> Iterator[Block | End]:
    """The blocks of a file, and its end. Raises Damaged where it cannot go on; OSError."""
    if file.read(len(MAGIC)) != MAGIC:
        raise Damaged("this is no exported log: it does not begin with PVCLOG1", 0)
    expected = 0
    while True:
        mark = file.read(len(_BLOCK_MARK))
        if mark == _END_MARK:
            yield _read_end(file, expected)
            if file.read(1):
                raise Damaged("something follows the end of the file", expected)
            return
        if mark != _BLOCK_MARK:
            cut = _BLOCK_MARK.startswith(mark) or _END_MARK.startswith(mark)
            raise Damaged(_nothing_after(expected, cut=cut), expected, truncated=cut)
        block = _read_block(file, expected)
        expected = block.last + 1
        yield block


def records_of(block: Block) -> list[bytes]:
    """The bytes of each record of a block. Raises Damaged."""
    damaged = zlib.crc32(block.stored) != block.checksum
    if block.codec == ZSTD:
        if damaged:
            raise Damaged(f"{_span(block)}: the checksum is wrong", block.first, block.last)
        inside = _decompress(block)
    elif block.codec == PLAIN:
        inside = block.stored
    else:
        raise Damaged(f"{_span(block)}: unknown compression {block.codec}", block.first, block.last)
    begin = _LENGTH_BYTES * block.records
    if len(inside) < begin:
        raise Damaged(f"{_span(block)}: their lengths are missing", block.first, block.last)
    ends = list(itertools.accumulate(struct.unpack_from(f">{block.records}I", inside), initial=begin))
    if ends[-1] != len(inside):
        raise Damaged(f"{_span(block)} are not as long as they should be", block.first, block.last)
    return [inside[first:end] for first, end in itertools.pairwise(ends)]


def is_intact(block: Block) -> bool:
    """Whether what is stored has its checksum. A plain block can be read even if not, to name the record."""
    return zlib.crc32(block.stored) == block.checksum


def _read_block(file: BinaryIO, expected: int) -> Block:
    header = _BLOCK_MARK + _exactly(file, BLOCK_HEADER_BYTES - len(_BLOCK_MARK), expected)
    if zlib.crc32(header[: _BLOCK.size]) != _CRC.unpack(header[_BLOCK.size :])[0]:
        raise Damaged(f"the header before record {expected} is damaged", expected)
    _, codec, first, count, size_bytes, stored_bytes, checksum = _BLOCK.unpack(header[: _BLOCK.size])
    # A header with a right checksum may still be somebody's invention.
    if not 0 < count <= MAX_BLOCK_RECORDS or max(size_bytes, stored_bytes) > MAX_BLOCK_BYTES or not 0 < first < 1 << 62:
        raise Damaged(f"the header before record {expected} has senseless numbers", expected)
    stored = _exactly(file, stored_bytes, first, first + count - 1)
    return Block(first=first, records=count, codec=codec, size_bytes=size_bytes, checksum=checksum, stored=stored)


def _read_end(file: BinaryIO, expected: int) -> End:
    header = _END_MARK + _exactly(file, END_BYTES - len(_END_MARK), expected)
    if zlib.crc32(header[: _END.size]) != _CRC.unpack(header[_END.size :])[0]:
        raise Damaged("the end of the file is damaged", expected)
    _, last, head_hash = _END.unpack(header[: _END.size])
    return End(last=last, head_hash=head_hash)


def _exactly(file: BinaryIO, count: int, first: int, last: int = 0) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise Damaged(_nothing_after(first, cut=True), first, last, truncated=True)
    return data


def _nothing_after(expected: int, *, cut: bool) -> str:
    where = f"before record {expected}" if expected else "before its first record"
    return f"the file is cut off {where}" if cut else f"the file is damaged {where}"


def _span(block: Block) -> str:
    return f"records {block.first} to {block.last}"


def _compress(inside: bytes) -> bytes:
    import zstandard  # only where a file is written or read: the CLI's start must not pay for it

    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(inside)


def _decompress(block: Block) -> bytes:
    import zstandard

    try:
        # Never more than the header has said, whatever the compressed bytes claim.
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(block.stored)) as reader:
            inside = reader.read(block.size_bytes + 1)
    except zstandard.ZstdError as error:
        raise Damaged(f"{_span(block)} cannot be decompressed: {error}", block.first, block.last) from error
    if len(inside) != block.size_bytes:
        raise Damaged(f"{_span(block)} are not as long as the header says", block.first, block.last)
    return inside
