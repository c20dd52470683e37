"""Times and sizes as people read and type them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pvc.cli.times import age, ago, as_time, in_future, mib, parse_mib, parse_seconds, parse_when, took, when

NOW_S = 1_784_880_000  # 2026-07-24 08:00:00 UTC
NOW_US = NOW_S * 1_000_000
HOUR_US = 3_600_000_000


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_today_is_told_by_the_local_clock_and_other_days_by_their_date() -> None:
    assert when(NOW_US, NOW_US) == "10:00:00"
    assert when(NOW_US - 9 * HOUR_US, NOW_US) == "01:00:00"
    assert when(NOW_US - 11 * HOUR_US, NOW_US) == "2026-07-23 23:00:00"
    assert when(0, NOW_US) == "never"


def test_how_long_ago_goes_with_the_time() -> None:
    assert ago(NOW_US - 5_000_000, NOW_US) == "09:59:55 (5 s ago)"
    assert ago(NOW_US - 3 * HOUR_US, NOW_US) == "07:00:00 (3 h ago)"
    assert age(NOW_US - 200_000_000, NOW_US) == "3 min ago"
    assert age(0, NOW_US) == "never"
    assert ago(NOW_US - 49 * HOUR_US, NOW_US) == "2026-07-22 09:00:00 (2 d ago)"


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 ms"),
        (25_400, "25 ms"),
        (99_600, "0.1 s"),
        (2_340_000, "2.3 s"),
        (9_960_000, "10 s"),
        (59_600_000, "1 min"),
        (125_000_000, "2 min 5 s"),
        (3_600_000_000, "1 h"),
        (12_000_000_000, "3 h 20 min"),
        (352_800_000_000, "4 d 2 h"),
        (-5, "0 ms"),
    ],
)
def test_durations_are_as_exact_as_they_are_useful(us: int, text: str) -> None:
    assert took(us) == text


def test_a_time_to_come_is_told_with_how_long_it_is_until_then() -> None:
    assert in_future(NOW_US + 125_000_000, NOW_US) == "10:02:05 (in 2 min 5 s)"
    assert in_future(NOW_US + 24 * HOUR_US, NOW_US) == "2026-07-25 10:00:00 (in 1 d)"


def test_memory_is_shown_in_the_unit_that_fits() -> None:
    assert [mib(amount) for amount in (512, 1024, 1536, 2 * 1024**2)] == ["512 MiB", "1 GiB", "1.5 GiB", "2 TiB"]


def test_sizes_and_times_may_have_units() -> None:
    assert [parse_mib(text) for text in ("2048", "2g", "2GiB", "512M", "1T")] == [2048, 2048, 2048, 512, 1024**2]
    assert [parse_mib(text) for text in ("2x", "-1", "", "1.5G")] == [None] * 4
    assert [parse_seconds(text) for text in ("90", "90s", "2m", "1h", "30d")] == [90, 90, 120, 3600, 2_592_000]
    assert parse_seconds("1w") is None


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("2h", "2h"),
        ("3 d", "3d"),
        ("2 hours ago", "2h"),
        ("1 week ago", "1w"),
        ("5min ago", "5m"),
        ("2 mecs", None),
        ("today", "2026-07-23T22:00:00Z"),
        ("yesterday", "2026-07-22T22:00:00Z"),
        ("07:30", "2026-07-24T05:30:00Z"),
        ("2026-07-01", "2026-06-30T22:00:00Z"),
        ("2026-01-01 12:00", "2026-01-01T11:00:00Z"),
        ("2026-07-24T07:00:00Z", "2026-07-24T07:00:00Z"),
        ("nonsense", None),
        ("25:99", None),
    ],
)
def test_a_time_is_meant_in_the_zone_of_who_types_it(typed: str, sent: str | None) -> None:
    assert parse_when(typed, NOW_S) == sent


@pytest.mark.parametrize(("seconds", "typed"), [(31_536_000, "365d"), (7_200, "2h"), (90, "90s"), (120, "2m")])
def test_a_length_of_time_is_shown_as_one_may_type_it(seconds: int, typed: str) -> None:
    assert as_time(seconds) == typed
    assert parse_seconds(typed) == seconds
