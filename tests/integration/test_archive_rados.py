"""The archive in a pool of a real Ceph: the archive's contract, and a Ceph that stops answering."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pvc.archive import rados
from pvc.archive.base import Archive
from pvc.archive.rados import RadosArchive, RadosPool
from pvc.errors import Unavailable
from tests.contract.archive_contract import ArchiveContract, OpenArchive, Spoil, a_blob
from tests.integration.ceph_server import POOL, CephServer

pytestmark = pytest.mark.ceph

SHORT_S = 1.0
"""Ceph's own time-out, where a test waits for it."""


@pytest.fixture
def place(ceph: CephServer) -> RadosPool:
    """A namespace that no other test uses, reached by a client that may do no more than it must."""
    return RadosPool(pool=POOL, namespace=uuid.uuid4().hex[:8], conf=str(ceph.conf), user="log")


@pytest.fixture
async def archive(place: RadosPool) -> AsyncIterator[RadosArchive]:
    archive = RadosArchive(place, operation_s=SHORT_S)
    yield archive
    await archive.close()


@pytest.fixture
def frozen_osd(ceph: CephServer) -> Iterator[CephServer]:
    yield ceph
    ceph.thaw_osd()
    ceph.thaw_mon()


class TestRadosArchive(ArchiveContract):
    @pytest.fixture
    async def open_archive(self, place: RadosPool) -> AsyncIterator[OpenArchive]:
        opened: list[RadosArchive] = []

        async def open_archive() -> Archive:
            opened.append(RadosArchive(place))
            return opened[-1]

        yield open_archive
        for archive in opened:
            await archive.close()

    @pytest.fixture
    def spoil(self, ceph: CephServer, place: RadosPool, tmp_path: Path) -> Spoil:
        async def spoil(name: str, data: bytes) -> None:
            (tmp_path / "bad").write_bytes(data)
            await asyncio.to_thread(ceph.rados, "-N", place.namespace, "put", name, str(tmp_path / "bad"))

        return spoil


async def test_a_removed_copy_is_kept_aside(ceph: CephServer, place: RadosPool, archive: RadosArchive) -> None:
    name, data = a_blob()
    await archive.put(name, data)
    await archive.remove(name)
    assert set(ceph.rados("-N", place.namespace, "ls").split()) == {f"{name}.damaged", "names"}, "in no order"


async def test_more_names_than_are_read_at_once_are_all_told(
    archive: RadosArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rados, "PAGE", 3)
    blobs = [a_blob(1 + 20 * at) for at in range(10)]
    for name, data in blobs:
        await archive.put(name, data)
    assert await archive.names() == [name for name, _ in blobs]


async def test_two_clusters_in_one_pool_do_not_see_each_other(archive: RadosArchive, place: RadosPool) -> None:
    name, data = a_blob()
    await archive.put(name, data)
    other = RadosArchive(RadosPool(pool=POOL, namespace="other", conf=place.conf, user=place.user))
    assert await other.names() == []
    await other.close()


async def test_an_osd_that_hangs_holds_nobody_up_and_is_used_again_when_it_is_back(
    frozen_osd: CephServer, archive: RadosArchive
) -> None:
    (name, data), (later, more) = a_blob(), a_blob(21)
    await archive.put(name, data)
    before = threading.active_count()
    frozen_osd.freeze_osd()
    for call in (archive.get(name), archive.put(later, more), archive.names(), archive.remove(name)):
        with pytest.raises(Unavailable) as refusal:
            await call
        assert refusal.value.code == "archive.unreachable"
        assert "ceph -s" in refusal.value.hint
    assert threading.active_count() <= before + 1
    frozen_osd.thaw_osd()
    await archive.put(later, more)
    assert await archive.get(later) == more


async def test_a_client_that_ceph_has_fenced_comes_back_with_a_new_connection(
    ceph: CephServer, archive: RadosArchive
) -> None:
    (name, data), (later, more) = a_blob(), a_blob(21)
    await archive.put(name, data)
    handle = archive._link._handle
    assert handle is not None
    ceph.ceph("osd", "blocklist", "add", handle.cluster.get_addrs())
    with pytest.raises(Unavailable):
        for _ in range(100):  # until the OSD has heard of it
            await archive.put(later, more)
            await asyncio.sleep(0.1)
    await archive.put(later, more)
    assert await archive.get(name) == data
    assert archive._link._handle is not handle


async def test_a_monitor_that_hangs_is_told_by_a_client_that_comes_new(
    frozen_osd: CephServer, archive: RadosArchive
) -> None:
    name, data = a_blob()
    frozen_osd.freeze_mon()
    with pytest.raises(Unavailable) as refusal:
        await archive.put(name, data)
    assert refusal.value.code == "archive.unreachable"
    frozen_osd.thaw_mon()
    await archive.put(name, data)
    assert await archive.get(name) == data


async def test_more_calls_than_threads_all_come_back_from_a_ceph_that_hangs(
    frozen_osd: CephServer, place: RadosPool
) -> None:
    archive = RadosArchive(place, operation_s=60, deadline_s=3)  # Ceph's own patience is longer than ours
    name, data = a_blob()
    await archive.put(name, data)
    before = threading.active_count()
    frozen_osd.freeze_osd()
    failures = await asyncio.gather(*(archive.get(name) for _ in range(20)), return_exceptions=True)
    assert [getattr(failure, "code", failure) for failure in failures] == ["archive.unreachable"] * 20
    assert threading.active_count() <= before + 1, "two threads in all hang"
    await archive.close()


def test_a_process_ends_although_ceph_hangs(frozen_osd: CephServer, place: RadosPool) -> None:
    script = f"""
import asyncio
from pvc.archive.rados import RadosArchive, RadosPool
from pvc.errors import Unavailable
from tests.contract.archive_contract import a_blob

async def main():
    archive = RadosArchive(RadosPool(pool={POOL!r}, namespace="end", conf={place.conf!r}, user={place.user!r}))
    await archive.put(*a_blob())
    print("put", flush=True)
    input()
    try:
        async with asyncio.timeout(1):
            await archive.get(a_blob()[0])
    except TimeoutError:
        print("hangs", flush=True)
    await archive.close()

asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "put\n"
    frozen_osd.freeze_osd()
    process.stdin.write("\n")
    assert process.stdout.readline() == "hangs\n"
    began = time.monotonic()
    assert process.wait(timeout=60) == 0
    print(f"ended after {time.monotonic() - began:.1f} s")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"pool": "no-such-pool"}, "no-such-pool"),
        ({"conf": "/nonexistent/ceph.conf"}, "cannot be reached"),
        ({"user": "nobody"}, "cannot be reached"),
    ],
)
async def test_what_is_configured_wrongly_is_told(place: RadosPool, wrong: dict[str, str], said: str) -> None:
    fields = {"pool": place.pool, "conf": place.conf, "user": place.user, **wrong}
    archive = RadosArchive(RadosPool(**fields), operation_s=3)
    with pytest.raises(Unavailable) as refusal:
        await archive.names()
    assert refusal.value.code == "archive.unreachable"
    assert said in refusal.value.message
    assert "archive.rados_conf" in refusal.value.hint
    await archive.close()
