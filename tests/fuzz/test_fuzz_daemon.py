"""A real pvcd under attack: it answers who means well, and is as it was when the attackers have gone."""

from __future__ import annotations

import shutil

import pytest

from tests.fuzz.campaign import new_folder, run_campaign

SECONDS = 10.8
"""For all attacks together; `./dev fuzz` has more patience."""

MAX_GROWTH_MIB = 300.0
"""What buffers of thousands of connections leave behind in a process that has just started; a leak is in the rounds."""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_daemon_outlives_its_attackers_and_serves_the_others(tls: bool) -> None:
    folder = new_folder()
    try:
        report = run_campaign(folder, tls=tls, seconds=SECONDS, seed=1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert report.failures == []
    assert report.tried > 1_000 and report.verified > 0
    assert report.rounds[-1].memory_mib - report.memory_before_mib < MAX_GROWTH_MIB
