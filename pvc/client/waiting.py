"""Waiting for what a command leads to, by the events that tell of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pvc.client.api_types import EventPage, RecordView, Reply, ToldEvent
from pvc.client.core import Core, passes
from pvc.client.errors import ClientError, WaitTimedOut

LONG_POLL_S = 25
"""How long the gateway may hold an empty poll; below the idle time-out of any proxy between (usually 60 s)."""

PAUSE_S = 0.5


class Outcome(NamedTuple):
    """What an accepted command has led to."""

    success: bool
    event: ToldEvent
    record: RecordView
    waited_s: float


Progress = Callable[[RecordView], None]


async def poll_events(
    core: Core, filters: Mapping[str, str], *, after: int, wait_s: int = 0, limit: int = 100
) -> EventPage:
    """One page of records after a position; the gateway holds the reply up to `wait_s` until there is one."""
    query = {**filters, "after": after, "wait_s": wait_s, "limit": limit, "min_position": core.position or ""}
    page: EventPage = core.document(await core.call("GET", "/events", query, wait_s=wait_s))  # type: ignore[assignment]
    return page


async def wait_for(
    core: Core, reply: Reply, *, timeout_s: float, on_progress: Progress | None = None
) -> Outcome | None:
    """Wait for what a command leads to; None when there is nothing to wait for. Raises WaitTimedOut.

    Where its own record has the outcome (a VM at rest is moved at once), that is told without waiting.

    It follows all that happens to the command's subject, not its own consequences alone: when somebody else's
    command brings about the end, that ends the waiting too.
    """
    began = core.io.now()
    if reply["record"] is None or not reply["outcomes"]:
        return None
    after = reply["position"]
    if any(event["type"] in reply["outcomes"] for event in reply["events"]):
        after -= 1  # its own record has it
    filters = _watched(reply)
    while (left_s := began + timeout_s - core.io.now()) > 0:
        try:
            page = await poll_events(core, filters, after=after, wait_s=min(math.ceil(left_s), LONG_POLL_S))
        except ClientError as error:
            if not passes(error):
                raise
            await core.io.sleep(random.uniform(0, PAUSE_S))  # noqa: S311 - jitter, not a secret
            continue
        for record in page["records"]:
            if on_progress is not None and record["id"] != reply["record"]:
                on_progress(record)
            for event in record["events"]:
                if filters.get("subject", event["subject"]) != event["subject"]:
                    continue  # a record may be about many VMs
                if event["type"] in reply["outcomes"] and _same_run(reply, event):
                    success = reply["outcomes"][event["type"]]
                    return Outcome(success, event, record, core.io.now() - began)
        after = max(after, page["next_after"])
    raise WaitTimedOut(
        f"{reply['name']} was accepted, but its outcome did not come within {timeout_s:g} s",
        hint="it goes on; `pvc history all` shows what comes of it",
    )


def _watched(reply: Reply) -> dict[str, str]:
    subjects = {event["subject"] for event in reply["events"]}
    if len(subjects) == 1:
        return {"subject": subjects.pop()}
    return {"correlation": str(reply["record"])}


def _same_run(reply: Reply, event: ToldEvent) -> bool:
    """Whether an outcome is about the run of the VM that the command asked for, where both say which."""
    asked = [told["data"]["epoch"] for told in reply["events"] if "epoch" in told["data"]]
    return not asked or event["data"].get("epoch", asked[0]) >= asked[0]
