"""Which tests with real components take turns, and which go side by side: a pytest plugin, with pytest-xdist.

The tests of one file take turns, for they share what the file starts; so do all that have a lab, for a machine has one
set of names and bridges. The longest come first, lest the last one be waited for alone.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

LABS = "tests/lab/"


class InTurns(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each worker one file after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return LABS if nodeid.startswith(LABS) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> InTurns:
    """The scheduler in place of that which `--dist` names."""
    return InTurns(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order."""
    items.sort(key=_rank)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that tests have told: what a worker prints is lost."""
    figures = [
        str(value)
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
    for figure in figures:
        terminalreporter.write_line(figure)


def _rank(item: pytest.Item) -> int:
    """Labs, then those with libvirt, then the others, each as they were found."""
    if item.nodeid.startswith(LABS):
        return 0
    return 1 if item.get_closest_marker("libvirt") is not None else 2
