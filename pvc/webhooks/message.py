"""What is posted: events as CloudEvents 1.0 in JSON, one or many, and the ping. Pure; the bytes are made once."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import msgspec

from pvc.events.record import Actor, Record
from pvc.projections.story import tell

ONE = "application/cloudevents+json"
MANY = "application/cloudevents-batch+json"
"""Content types of CloudEvents' structured and batched modes."""

PING = "webhook.ping"
"""The type of what is sent to find out whether a receiver wants events; it is no record of the log."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One event of one record, to be sent."""

    record: Record
    index: int
    chain: str = ""
    """Id of the record that its chain of causes began with, where that is known."""

    @property
    def position(self) -> int:
        """Of its record."""
        return self.record.position

    @property
    def type(self) -> str:
        """The event's type."""
        return self.record.events[self.index].type


class EventData(msgspec.Struct, frozen=True, kw_only=True):
    """`data` of a CloudEvent: the event, and who caused it and how."""

    position: int
    index: int
    record: str
    cause: str
    origin: str
    actor: Actor
    command: str
    command_id: str
    summary: str
    failure: bool
    data: Any


def event_id(cluster: str, position: int, index: int) -> str:
    """The same for every try and every replay; no dots, as the signed text has dots between its parts."""
    return f"{cluster}-{position}-{index}"


def message_id(cluster: str, items: Sequence[Item]) -> str:
    """`webhook-id`: the event's, or that of the first event and the last."""
    first, last = items[0], items[-1]
    of_first = event_id(cluster, first.position, first.index)
    return of_first if len(items) == 1 else f"{of_first}-to-{last.position}-{last.index}"


def source_of(cluster: str) -> str:
    """CloudEvents' `source`: unique together with the id."""
    return f"urn:pvc:cluster:{cluster}"


def cloud_event(cluster: str, item: Item) -> dict[str, Any]:
    """An event as a JSON object."""
    record, told = item.record, tell(item.record.events[item.index])
    data = EventData(
        position=record.position,
        index=item.index,
        record=record.id,
        cause=record.cause,
        origin=record.origin,
        actor=record.actor,
        command=record.command.name,
        command_id=record.command.id,
        summary=told.summary,
        failure=told.failure,
        data=told.data,
    )
    return {
        "specversion": "1.0",
        "id": event_id(cluster, record.position, item.index),
        "source": source_of(cluster),
        "type": told.type,
        "subject": told.subject,
        "time": rfc3339(record.time_us),
        "datacontenttype": "application/json",
        "sequence": str(record.position),
        "data": data,
    }


def body_of(cluster: str, items: Sequence[Item], *, batched: bool) -> bytes:
    """The body: an object, or an array where the endpoint takes batches."""
    events = [cloud_event(cluster, item) for item in items]
    return msgspec.json.encode(events if batched else events[0])


def ping_body(cluster: str, name: str, ping_id: str, challenge: str, time_us: int, *, batched: bool) -> bytes:
    """A ping: a receiver that wants events answers with the challenge in its body."""
    event = {
        "specversion": "1.0",
        "id": ping_id,
        "source": source_of(cluster),
        "type": PING,
        "subject": f"webhook/{name}",
        "time": rfc3339(time_us),
        "datacontenttype": "application/json",
        "data": {"webhook": name, "challenge": challenge},
    }
    return msgspec.json.encode([event] if batched else event)


def rfc3339(time_us: int) -> str:
    """`2025-01-31T12:00:00.000001Z`."""
    time = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time_us % 1_000_000:06d}Z"
