"""What of the history somebody may see: all of it, or the events about the VMs that their role covers."""

from __future__ import annotations

from msgspec.structs import replace

from pvc.commands.access_rights import Rights
from pvc.commands.seen_subjects import sees_subject
from pvc.gateway.records import RecordView, decode_record, record_view
from pvc.gateway.services import GatewayServices
from pvc.log.history import Found, HistoryQuery
from pvc.log.history_keys import EventFilter, matches
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
    any_found = one_by_one = False
    if not rights.everything:
        if query.subject:
            asked = await services.history.subjects(query.subject)
            among = tuple(one for one in asked if sees_subject(services.world.state, rights, one))
        else:
            among = covered(services.world.state, rights)
        if not among:
            return [], None, False
        too_many = len(among) > MAX_AMONG and not query.subject
        query = replace(query, among=() if too_many else among)
        one_by_one = too_many and bool(query.types or query.tag)
    for _ in range(1 if rights.everything else MAX_LOOKS):
        search = replace(query, limit=limit + 1)
        hidden: set[int] = set()
        if one_by_one:
            found, hidden = await _found_by_what_is_seen(services, rights, search)
        else:
            found = await services.history.query(search)
        any_found = any_found or bool(found)
        more = len(found) > limit
        for index, one in enumerate(found[:limit]):
            view = seen(services.world.state, rights, record_view(one)) if index not in hidden else None
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


async def _found_by_what_is_seen(
    services: GatewayServices, rights: Rights, query: HistoryQuery
) -> tuple[list[Found], set[int]]:
    """What the index finds where it was not told which VMs may be seen; and which of these it finds
    by nothing but what may not."""
    found, state = await services.history.events(query), services.world.state
    wanted = EventFilter(types=query.types, tag=query.tag)
    hidden = set()
    for index, one in enumerate(found):
        events = tuple(event for event in one.keys.events if sees_subject(state, rights, event.subject))
        if not matches(wanted, one.keys._replace(events=events)):
            hidden.add(index)
    return [one.found for one in found], hidden
