"""Profiles of hypothesis: `ci` (the default) is bounded and repeatable, `deep` looks as long as one has patience."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    max_examples=60,
    stateful_step_count=40,
    deadline=None,  # two cores shared with others: time says nothing
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", parent=settings.get_profile("ci"), max_examples=3_000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """In a test marked `unmeasured` coverage stands still: to measure it triples the time of a simulation.
    (`./dev test` runs them apart from the others, without coverage; any other choice of tests may have both.)

    pytest-cov has a mark for that, `no_cover`, but in the workers of pytest-xdist it does nothing: there are two
    measurements in them, one on top of the other, and it pauses the upper one alone.
    """
    if item.get_closest_marker("unmeasured") is None:
        return (yield)
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
