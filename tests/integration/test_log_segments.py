"""Segments of a ZooKeeper log: rolled under way, described, removed, and read from the archive; on a real server."""

from __future__ import annotations

import asyncio

import pytest
from kazoo.exceptions import NoAuthError

from pvc.errors import LogDamaged, Unavailable
from pvc.events.record import Entry
from pvc.log.manifest import Manifest, check_records, describe
from pvc.log.segments import Chained, Segments, check_chain
from pvc.log.zookeeper import Credentials, ZookeeperLog
from pvc.log.zookeeper_layout import SegmentLimits
from tests.contract.log_contract import read_all, take
from tests.contract.log_records import a_chain, an_entry, bytes_of
from tests.integration.zookeeper_clients import opened, zk_client
from tests.integration.zookeeper_server import ZookeeperServer, cluster, zookeeper

__all__ = ["cluster", "zookeeper"]
pytestmark = pytest.mark.zookeeper

SMALL = SegmentLimits(records=10)


class Shelf:
    """An archive: a segment's records by the position of the first."""

    def __init__(self) -> None:
        self.segments: dict[int, list[bytes]] = {}
        self.fetched: list[int] = []

    async def fetch(self, manifest: Manifest) -> list[bytes]:
        self.fetched.append(manifest.first)
        if manifest.first not in self.segments:
            raise Unavailable("not on the shelf", code="test.not_there")
        check_records(self.segments[manifest.first], manifest)
        return self.segments[manifest.first]


async def fill(log: ZookeeperLog, count: int, *, batch: int = 4) -> list[Entry]:
    """Append `count` records, some at a time."""
    entries = a_chain(await log.head(), count)
    for start in range(0, count, batch):
        part = entries[start : start + batch]
        after = entries[start - 1].head if start else await log.head()
        await log.append(part, after=after)
    return entries


async def archive(segments: Segments, entries: list[Entry], shelf: Shelf) -> list[Chained]:
    """Put all sealed segments on the shelf, and publish their manifests."""
    known = await segments.manifests(0)
    for sealed in await segments.sealed():
        if known and sealed.first <= known[-1].manifest.last:
            continue
        records = bytes_of(entries[sealed.first - 1 : sealed.last])
        shelf.segments[sealed.first] = records
        manifest = describe(
            sealed.first,
            records,
            incarnation="x",
            root=bytes(32),
            previous=known[-1].hash if known else b"",
            sealed_by="hv1",
        )
        known.append(await segments.publish(manifest))
        check_chain(known[-2] if len(known) > 1 else None, known[-1].manifest)
    return known


