"""Finds copies of archived segments: in this node's own archive, at other nodes, in Ceph; each is checked before use.

An archive's name for a blob tells which bytes it has, the segment's manifest which records: two nodes may have
compressed the same records into different bytes, and both copies are good.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pvc.archive.base import Archive, DamagedCopy, blob_name, not_found, parse_blob_name
from pvc.errors import LogDamaged, NotFound, PvcError, Unavailable
from pvc.log.manifest import Manifest, decode_blob, encode_blob

logger = logging.getLogger(__name__)

KEPT_DAMAGE = 20
"""Findings remembered."""

Span = tuple[int, int]
"""First and last position of a segment."""


class Copies(Protocol):
    """Something that may have a copy of a segment."""

    title: str

    async def fetch(self, manifest: Manifest) -> list[bytes]:
        """The segment's records, checked. Raises NotFound, Unavailable, DamagedCopy, LogDamaged."""
        ...


class Shelf:
    """One archive, and which segments are known to be in it."""

    def __init__(self, archive: Archive) -> None:
        self.title = archive.title
        self._archive = archive
        self._names: dict[Span, list[str]] | None = None

    async def spans(self) -> frozenset[Span]:
        """The segments of which there is a copy, good or bad. Raises Unavailable."""
        return frozenset(await self._known())

    async def fetch(self, manifest: Manifest) -> list[bytes]:
        """See `Copies`."""
        span = manifest.first, manifest.last
        if span not in await self._known():
            self._names = None  # somebody else may have put it there: another node, or an admin
        names = (await self._known()).get(span)
        if not names:
            raise not_found(self.title, f"records {manifest.first} to {manifest.last}")
        problem: PvcError | None = None
        for name in list(names):
            try:
                return await asyncio.to_thread(decode_blob, await self._archive.get(name), manifest)
            except NotFound as error:  # it was taken away meanwhile
                names.remove(name)
                problem = error
            except (DamagedCopy, LogDamaged) as error:
                problem = error
        if not names:
            (await self._known()).pop(span, None)
        assert problem is not None, "there was a name"
        raise problem

    async def keep(self, manifest: Manifest, records: Sequence[bytes]) -> None:
        """Keep a copy of these records, which are the manifest's. Raises Unavailable."""
        known = await self._known()
        data = await asyncio.to_thread(encode_blob, manifest.first, records)
        name = blob_name(manifest.first, manifest.last, data)
        try:
            await self._archive.put(name, data)
        except DamagedCopy:
            await self._archive.remove(name)
            await self._archive.put(name, data)
        names = known.setdefault((manifest.first, manifest.last), [])
        if name not in names:
            names.append(name)

    async def discard(self, manifest: Manifest) -> None:
        """Set every copy of the segment aside, for a good one to take its place. Raises Unavailable."""
        names = (await self._known()).pop((manifest.first, manifest.last), [])
        for name in names:
            await self._archive.remove(name)

    async def discard_after(self, position: int) -> None:
        """Set every copy aside that has records behind `position`: they were given up, and the segments that take their
        place may have the same first and last position. Raises Unavailable."""
        self.forget()
        known = await self._known()
        for span in [span for span in known if span[1] > position]:
            logger.warning("archive: set aside where=%r first=%d last=%d", self.title, *span)
            for name in known.pop(span):
                await self._archive.remove(name)

    def forget(self) -> None:
        """Look anew at what there is, the next time."""
        self._names = None

    async def _known(self) -> dict[Span, list[str]]:
        if self._names is None:
            found: dict[Span, list[str]] = {}
            for name in await self._archive.names():
                if (said := parse_blob_name(name)) is not None:
                    found.setdefault((said.first, said.last), []).append(name)
            self._names = found
        return self._names


class Fetched(NamedTuple):
    """What came from one place since the start."""

    segments: int
    size_bytes: int
    """Of the records, uncompressed."""


class AllCopies:
    """Every place that may have a segment, the nearest first. A `pvc.log.archived.SegmentSource`."""

    def __init__(self, places: Sequence[Copies], *, mends: bool = True) -> None:
        """`mends`: whether a bad copy is set aside; not by whoever only looks on."""
        self._places = places
        self._mends = mends
        self.damage: deque[str] = deque(maxlen=KEPT_DAMAGE)
        """What was found damaged, in words, the newest last."""
        self.fetched: dict[str, Fetched] = {}
        """Place -> what came from there."""

    async def fetch(self, manifest: Manifest) -> list[bytes]:
        """The segment's records, from the first place that has a good copy. Raises Unavailable."""
        tried: list[str] = []
        for place in self._places:
            try:
                records = await place.fetch(manifest)
            except (DamagedCopy, LogDamaged) as error:
                tried.append(f"{place.title}: {error.message}")
                await self._set_aside(place, manifest, error)
            except PvcError as error:
                tried.append(f"{place.title}: {error.message}")
            else:
                before = self.fetched.get(place.title, Fetched(0, 0))
                self.fetched[place.title] = Fetched(before.segments + 1, before.size_bytes + manifest.size_bytes)
                return records
        where = "; ".join(tried) or "no archive is configured"
        raise Unavailable(
            f"no good copy of the records {manifest.first} to {manifest.last} can be had: {where}",
            code="log.archive_unreachable",
            hint="bring a node back that has them in its archive, or copy its archive's files into this node's",
        )

    async def _set_aside(self, place: Copies, manifest: Manifest, error: PvcError) -> None:
        """A bad copy makes room for a good one, which the archivist brings."""
        logger.error("archive: damaged copy where=%r error=%s", place.title, error.message)
        self.damage.append(f"{place.title}: {error.message}")
        if self._mends and isinstance(place, Shelf):
            with contextlib.suppress(PvcError):
                await place.discard(manifest)
