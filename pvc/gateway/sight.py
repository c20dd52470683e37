"""What of the history somebody may see: all of it, or the events about the VMs that their role covers."""

from __future__ import annotations

from msgspec.structs import replace

from pvc.commands.access_rights import Rights
from pvc.commands.seen_subjects import sees_subject
from pvc.gateway.records import RecordView, decode_record, record_view
from pvc.gateway.services import GatewayServices
from pvc.log.history import Found, HistoryQuery
from pvc.projections.state import ClusterState

MAX_AMONG = 500
"""VMs that are looked for one by one in the index, at some 20 us each. Whoever covers more finds some on every page."""

MAX_LOOKS = 20
"""Searches for one page: it may come out short, rather than hold up the gateway for others."""


def covered(state: ClusterState, rights: Rights) -> tuple[str, ...]:
    """The subjects that somebody who is limited may see."""
    return tuple(f"vm/{vm.id}" for vm in state.vms.values() if rights.covers(vm))


def seen(state: ClusterState, rights: Rights, record: RecordView) -> RecordView | None:
    """A record with the events that may be shown; None where there are none."""
    if rights.everything:
        return record
    events = [event for event in record.events if sees_subject(state, rights, event.subject)]
    return replace(record, events=events) if events else None


def seen_of(services: GatewayServices, rights: Rights, found: list[Found]) -> list[RecordView]:
    """Records for a reader, without what may not be shown."""
    views = (seen(services.world.state, rights, record_view(one)) for one in found)
    return [view for view in views if view is not None]


async def seen_page(
    services: GatewayServices, rights: Rights, query: HistoryQuery, limit: int
) -> tuple[list[RecordView], int | None, bool]:
    """Up to `limit` records in the query's order; beyond which position there may be more (None: there are none); and
    whether anything was found at all, shown or not."""
    views: list[RecordView] = []
    any_found = False
    if not rights.everything:
        among = covered(services.world.state, rights)
        if not among:
            return [], None, False
        query = replace(query, among=among if len(among) <= MAX_AMONG else ())
    for _ in range(1 if rights.everything else MAX_LOOKS):
        found = await services.history.query(replace(query, limit=limit + 1))
        any_found = any_found or bool(found)
        more = len(found) > limit
        for one in found[:limit]:
            view = seen(services.world.state, rights, record_view(one))
            if view is not None:
                views.append(view)
                if len(views) == limit:
                    left = more or one is not found[-1]
                    return views, view.position if left else None, True
        if not more:
            return views, None, any_found
        considered = decode_record(found[limit - 1].data).position
        query = replace(query, after=considered) if query.ascending else replace(query, before=considered)
    return views, query.after if query.ascending else query.before, any_found
