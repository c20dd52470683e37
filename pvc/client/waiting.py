"""Waiting for what a command has begun: by its operation, and by nothing else, is it known when it is over.

Whoever wants to tell what happens on the way is given the records about the command's subject, too.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import quote

from pvc.client.api_types import EventPage, OperationInfo, RecordView, Reply, ToldEvent
from pvc.client.core import Core, passes
from pvc.client.errors import ClientError, Unreachable, WaitTimedOut
from pvc.client.ports import Io

LONG_POLL_S = 25
"""How long the gateway may hold an answer; below the idle time-out of any proxy between (usually 60 s)."""

PAUSE_S = 1.0
"""Where no gateway answers, or one that does not wait; drawn at random below that."""

PACE_S = 0.2
"""Between two looks at what is about many VMs: it changes with each of them, and a thousand make a reply of 600 kB."""

LATE_S = 5.0
"""How much longer than one waits a look may take, as it may be the last: gateways that are well answer within this."""

PAGE = 100
"""Records of a page of what happened since the last look."""

OPEN = frozenset({"pending", "running"})

T = TypeVar("T")


class Standing(NamedTuple):
    """As much of an operation as the waiting goes by."""

    position: int
    """Of the last record that told something of it."""
    over: bool
    many: bool
    """Whether it is about many VMs."""


class Outcome(NamedTuple):
    """What an accepted command has led to."""

    success: bool
    text: str
    """What happened, in a sentence."""
    code: str
    """Why it failed or was cancelled; empty else."""
    event: ToldEvent | None
    """What ended it, and the record of it; None where one may not see it, or where it takes more than one."""
    record: RecordView | None
    operation: OperationInfo
    waited_s: float


Progress = Callable[[RecordView], None]

OnChange = Callable[[OperationInfo], None]


async def until_over(
    io: Io,
    look: Callable[[int, int | None, float], Awaitable[T]],
    standing: Callable[[T], Standing],
    timeout_s: float,
    on_change: Callable[[T], Awaitable[None]],
) -> T | None:
    """Follow an operation to its end, over restarts of gateways: how it stands then, or when the time is over.

    `look(wait_s, seen)` asks for it. None: in all the time no gateway answered. Raises what does not go away by itself.
    """
    until = io.now() + timeout_s
    found: T | None = None
    seen: int | None = None
    while True:
        left_s = until - io.now()
        try:
            held_s = max(0, min(LONG_POLL_S, int(left_s))) if seen is not None else 0
            asked_s = io.now()
            found = await look(held_s, seen, max(left_s, 0.0) + LATE_S)
            at = standing(found)
            # One that is about to stop, or has too many who wait, answers at once.
            idle = at.position == seen and io.now() - asked_s < held_s / 2
            if at.position != seen:
                await on_change(found)
        except ClientError as error:
            if not passes(error) or (seen is None and isinstance(error, Unreachable) and error.other_kind):
                raise
            left_s = until - io.now()  # the look may have taken all of it
            if left_s <= 0:
                return found
            await io.sleep(min(random.uniform(0, PAUSE_S), left_s))  # noqa: S311 - jitter, not a secret
            continue
        seen = at.position
        if at.over or left_s <= 0:
            return found
        if left_s < 1:
            await io.sleep(left_s)  # less than a gateway can be asked to wait
        elif idle:
            await io.sleep(random.uniform(PAUSE_S / 2, PAUSE_S))  # noqa: S311 - jitter, not a secret
        elif at.many:
            await io.sleep(PACE_S)


async def follow_operation(
    core: Core, operation: str, *, timeout_s: float, on_change: Callable[[OperationInfo], Awaitable[None]]
) -> OperationInfo | None:
    """`until_over` for plain JSON. Raises ApiError."""

    async def look(wait_s: int, seen: int | None, within_s: float) -> OperationInfo:
        query = {"wait": wait_s or None, "seen": seen if wait_s else None}
        path = f"/operations/{quote(operation, safe='')}"
        answer = await core.query(path, query, wait_s=wait_s, within_s=within_s)
        document = core.document(answer)
        if not _is_operation(document):
            raise core.not_a_gateway(answer)
        return cast("OperationInfo", document)

    return await until_over(core.io, look, _standing, timeout_s, on_change)


def timed_out(name: str, operation: str, timeout_s: float) -> WaitTimedOut:
    """What to say where an operation goes on for longer than one waits."""
    return WaitTimedOut(
        f"{name} was accepted, but its outcome did not come within {timeout_s:g} s",
        hint=f"it goes on; `pvc operation info {operation}` shows how far it has come",
    )


async def wait_for(
    core: Core, reply: Reply, *, timeout_s: float, on_progress: Progress | None = None
) -> Outcome | None:
    """Wait for the end of the operation that a command has begun; None where it has begun none: it is done already.

    `on_progress` is told each record about the command's subject that came meanwhile. Raises WaitTimedOut, ApiError.
    """
    operation = reply.get("operation")
    if operation is None:
        return None
    began = core.io.now()
    telling = _Telling(core, reply, on_progress, until=began + timeout_s)
    info = await follow_operation(core, operation["id"], timeout_s=timeout_s, on_change=telling.up_to)
    if info is None or info["state"] in OPEN:
        raise timed_out(reply["name"], operation["id"], timeout_s)
    success, problem = info["state"] == "succeeded", info["problem"]
    text = problem["detail"] if problem is not None else info["progress"]["text"]
    code = problem["code"] if problem is not None else ""
    event, record = telling.end(success, code)
    told = event["summary"] if event is not None else text
    return Outcome(success, told, code, event, record, info, core.io.now() - began)


class _Telling:
    """Reads what happened between one look at an operation and the next."""

    def __init__(self, core: Core, reply: Reply, on_progress: Progress | None, *, until: float) -> None:
        self._core = core
        self._until = until
        self._reply = reply
        self._on_progress = on_progress
        subjects = {event["subject"] for event in reply["events"]}
        self._subject = subjects.pop() if len(subjects) == 1 else ""
        own = any(event["type"] in reply["outcomes"] for event in reply["events"])  # what ends it may be in there
        self._after = reply["position"] - own
        self._ends: list[tuple[ToldEvent, RecordView]] = []

    async def up_to(self, info: OperationInfo) -> None:
        """Tell what happened up to there."""
        filters = {"subject": self._subject} if self._subject else {"correlation": str(self._reply["record"])}
        while self._after < info["position"]:
            query = {**filters, "after": self._after, "limit": PAGE, "wait_s": 0}  # it is there, or not to be seen
            left_s = max(self._until - self._core.io.now(), 0.0)
            answer = await self._core.query("/events", query, within_s=left_s + LATE_S)
            page = cast("EventPage", self._core.document(answer))
            if not {"records", "next_after"} <= page.keys():
                raise self._core.not_a_gateway(answer)
            for record in page["records"]:
                if self._on_progress is not None and record["id"] != self._reply["record"]:
                    self._on_progress(record)
                self._ends += [(event, record) for event in record["events"] if self._may_end(event)]
            before, self._after = self._after, max(self._after, page["next_after"])
            if self._after == before:
                break  # this gateway is behind: the rest comes with the next look

    def end(self, success: bool, code: str) -> tuple[ToldEvent | None, RecordView | None]:
        """What ended it, of that which was told."""
        for event, record in reversed(self._ends):
            fits = success or code == (event["data"].get("code") or event["type"])
            if fits and self._reply["outcomes"][event["type"]] == success:
                return event, record
        return None, None

    def _may_end(self, event: ToldEvent) -> bool:
        # A record may be about many VMs.
        return event["type"] in self._reply["outcomes"] and event["subject"] == (self._subject or event["subject"])


def _standing(info: OperationInfo) -> Standing:
    return Standing(info["position"], info["state"] not in OPEN, info["progress"]["total"] != 1)


def _is_operation(document: Mapping[str, Any]) -> bool:
    """Whether it has what the waiting goes by, and what is told of its end."""
    progress, problem = document.get("progress"), document.get("problem", {})
    return (
        isinstance(document.get("position"), int)
        and isinstance(document.get("state"), str)
        and isinstance(progress, dict)
        and {"done", "total", "failed", "text"} <= progress.keys()
        and (problem is None or (isinstance(problem, dict) and {"code", "detail"} <= problem.keys()))
    )
