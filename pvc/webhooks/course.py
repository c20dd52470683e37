"""When to try again, when to give an event up, and when a whole endpoint: a pure machine, one step for each answer.

An endpoint gets one request at a time. So what fails holds up what comes after it, and the order is kept: after a
failure only the first event is tried, alone, at the times of the schedule; after its last try it is parked.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec.structs import replace

DELAYS_S = (0.0, 5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Before each try, counted from the one before: those that Standard Webhooks proposes, 75 hours in all."""

JITTER = 0.2
"""A delay is drawn from 20 % below to 20 % above, so that endpoints which failed together do not come back together."""

MAX_RETRY_AFTER_S = 86_400.0
"""A receiver may ask for a break, but not for good."""

BREAKER_FAILURES = 5
"""Failures in a row, whichever events they were of, after which the receiver itself is taken to be down."""

BREAK_S = 60.0
"""While it is down, the least time between parking one event and trying the next."""

DISABLE_AFTER_US = 5 * 86_400_000_000
"""Who took nothing for so long, two events parked meanwhile, is not coming back by itself."""


class Verdict(StrEnum):
    """What an answer means."""

    DELIVERED = "delivered"
    RETRY = "retry"
    PARK = "park"
    """The first event is given up; the rest goes on."""
    DISABLE = "disable"
    """The endpoint is given up, and the event is not: it is the next one after a resume."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one try."""

    status: int = 0
    """0: there was no answer."""
    error: str = ""
    """Why there was none, or what is wrong with it."""
    retry_after_s: float = 0.0
    latency_ms: int = 0
    body: str = ""
    """The beginning of it."""

    @property
    def good(self) -> bool:
        """Whether the receiver has it."""
        return 200 <= self.status < 300

    @property
    def words(self) -> str:
        """In a few words."""
        return self.error or f"it answered {self.status}"


class Course(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an endpoint stands. Part of its cursor, so a new primary goes on where the last one was."""

    tries: int = 0
    """Of the first event that is not delivered."""
    failures: int = 0
    """In a row, over all events."""
    failing_since_us: int = 0
    """0: it is not failing."""
    not_before_us: int = 0
    """The next try."""
    size: int = 1_000
    """Events of the next request at most, beside what the endpoint is set to."""
    error: str = ""
    """Of the last failure, while it fails."""

    @property
    def open(self) -> bool:
        """Whether the breaker is open: the receiver is taken to be down."""
        return self.failures >= BREAKER_FAILURES


def after(
    course: Course,
    answer: Answer,
    *,
    tries: int,
    alone: bool = True,
    now_us: int,
    random: float,
    delays_s: tuple[float, ...] = DELAYS_S,
) -> tuple[Course, Verdict]:
    """One step. `tries` is how many an event has, `alone` whether the request had only one; `random` is drawn from 0
    to 1. A failure of many together is no try of the first: it may be another one's fault."""
    if answer.good:
        return Course(size=min(course.size * 2, 1_000)), Verdict.DELIVERED
    failed = replace(
        course,
        tries=course.tries + 1 if alone else course.tries,
        failures=course.failures + 1,
        failing_since_us=course.failing_since_us or now_us,
        size=1,
        error=answer.words,
    )
    if answer.status == 410:
        return replace(failed, tries=0), Verdict.DISABLE
    jitter = 1 - JITTER + 2 * JITTER * random
    asked_s = min(answer.retry_after_s, MAX_RETRY_AFTER_S)
    if not alone or failed.tries < min(tries, len(delays_s)):
        wait_s = max(delays_s[max(failed.tries, 1) if len(delays_s) > 1 else 0] * jitter, asked_s)
        return replace(failed, not_before_us=now_us + round(wait_s * 1e6)), Verdict.RETRY
    if course.failing_since_us and now_us - course.failing_since_us >= DISABLE_AFTER_US:
        return replace(failed, tries=0), Verdict.DISABLE
    wait_s = max(BREAK_S * jitter if failed.open else 0.0, asked_s)
    return replace(failed, tries=0, not_before_us=now_us + round(wait_s * 1e6)), Verdict.PARK


def resumed(course: Course) -> Course:
    """An admin says that it works again: all that was counted against it is forgotten."""
    return Course(size=1 if course.failures else course.size)
