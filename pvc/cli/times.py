"""Times and sizes as people read and type them: local time, durations, MiB and seconds with units. Pure."""

from __future__ import annotations

import re
import time

_RELATIVE = re.compile(
    r"^(\d{1,6})\s*(s|m|h|d|w|sec|min|(?:second|minute|hour|day|week)s?)(?:\s+ago)?$"  # 2h, 2 h, 2 hours ago
)
_CLOCK = re.compile(r"^(\d{1,2}):(\d{2})(?::(\d{2}))?$")
_MEMORY = re.compile(r"^(\d+)\s*(m|mb|mib|g|gb|gib|t|tb|tib)?$", re.IGNORECASE)
_DURATION = re.compile(r"^(\d+)\s*(s|m|h|d)?$")
_MIB = {"m": 1, "g": 1024, "t": 1024**2}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

DAY_S = 86_400


def when(time_us: int, now_us: int) -> str:
    """An instant in local time: the clock for today, with the date in front for any other day. 0 is "never"."""
    if not time_us:
        return "never"
    then, now = time.localtime(time_us / 1e6), time.localtime(now_us / 1e6)
    same_day = then[:3] == now[:3]
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", then)


def ago(time_us: int, now_us: int) -> str:
    """An instant and how long ago that was: `2026-07-24 07:47:49 (3 min ago)`."""
    return f"{when(time_us, now_us)} ({age(time_us, now_us)})" if time_us else "never"


def age(time_us: int, now_us: int) -> str:
    """How long ago an instant was, for a column of a table: `3 min ago`. 0 is "never"."""
    if not time_us:
        return "never"
    seconds = max(0, now_us - time_us) / 1e6
    for size, unit in ((DAY_S, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def in_future(time_us: int, now_us: int) -> str:
    """An instant that is to come, and how long it is until then: `07:47:49 (in 3 min 5 s)`."""
    return f"{when(time_us, now_us)} (in {took(time_us - now_us)})"


def took(us: int) -> str:
    """A duration: `25 ms`, `0.4 s`, `12 s`, `2 min 5 s`, `3 h 20 min`, `4 d 2 h`."""
    seconds = max(0, us) / 1e6
    if seconds < 0.0995:
        return f"{round(seconds * 1000)} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, unit, smaller, small_unit in ((60, "min", 1, "s"), (3600, "h", 60, "min"), (DAY_S, "d", 3600, "h")):
        if whole < size * (60 if unit == "min" else 24) or unit == "d":
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    raise AssertionError("days take any length")


def mib(amount: int) -> str:
    """Memory as a person reads it: `512 MiB`, `1.5 GiB`, `2 TiB`."""
    for size, unit in ((1024**2, "TiB"), (1024, "GiB")):
        if amount >= size:
            return f"{amount / size:.1f} {unit}".replace(".0 ", " ")
    return f"{amount} MiB"


def size(amount: int) -> str:
    """Bytes as a person reads them: `512 KiB`, `1.5 GiB`."""
    return mib(amount >> 20) if amount >= 1 << 20 else f"{amount >> 10} KiB"


def parse_mib(text: str) -> int | None:
    """`2048`, `2048M`, `2G` or `2GiB` in MiB; None where it is nothing of the kind."""
    match = _MEMORY.match(text.strip())
    return int(match[1]) * _MIB[(match[2] or "m")[0].lower()] if match else None


def parse_seconds(text: str) -> int | None:
    """`90`, `90s`, `2m`, `1h` or `30d` in seconds; None where it is nothing of the kind."""
    match = _DURATION.match(text.strip())
    return int(match[1]) * _SECONDS[match[2] or "s"] if match else None


def as_time(seconds: int) -> str:
    """Seconds as `parse_seconds` reads them, in the largest unit that leaves no rest: `365d`, `90s`."""
    unit = max((unit for unit, size in _SECONDS.items() if not seconds % size), key=_SECONDS.__getitem__)
    return f"{seconds // _SECONDS[unit]}{unit}"


def parse_when(text: str, now_s: float) -> str | None:
    """What a person means by `2h`, `today`, `07:30` or a local date and time, as the API wants it; None if nothing."""
    from datetime import datetime, timedelta

    text = text.strip()
    if relative := _RELATIVE.match(text):
        return relative[1] + relative[2][0]
    now = datetime.fromtimestamp(now_s).astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return _utc(midnight if text == "today" else midnight - timedelta(days=1))
    try:
        if clock := _CLOCK.match(text):
            return _utc(midnight.replace(hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3] or 0)))
        return _utc(datetime.fromisoformat(text).astimezone())
    except (ValueError, OverflowError, OSError):
        return None


def _utc(moment: object) -> str:
    from datetime import UTC, datetime

    assert isinstance(moment, datetime), "made above"
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
