"""`--at`: any read of the cluster at a moment of the past, and the line that says on the screen that it is the past."""

from __future__ import annotations

import click

from pvc.cli.session import Session, now_us
from pvc.cli.times import ago
from pvc.cli.values import Moment


def at_option() -> click.Option:
    """`--at`."""
    return click.Option(
        ["--at"],
        type=Moment(),
        metavar="MOMENT",
        help="As it was then: a position of the log, 2h, yesterday, 07:30, '2026-07-24 07:30'.",
    )


def note_past(session: Session) -> bool:
    """Say so where the last reply was of the past; returns whether it was. Programs find the position in the data."""
    moment = session.client.moment
    if moment is not None and not session.wants_data:
        session.note(f"As it was at position {moment.position}, {ago(moment_us(moment.time), now_us())}")
    return moment is not None


def moment_us(time: str) -> int:
    """ISO 8601 as microseconds since the Unix epoch; 0 where it is none."""
    from datetime import datetime  # only where there is a moment to show

    try:
        return round(datetime.fromisoformat(time).timestamp() * 1e6)
    except ValueError:
        return 0
