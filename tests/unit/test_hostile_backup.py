"""A backup that somebody else has made: it can be refused, and can do nothing else before it is believed."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from pvc.cli.backup import ABOUT, LOG, restore_cluster
from pvc.cli.session import Session
from pvc.client.errors import ClientError
from pvc.proof.frames import MAGIC, MAX_BLOCK_BYTES, ZSTD

GOOD = {"format": 1, "cluster": "main", "made": "2026-11-20T01:00:00Z"}


def a_backup(path: Path, about: bytes, log: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> str:
    """A file with these two parts; `kind` and `link` are of the log's entry."""
    with tarfile.open(path, "w") as tar:
        for name, data, is_of in ((ABOUT, about, tarfile.REGTYPE), (LOG, log, kind)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = is_of, link if is_of != tarfile.REGTYPE else ""
            entry.size = len(data) if is_of == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(data))
    return str(path)


def refused(file: str) -> ClientError:
    with pytest.raises(ClientError) as refusal:
        restore_cluster(Session(), file, dry_run=True, yes=True)
    assert refusal.value.code == "client.bad_backup", refusal.value
    assert "`pvc cluster backup`" in refusal.value.hint
    assert len(refusal.value.message) < 500 + len(file)
    return refusal.value


@pytest.mark.parametrize(
    "about",
    [
        [],
        None,
        "x",
        {"format": 2},
        {**GOOD, "made": "x" * 10_000},
        {**GOOD, "made": None},
        {**GOOD, "cluster": {"a": 1}},
        {"format": 1},
        {"format": "\x1b[2J" * 1000},
    ],
)
def test_a_page_that_says_other_things_is_refused(tmp_path: Path, about: Any) -> None:
    refused(a_backup(tmp_path / "b", json.dumps(about).encode()))


def test_a_page_that_is_endlessly_deep_is_refused(tmp_path: Path) -> None:
    refused(a_backup(tmp_path / "b", b"[" * 500_000))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("link", [LOG, ABOUT, "/etc/passwd", "../../etc/passwd"])
def test_what_is_no_plain_file_in_it_is_refused(tmp_path: Path, kind: bytes, link: str) -> None:
    refused(a_backup(tmp_path / "b", json.dumps(GOOD).encode(), kind=kind, link=link))


def test_a_block_that_unpacks_to_more_than_it_says_costs_no_memory(tmp_path: Path) -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(256 * 1024 * 1024))
    for claimed in (100, MAX_BLOCK_BYTES, MAX_BLOCK_BYTES + 1, 0xFFFFFFFF):
        head = struct.pack(">4sBxxxQIIII", b"PVCB", ZSTD, 1, 1, claimed, len(bomb), zlib.crc32(bomb))
        file = a_backup(
            tmp_path / "b", json.dumps(GOOD).encode(), MAGIC + head + zlib.crc32(head).to_bytes(4, "big") + bomb
        )
        refused(file)


def test_a_block_that_claims_more_than_there_is_costs_no_memory(tmp_path: Path) -> None:
    head = struct.pack(">4sBxxxQIIII", b"PVCB", 0, 1, 65_536, MAX_BLOCK_BYTES, MAX_BLOCK_BYTES, 0)
    refused(a_backup(tmp_path / "b", json.dumps(GOOD).encode(), MAGIC + head + zlib.crc32(head).to_bytes(4, "big")))


@pytest.mark.parametrize("data", [b"", b"x" * 5_000, b"\x1f\x8b\x08" + bytes(2_000), bytes(10_240)])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b").write_bytes(data)
    refused(str(tmp_path / "b"))
