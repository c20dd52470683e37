"""What a repair does to a log in ZooKeeper beyond appending: hold it, found it again, cut off what shall not stand.

Each step is one multi that leaves a whole log, only a shorter one; so a repair that was broken off is begun again.
"""

from __future__ import annotations

import logging
import uuid

import msgspec

from pvc.errors import Conflict, LogDamaged
from pvc.events.record import EMPTY, Head, unseal
from pvc.log.segments import MAX_DELETES
from pvc.log.zookeeper_layout import SegmentHead, decode_head, encode_active, encode_head, way_on_from
from pvc.log.zookeeper_view import View
from pvc.zookeeper.types import Create, Delete, NodeExists, NoNode, SetData

_log = logging.getLogger(__name__)


class Mending:
    """The log that `view` is of, which appends as the view's holder. All methods raise Unavailable, LogDamaged."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def hold(self, *, take_over: bool = False) -> None:
        """From now on only this holder may append. Raises Conflict when another holds the log already."""

        async def hold() -> None:
            await self._view.refresh()
            holder = self._view.stored.holder
            if holder not in ("", self._view.holder) and not take_over:
                raise Conflict(
                    f"the log is held by {holder} already",
                    code="log.held",
                    hint=f"wait for it; if it has died, {way_on_from(holder)}",
                )
            await self._set_holder(self._view.holder)

        await self._view.insist(hold)

    async def release(self) -> None:
        """Everybody may append again."""

        async def release() -> None:
            await self._view.refresh()
            await self._set_holder("")

        await self._view.insist(release)

    async def found(self, incarnation: str) -> None:
        """Found the log where there is none, held by this holder; the incarnation is the one that it had, if known."""
        view = self._view

        async def found() -> None:
            missing = [create for create in view.layout.ancestors() if not await view.bridge.exists(create.path)]
            try:
                await view.bridge.multi(
                    [*missing, *view.layout.foundation(incarnation or str(uuid.uuid4()), view.archivist, view.holder)]
                )
            except NodeExists:
                raise LogDamaged(
                    f"{view.layout.log} is not whole in ZooKeeper, but something is left of it",
                    code="log.gone",
                    hint=f"move it away with ZooKeeper's own tools (zkCli.sh deleteall {view.layout.log}), then repeat",
                ) from None

        await view.insist(found, trusted=False)

    async def cut(self, position: int) -> Head:
        """Take away all records behind `position`, and what was said of them; returns the new head.

        Raises Conflict when the record at `position` has left ZooKeeper.
        """
        view = self._view
        while (head := await view.insist(view.refresh)).position > position:
            if position < view.starts[0] - 1:
                raise Conflict(
                    f"record {position} has left ZooKeeper: all nodes had it, and more",
                    code="log.too_old",
                    hint="restore a backup into an empty ensemble instead",
                )
            await view.insist(lambda: self._cut_some(position))
        await view.insist(self._leave_cut_segment)
        _log.warning("log: cut off behind position=%d", position)
        return head

    async def _cut_some(self, position: int) -> None:
        view, layout = self._view, self._view.layout
        await view.refresh()
        segment, stored, version = view.segment, view.stored, view.version
        if stored.next - 1 <= position:
            return
        if stored.next == segment:  # an empty one behind what is to stay: the one before takes its place
            await self._drop_empty(segment, version)
            return
        new_last = max(position, segment - 1, stored.next - 1 - MAX_DELETES)
        head = await self._head_at(new_last, segment)
        lowered = msgspec.structs.replace(
            stored, next=head.position + 1, hash=head.hash, record=head.record_id, size_bytes=0, cut=True
        )
        manifests = [layout.manifest(segment)] if await view.bridge.exists(layout.manifest(segment)) else []
        await view.bridge.multi(
            [
                SetData(layout.segment(segment), encode_head(lowered), version),
                *(Delete(path, 0) for path in manifests),
                *(Delete(layout.entry(segment, gone), 0) for gone in range(new_last + 1, stored.next)),
            ]
        )
        view.forget_position()

    async def _drop_empty(self, segment: int, version: int) -> None:
        """Make the segment before the active one again: unsealed, but not to be appended to."""
        view, layout = self._view, self._view.layout
        active, active_version = await view.active()
        before = max(start for start in view.starts if start < segment)
        data, before_version = await view.bridge.get(layout.segment(before))
        unsealed = msgspec.structs.replace(decode_head(data), sealed=False, cut=True, holder=view.holder)
        renamed = msgspec.structs.replace(active, segment=f"{before:020d}")
        await view.bridge.multi(
            [
                Delete(layout.segment(segment), version),
                SetData(layout.segment(before), encode_head(unsealed), before_version),
                SetData(layout.active, encode_active(renamed), active_version),
            ]
        )
        view.forget_position()

    async def _leave_cut_segment(self) -> None:
        """An empty segment whose numbers are used up is replaced by a new one of the same name."""
        view, layout = self._view, self._view.layout
        await view.refresh()
        if view.stored.cut and view.stored.next == view.segment:
            active, _ = await view.active()
            fresh = msgspec.structs.replace(view.stored, size_bytes=0, began_us=0, cut=False)
            path = layout.segment(view.segment)
            await view.bridge.multi(
                [Delete(path, view.version), layout.new_segment(view.segment, fresh, active.archivist)]
            )
            view.forget_position()

    async def _head_at(self, position: int, segment: int) -> Head:
        """The head of the log when `position` was its last."""
        view, layout = self._view, self._view.layout
        if position == 0:
            return EMPTY
        if position >= segment:
            (data,) = await view.entries(position, position)
            return unseal(data).head
        try:
            before = max((start for start in view.starts if start < segment), default=0)
            stored: SegmentHead = decode_head((await view.bridge.get(layout.segment(before)))[0])
        except NoNode:
            raise Conflict(
                f"record {position} has left ZooKeeper: all nodes had it, and more",
                code="log.too_old",
                hint="restore a backup into an empty ensemble instead",
            ) from None
        return stored.head

    async def _set_holder(self, holder: str) -> None:
        view = self._view
        path, stored = view.layout.segment(view.segment), msgspec.structs.replace(view.stored, holder=holder)
        operations: list[SetData | Create | Delete] = [SetData(path, encode_head(stored), view.version)]
        await view.bridge.multi(operations)
        await view.refresh()
