"""The sealed segments of a log in ZooKeeper: which there are, their manifests, and their removal once archived.

Every step may be done by any node, twice, or be broken off: a manifest is created by its exact name, and what is
removed is covered by a manifest already, so that a reader who misses a record knows that it is archived.
"""

from __future__ import annotations

import hashlib
import logging

import msgspec

from pvc.errors import LogDamaged
from pvc.events.record import Head
from pvc.log.manifest import Manifest, decode_manifest, encode_manifest
from pvc.log.zookeeper_layout import SegmentHead, decode_head
from pvc.log.zookeeper_view import View
from pvc.zookeeper.types import READ, BadVersion, Create, Delete, NodeExists, NoNode

MAX_DELETES = 500
"""Records removed in one request: some 100 KB."""

_log = logging.getLogger(__name__)


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed segment that is in ZooKeeper, or what a broken off removal left of it."""

    first: int
    last: int
    head: Head
    size_bytes: int
    version: int


class Chained(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest, and the hash by which the next one names it."""

    manifest: Manifest
    hash: bytes


class Segments:
    """The segments of the log that `view` is of. All methods raise Unavailable, LogDamaged."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def sealed(self) -> list[Sealed]:
        """Those in ZooKeeper, from the oldest on."""
        view, layout = self._view, self._view.layout

        async def read() -> list[Sealed]:
            firsts = sorted(map(int, await view.bridge.children(layout.segments)))
            found = await view.bridge.find_many([layout.segment(first) for first in firsts])
            heads = [
                (first, decode_head(znode.data), znode.version)
                for first, znode in zip(firsts, found, strict=True)
                if znode
            ]
            return [_sealed(first, stored, version) for first, stored, version in heads if stored.sealed]

        return await view.insist(read)

    async def manifests(self, after: int) -> list[Chained]:
        """Those of segments that begin behind position `after`, from the oldest on."""
        view, layout = self._view, self._view.layout

        async def read() -> list[Chained]:
            # They follow one another, so a single look tells that there are no more: nobody lists thousands for that.
            if after and not await view.bridge.exists(layout.manifest(after + 1)):
                return []
            firsts = [
                first for first in sorted(map(int, await view.bridge.children(layout.manifests))) if first > after
            ]
            if not firsts:
                return []
            stored = await view.bridge.get_many([layout.manifest(first) for first in firsts])
            return [_chained(data) for data in stored]

        return await view.insist(read)

    async def publish(self, manifest: Manifest) -> Chained:
        """Store a manifest; returns what is stored, perhaps by another node. Raises LogDamaged when that differs."""
        view = self._view
        path, data = view.layout.manifest(manifest.first), encode_manifest(manifest)

        async def create() -> Chained:
            try:
                await view.bridge.multi([Create(path, data, READ)])
                return _chained(data)
            except NodeExists:
                return _chained((await view.bridge.get(path))[0])

        stored = await view.insist(create)
        if not stored.manifest.agrees_with(manifest):
            raise LogDamaged(
                f"ZooKeeper's manifest of the records {manifest.first} to {manifest.last}, "
                f"by {stored.manifest.sealed_by}, is not what follows from this node's records",
                code="log.manifest_differs",
                hint="one of the two is damaged or was rewritten; compare with `pvc log verify` on each node",
            )
        return stored

    async def remove(self, segment: Sealed) -> int:
        """Take a segment that has a manifest out of ZooKeeper; returns how many records were removed."""
        view, path = self._view, self._view.layout.segment(segment.first)

        async def remove_some() -> int | None:
            if not await view.bridge.exists(view.layout.manifest(segment.first)):
                raise LogDamaged(f"segment {segment.first} has no manifest and must stay", code="log.gap")
            try:
                names = sorted(await view.bridge.children(path))[:MAX_DELETES]
                # A record was never changed, so its version is 0; the newest go last, with the segment's own znode.
                deletes = [Delete(f"{path}/{name}", 0) for name in names] or [Delete(path, segment.version)]
                await view.bridge.multi(deletes)
            except NoNode:
                return 0 if await view.bridge.exists(path) else None  # another removes it too
            except BadVersion:
                raise LogDamaged(f"the sealed segment {segment.first} was changed", code="log.rewritten") from None
            return len(names) or None

        removed = 0
        while (count := await view.insist(remove_some)) is not None:
            removed += count
        _log.info("log: segment removed from ZooKeeper first=%d last=%d", segment.first, segment.last)
        return removed


def check_chain(before: Chained | None, manifest: Manifest) -> None:
    """Raise LogDamaged unless `manifest` continues the one before."""
    head = before.manifest.last if before else 0
    if manifest.first != head + 1 or manifest.previous != (before.hash if before else b""):
        raise LogDamaged(
            f"the manifest of the records {manifest.first} to {manifest.last} does not continue that of record {head}",
            code="log.manifest_differs",
            hint="a manifest was removed or rewritten; compare with `pvc log verify` on each node",
        )
    if before is not None and manifest.before != before.manifest.hash:
        raise LogDamaged(
            f"the manifest of the records {manifest.first} to {manifest.last} breaks the chain of records",
            code="log.chain_broken",
            hint="compare with `pvc log verify` on each node",
        )


def _chained(data: bytes) -> Chained:
    return Chained(manifest=decode_manifest(data), hash=hashlib.sha256(data).digest())


def _sealed(first: int, stored: SegmentHead, version: int) -> Sealed:
    return Sealed(first=first, last=stored.next - 1, head=stored.head, size_bytes=stored.size_bytes, version=version)