async def test_a_log_that_rolls_is_one_log_to_all_who_append_read_and_follow(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with (
        opened(zookeeper.hosts, cluster, limits=SMALL) as log,
        opened(zookeeper.hosts, cluster, limits=SMALL) as other,
        opened(zookeeper.hosts, cluster) as reader,
    ):
        following = asyncio.create_task(take(reader.follow(0), 57))
        entries = await fill(log, 25)
        entries += await fill(other, 25)  # which has seen nothing of the rolls
        entries += await fill(log, 7)
        assert await following == bytes_of(entries)
        assert await read_all(other) == bytes_of(entries)
        sealed = await log.segments.sealed()
        assert [one.first for one in sealed] == [1, *(one.last + 1 for one in sealed[:-1])]
        assert all(one.last - one.first < 10 for one in sealed) and len(sealed) >= 5
        assert [one.head for one in sealed] == [entries[one.last - 1].head for one in sealed]


async def test_what_was_removed_is_read_from_the_archive_and_nobody_notices(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    shelf = Shelf()
    async with (
        opened(zookeeper.hosts, cluster, limits=SMALL) as log,
        opened(zookeeper.hosts, cluster, source=shelf) as reader,  # which looked at the log while it was empty
        opened(zookeeper.hosts, cluster) as poor,
    ):
        entries = await fill(log, 55)
        await archive(log.segments, entries, shelf)
        for sealed in (await log.segments.sealed())[:3]:
            assert await log.segments.remove(sealed) == sealed.last - sealed.first + 1
        assert await read_all(reader) == bytes_of(entries)
        assert await take(reader.follow(0), 55) == bytes_of(entries)
        async with opened(zookeeper.hosts, cluster, source=shelf) as newcomer:
            assert await read_all(newcomer) == bytes_of(entries)
        assert await log.append([an_entry(entries[-1].head)], after=entries[-1].head)
        with pytest.raises(Unavailable) as refusal:
            await poor.read(1, 10)
        assert refusal.value.code == "log.archived"
        assert (await poor.head()).position == 56


async def test_a_removal_broken_off_anywhere_loses_nothing_and_is_finished_by_the_next(
    zookeeper: ZookeeperServer, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvc.log.segments.MAX_DELETES", 2)
    shelf = Shelf()
    async with (
        opened(zookeeper.hosts, cluster, limits=SMALL, source=shelf) as log,
        opened(zookeeper.hosts, cluster, source=shelf) as reader,
    ):
        entries = await fill(log, 34)
        await archive(log.segments, entries, shelf)
        victim = (await log.segments.sealed())[0]
        steps = 0
        for stop_after in range(1, 20):
            view = log._view
            multi, left = view.bridge.multi, [stop_after]

            async def dying(operations: object, multi: object = multi, left: list[int] = left) -> object:
                if not left[0]:
                    raise KeyboardInterrupt("killed here")
                left[0] -= 1
                return await multi(operations)  # type: ignore[operator]

            monkeypatch.setattr(view.bridge, "multi", dying)
            try:
                await log.segments.remove(victim)
                done = True
            except KeyboardInterrupt:
                done = False
            monkeypatch.setattr(view.bridge, "multi", multi)
            steps += 1
            assert await read_all(reader) == bytes_of(entries)
            if done:
                break
        assert steps > 2
        assert victim.first not in [sealed.first for sealed in await log.segments.sealed()]


async def test_two_who_remove_the_same_segment_do_not_hinder_each_other(
    zookeeper: ZookeeperServer, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvc.log.segments.MAX_DELETES", 2)
    shelf = Shelf()
    async with (
        opened(zookeeper.hosts, cluster, limits=SMALL, source=shelf) as log,
        opened(zookeeper.hosts, cluster, source=shelf) as other,
    ):
        entries = await fill(log, 34)
        await archive(log.segments, entries, shelf)
        victims = (await log.segments.sealed())[:2]
        await asyncio.gather(*(segments.remove(one) for one in victims for segments in (log.segments, other.segments)))
        assert next(one.first for one in await other.segments.sealed()) == victims[-1].last + 1
        assert await read_all(other) == bytes_of(entries)


async def test_a_segment_without_a_manifest_is_not_removed(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with opened(zookeeper.hosts, cluster, limits=SMALL) as log:
        entries = await fill(log, 15)
        with pytest.raises(LogDamaged):
            await log.segments.remove((await log.segments.sealed())[0])
        assert await read_all(log) == bytes_of(entries)


async def test_a_second_manifest_must_say_the_same_and_the_first_stays(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with opened(zookeeper.hosts, cluster, limits=SMALL) as log:
        entries = await fill(log, 15)
        stored = (await archive(log.segments, entries, Shelf()))[0]
        sealed = (await log.segments.sealed())[0]
        common = {"incarnation": "x", "root": bytes(32), "previous": b""}
        records = bytes_of(entries[: sealed.last])
        assert await log.segments.publish(describe(1, records, sealed_by="hv2", **common)) == stored  # type: ignore[arg-type]
        forged = [*records[:-1], an_entry(entries[sealed.last - 2].head).data]
        with pytest.raises(LogDamaged) as damage:
            await log.segments.publish(describe(1, forged, sealed_by="hv2", **common))  # type: ignore[arg-type]
        assert damage.value.code == "log.manifest_differs"
        assert (await log.segments.manifests(0))[0] == stored


async def test_a_record_that_is_missing_without_being_archived_is_damage(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with opened(zookeeper.hosts, cluster, limits=SMALL, source=Shelf()) as log:
        await fill(log, 25)
        with zk_client(zookeeper.hosts) as client:
            client.delete(f"/pvc/{cluster}/log/s/{1:020d}/e-{3:010d}")
        with pytest.raises(LogDamaged) as damage:
            await log.read(1, 10)
        assert damage.value.code == "log.gap"


async def test_only_the_archivist_can_remove_records_where_there_is_one(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    node, archivist = Credentials(user="node", password="n"), Credentials(user="archivist", password="a")
    shelf = Shelf()
    with zk_client(zookeeper.hosts) as client:
        if not client.exists("/pvc"):
            client.create("/pvc")  # two identities share this server
    options = {"credentials": node, "limits": SMALL, "source": shelf}
    async with (
        opened(zookeeper.hosts, cluster, archivist=archivist, **options) as coordinator,
        opened(zookeeper.hosts, cluster, **options) as simple,
    ):
        entries = await fill(simple, 25)  # who rolls gives the archivist its right, without being it
        await archive(simple.segments, entries, shelf)
        victim = (await simple.segments.sealed())[1]
        with pytest.raises(Unavailable) as refusal:
            await simple.segments.remove(victim)
        assert refusal.value.code == "log.not_allowed"
        assert await coordinator.segments.remove(victim) > 0
        with zk_client(zookeeper.hosts, auth_data=[("digest", "node:n")]) as client:
            path = f"/pvc/{cluster}/log/s/{1:020d}/e-{0:010d}"
            for act in (lambda: client.set(path, b"forged"), lambda: client.delete(path)):
                with pytest.raises(NoAuthError):
                    act()  # type: ignore[no-untyped-call]
