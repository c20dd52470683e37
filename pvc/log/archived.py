"""Reads records that have left ZooKeeper: by the segment's manifest, from whoever has a copy, checked before use."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from typing import Protocol

from pvc.errors import LogDamaged, Unavailable
from pvc.log.manifest import Manifest, decode_manifest
from pvc.log.zookeeper_layout import Layout
from pvc.zookeeper.port import ZookeeperSession
from pvc.zookeeper.types import NoNode

KEPT_SEGMENTS = 2
"""Segments kept decoded, some 2 MB each: a reader asks for a part at a time, and two may read side by side."""

MAX_MANIFESTS = 64
"""Manifests kept."""


class SegmentSource(Protocol):
    """Where archived segments are fetched from."""

    async def fetch(self, manifest: Manifest) -> list[bytes]:
        """The segment's records, checked against the manifest. Raises Unavailable when no good copy can be had."""
        ...


class ArchivedRecords:
    """The part of one log that is archived."""

    def __init__(self, bridge: ZookeeperSession, layout: Layout, source: SegmentSource | None) -> None:
        self._bridge = bridge
        self._layout = layout
        self._source = source
        self._starts: list[int] = []
        self._manifests: OrderedDict[int, Manifest] = OrderedDict()
        self._segments: OrderedDict[int, list[bytes]] = OrderedDict()

    async def read(self, first: int, limit: int) -> list[bytes]:
        """The records from `first` on, up to `limit` and to the end of the segment. Raises Unavailable, LogDamaged;
        Lost and NoSession like any read."""
        manifest = await self.manifest_of(first)
        records = self._segments.get(manifest.first)
        if records is None:
            if self._source is None:
                raise Unavailable(
                    f"record {first} is in the archive, and this client of the log has none",
                    code="log.archived",
                    hint="ask a node of the cluster",
                )
            records = await self._source.fetch(manifest)
            self._segments[manifest.first] = records
            if len(self._segments) > KEPT_SEGMENTS:
                self._segments.popitem(last=False)
        begin = first - manifest.first
        return records[begin : begin + limit]

    async def manifest_of(self, position: int) -> Manifest:
        """The manifest of the segment that holds `position`. Raises LogDamaged when there is none."""
        for listed_anew in (False, True):
            if listed_anew:
                self._starts = sorted(map(int, await self._children()))
            start = self._start_of(position)
            if start is not None:
                manifest = self._manifests.get(start) or await self._load(start)
                if position <= manifest.last:
                    return manifest
        raise self._missing(position)

    def _start_of(self, position: int) -> int | None:
        at = bisect.bisect_right(self._starts, position)
        return self._starts[at - 1] if at else None

    async def _children(self) -> list[str]:
        try:
            return await self._bridge.children(self._layout.manifests)
        except NoNode:
            return []

    async def _load(self, start: int) -> Manifest:
        try:
            data, _version = await self._bridge.get(self._layout.manifest(start))
        except NoNode:
            raise self._missing(start) from None
        manifest = self._manifests[start] = decode_manifest(data)
        if len(self._manifests) > MAX_MANIFESTS:
            self._manifests.popitem(last=False)
        return manifest

    def _missing(self, position: int) -> LogDamaged:
        return LogDamaged(
            f"record {position} is not in ZooKeeper, and no manifest says where else it is",
            code="log.gap",
            hint="restore the log from a node's replica: `pvc log repair`",
        )
