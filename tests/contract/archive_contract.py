"""What every archive must do, whatever it is made of. A test class per implementation inherits it.

`open_archive()` returns a new client of one and the same place; `spoil(name, data)` changes what lies there by other
means, as a bad disk would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pvc.archive.base import Archive, DamagedCopy, blob_name, parse_blob_name
from pvc.errors import NotFound, Unavailable
from pvc.proof.frames import encode_file

OpenArchive = Callable[[], Awaitable[Archive]]
Spoil = Callable[[str, bytes], Awaitable[None]]


def a_blob(first: int = 1, records: int = 20, size: int = 300) -> tuple[str, bytes]:
    """Name and bytes of a sealed segment."""
    data = encode_file(first, [bytes([at % 251]) * size for at in range(first, first + records)])
    return blob_name(first, first + records - 1, data), data


class ArchiveContract:
    """The shared suite."""

    @pytest.fixture
    async def archive(self, open_archive: OpenArchive) -> Archive:
        return await open_archive()

    async def test_a_new_archive_is_empty(self, archive: Archive) -> None:
        name, _ = a_blob()
        assert await archive.names() == []
        with pytest.raises(NotFound) as refusal:
            await archive.get(name)
        assert refusal.value.code == "archive.not_found"
        assert name in refusal.value.message

    async def test_it_can_be_told_where_it_is(self, archive: Archive) -> None:
        assert archive.title

    async def test_what_was_put_is_got_byte_by_byte_and_by_another_client_too(self, open_archive: OpenArchive) -> None:
        one, other = await open_archive(), await open_archive()
        name, data = a_blob()
        await one.put(name, data)
        assert await one.get(name) == data
        assert await other.get(name) == data

    async def test_a_blob_of_some_megabytes_is_kept_as_well(self, archive: Archive) -> None:
        data = encode_file(1, [bytes(250_000) for _ in range(20)], compress=False)
        name = blob_name(1, 20, data)
        await archive.put(name, data)
        assert len(data) > 4_000_000
        assert await archive.get(name) == data

    async def test_the_same_bytes_may_be_put_again(self, open_archive: OpenArchive) -> None:
        one, other = await open_archive(), await open_archive()
        name, data = a_blob()
        await one.put(name, data)
        await asyncio.gather(*(archive.put(name, data) for archive in (one, other, one, other)))
        assert await one.get(name) == data
        assert await one.names() == [name]

    async def test_many_clients_that_put_the_same_at_once_do_each_other_no_harm(
        self, open_archive: OpenArchive
    ) -> None:
        clients = [await open_archive() for _ in range(4)]
        blobs = [a_blob(first) for first in (1, 21, 41)]
        await asyncio.gather(*(client.put(*blob) for client in clients for blob in blobs))
        assert await clients[0].names() == [name for name, _ in blobs]
        for name, data in blobs:
            assert await clients[3].get(name) == data

    async def test_the_names_come_in_the_order_of_the_records(self, archive: Archive) -> None:
        blobs = [a_blob(first) for first in (21, 1, 1_000_000_001, 41)]
        for name, data in blobs:
            await archive.put(name, data)
        firsts = [said.first for name in await archive.names() if (said := parse_blob_name(name)) is not None]
        assert firsts == [1, 21, 41, 1_000_000_001]

    async def test_two_blobs_of_the_same_records_do_not_meet(self, archive: Archive) -> None:
        """Two versions of a library may compress the same records to other bytes."""
        records = [b"r" * 1000] * 10
        blobs = [encode_file(1, records), encode_file(1, records, compress=False)]
        for data in blobs:
            await archive.put(blob_name(1, 10, data), data)
        assert sorted([await archive.get(name) for name in await archive.names()]) == sorted(blobs)

    async def test_what_is_no_blobs_name_is_not_found(self, archive: Archive) -> None:
        name, data = a_blob()
        await archive.put(name, data)
        for strange in ("", "..", "../snapshot", f"../{name}", f"{name}.damaged", f"{name}\n", "log-1-2-x.pvclog"):
            with pytest.raises(NotFound):
                await archive.get(strange)
            await archive.remove(strange)
        assert await archive.get(name) == data

    async def test_bytes_that_are_not_what_the_name_says_are_a_fault_of_the_caller(self, archive: Archive) -> None:
        name, data = a_blob()
        with pytest.raises(AssertionError):
            await archive.put(name, data + b"x")
        with pytest.raises(AssertionError):
            await archive.put("../elsewhere", data)
        assert await archive.names() == []

    async def test_each_flipped_bit_and_each_cut_is_found(self, archive: Archive, spoil: Spoil) -> None:
        name, data = a_blob()
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 0x10
        for bad in (bytes(flipped), data[:-1], data[: len(data) // 2], b"", data + b"\0"):
            await archive.put(name, data)
            await spoil(name, bad)
            with pytest.raises(DamagedCopy) as found:
                await archive.get(name)
            assert found.value.code == "archive.damaged"
            assert name in found.value.message
            assert await archive.names() == [name], "it is still there, to be looked at"
            await archive.remove(name)
            assert await archive.names() == []

    async def test_a_damaged_copy_is_not_overwritten_but_removed_and_then_replaced(
        self, archive: Archive, spoil: Spoil
    ) -> None:
        name, data = a_blob()
        await archive.put(name, data)
        await spoil(name, data[:100])
        with pytest.raises(DamagedCopy):
            await archive.put(name, data)
        await archive.remove(name)
        with pytest.raises(NotFound):
            await archive.get(name)
        await archive.put(name, data)
        assert await archive.get(name) == data
        assert await archive.names() == [name], "what was kept aside is no blob"

    async def test_to_remove_what_is_not_there_is_no_error(self, archive: Archive) -> None:
        name, data = a_blob()
        await archive.remove(name)
        await archive.put(name, data)
        await archive.remove(name)
        await archive.remove(name)
        assert await archive.names() == []

    async def test_a_closed_archive_refuses_everything(self, archive: Archive) -> None:
        name, data = a_blob()
        await archive.put(name, data)
        await archive.close()
        await archive.close()
        for call in (archive.put(name, data), archive.get(name), archive.names(), archive.remove(name)):
            with pytest.raises(Unavailable) as refusal:
                await call
            assert refusal.value.code == "archive.closed"
