"""Moments of the log as a reader names them, by position or by time, and the state that was then.

The state at a time is that of the last record which says that it was written by then. Nodes' clocks differ, so some
record before it may bear a slightly later time; no record after it bears an earlier one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pvc.clock import Clock
from pvc.errors import InvalidInput, NotFound, Unavailable
from pvc.gateway.records import decode_record, iso_time
from pvc.gateway.services import GatewayServices
from pvc.gateway.times import TIME_PATTERN, parse_time_us
from pvc.projections.state import ClusterState
from pvc.runtime.past import not_indexed

LAG_S = 0.5
"""How long a node waits for a position that another may have told of: its fold is some milliseconds behind."""

INDEX_DEADLINE_S = 10.0
"""How long to wait for the history index, which is some milliseconds behind."""

MOMENT_HINT = "write a position of the log, a time (2025-01-31T12:00:00Z), or how long ago: 30m, 2h, 1d"

MOMENT_PATTERN = f"^({TIME_PATTERN}|[0-9]{{1,18}}|now)$"
"""What manuals tell of moments."""

At = Annotated[
    str,
    Meta(
        max_length=40,
        description="The moment to look at, instead of now: a position of the log, a time in ISO 8601, or how long ago "
        "(30m, 2h, 1d).",
        examples=["2h"],
        extra_json_schema={"pattern": MOMENT_PATTERN.replace(")$", ")?$")},
    ),
]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A position of the log and when its record was written."""

    position: int
    time_us: int

    @property
    def headers(self) -> dict[str, str]:
        """What a reply about the past says of itself, beside its position."""
        return {"PVC-At": str(self.position), "PVC-At-Time": iso_time(self.time_us)}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A state, and the moment that it is of; None: it is the present one."""

    state: ClusterState
    moment: Moment | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What the reply says of itself."""
        return self.moment.headers if self.moment else {}

    def time_us(self, clock: Clock) -> int:
        """When that is, or was."""
        return self.moment.time_us if self.moment is not None else clock.wall_us()


async def seen_at(services: GatewayServices, at: str) -> Seen:
    """The state at a moment, the present one where none is named. Not to be changed.

    Raises InvalidInput, NotFound (`at.not_yet`, `at.before_cluster`), or Unavailable where it cannot be made now.
    """
    if not at:
        return Seen(state=services.world.state)
    moment = await find_moment(services, at)
    return Seen(state=await state_at(services, moment.position), moment=moment)


@contextlib.contextmanager
def told_of_then(services: GatewayServices, seen: Seen, named: str) -> Iterator[None]:
    """Let an error about a name that there was not say when; what is called so now may have had another name then."""
    try:
        yield
    except NotFound as error:
        if seen.moment is None:
            raise
        then = seen.state.vms.get(services.world.state.vm_names.get(named, "")) if error.field == "vm" else None
        message = error.message.replace("there is no", "there was no", 1)
        raise NotFound(
            f"{message} at position {seen.moment.position} ({iso_time(seen.moment.time_us)})",
            code=error.code,
            hint=f"what is {named} now was called {then.name} then" if then else error.hint,
            field=error.field,
        ) from None


async def state_at(services: GatewayServices, position: int) -> ClusterState:
    """The state at a position that is in the log. Not to be changed."""
    if position == services.world.position:
        return services.world.state.fork()
    return await services.past.at(position)


async def find_moment(services: GatewayServices, at: str, field: str = "at") -> Moment:
    """The moment that a text names."""
    if re.fullmatch(r"[0-9]{1,18}", at):
        with contextlib.suppress(Unavailable):
            await services.world.reach(int(at), LAG_S)
    head = services.world.position
    await services.history.reach(head, INDEX_DEADLINE_S)
    if at == "now":
        position = head
    elif re.fullmatch(r"[0-9]{1,18}", at):
        position = int(at)
    else:
        position = await _position_at(services, at, field)
    if position > head:
        raise NotFound(
            f"the log ends at position {head}; there is no position {position} yet",
            code="at.not_yet",
            hint="the newest moment is now; a time names one without knowing its position",
            field=field,
        )
    if position < 1:
        raise _before_cluster(f"position {position}", field)
    data = await services.history.data(position)
    if data is None:
        raise not_indexed(position)
    return Moment(position=position, time_us=decode_record(data).time_us)


async def _position_at(services: GatewayServices, at: str, field: str) -> int:
    now_us = services.clock.wall_us()
    try:
        time_us = parse_time_us(field, at, now_us)
    except InvalidInput as error:
        raise InvalidInput(error.message, code=error.code, hint=MOMENT_HINT, field=field) from None
    if time_us > now_us:
        raise NotFound(
            f"{at[:40]} is not yet: this node's clock says {iso_time(now_us)}",
            code="at.not_yet",
            hint="the log knows the past only; `pvc whatif` tries something out",
            field=field,
        )
    position = await services.history.position_at(time_us)
    if not position:
        raise _before_cluster(repr(at), field)
    return position


def _before_cluster(when: str, field: str) -> NotFound:
    return NotFound(
        f"there was no cluster at {when}: its log begins later",
        code="at.before_cluster",
        hint="position 1 is its first moment",
        field=field,
    )
