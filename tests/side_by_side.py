"""Which tests with real components take turns, and which go side by side: a pytest plugin, with pytest-xdist.

The tests of one file take turns, for they share what the file starts; so do all that have a lab, for a machine has one
set of names and bridges. The longest come first, lest the last one be waited for alone.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each test into its group, and the groups in order."""
    items.sort(key=_rank)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


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


def _group(item: pytest.Item) -> str:
    return "lab" if item.get_closest_marker("lab") is not None else item.path.name


def _rank(item: pytest.Item) -> int:
    """Labs, then those with libvirt, then the others, each as they were found."""
    if item.get_closest_marker("lab") is not None:
        return 0
    return 1 if item.get_closest_marker("libvirt") is not None else 2
