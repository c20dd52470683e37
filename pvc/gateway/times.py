"""Times as people give them: ISO 8601, or how long ago (`2h`, `1d`)."""

from __future__ import annotations

import datetime
import re

from pvc.errors import InvalidInput

TIME_PATTERN = (
    "[0-9]{1,6}[smhdw]|(19|20)[0-9][0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    "(T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,6})?)?(Z|[+-](0[0-9]|1[0-2]):[0-5][0-9])?)?"
)
"""What manuals tell of times, as a regular expression: a little less than is understood."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_HINT = "write it as 2025-01-31, 2025-01-31T12:00:00Z, or how long ago: 30m, 2h, 1d, 1w"


def parse_time_us(field: str, text: str, now_us: int) -> int:
    """Microseconds since the Unix epoch. A time without a zone is UTC. Raises InvalidInput."""
    if ago := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        return now_us - int(ago[1]) * _UNITS_S[ago[2]] * 1_000_000
    # A plus sign in a query that was not escaped has become a space.
    text = re.sub(r" (\d\d:?\d\d)$", r"+\1", text)
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise _not_a_time(field, text) from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    return int((time - _EPOCH) / datetime.timedelta(microseconds=1))


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _not_a_time(field: str, text: str) -> InvalidInput:
    return InvalidInput(f"`{field}` cannot be {text[:40]!r}", code="input.invalid", hint=_HINT, field=field)
