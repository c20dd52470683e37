"""Which events an endpoint is sent: what it wants, of what its owner may see. Pure.

What it wants goes by what was so when the record was written, such as the tags that a VM had then, as for the stream of
events. What its owner may see goes by what is so now.
"""

from __future__ import annotations

from pvc.commands.access_rights import Rights
from pvc.commands.seen_subjects import sees_subject
from pvc.events.webhook import WebhookSettings
from pvc.log.history_keys import EventKeys, RecordKeys
from pvc.log.history_search import type_means
from pvc.projections.state import ClusterState


def sent(settings: WebhookSettings, keys: RecordKeys, state: ClusterState, sight: Rights) -> list[int]:
    """The indices of the record's events that the endpoint is sent."""
    return [
        index
        for index, event in enumerate(keys.events)
        if wants(settings, event) and sees_subject(state, sight, event.subject)
    ]


def wants(settings: WebhookSettings, event: EventKeys) -> bool:
    """Whether an event is one of those that are wanted."""
    if settings.types and not any(type_means(asked, event.type) for asked in settings.types):
        return False
    # A kind alone stands for all of it; what a newer version knows is of no known thing, but of a kind.
    if settings.subjects and not {event.subject, event.subject.partition("/")[0]} & set(settings.subjects):
        return False
    return not settings.tags or not event.tags.isdisjoint(settings.tags)
