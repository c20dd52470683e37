"""A pytest plugin: coverage in one line a package, where pytest-cov would print one a file."""

from collections import defaultdict
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print statements and the share of them that ran, for each package under `pvc`."""
    cov = coverage.Coverage()
    cov.load()
    if not cov.get_data().measured_files():
        return
    statements, missed = defaultdict(int), defaultdict(int)
    for file in sorted((ROOT / "pvc").rglob("*.py")):
        _, lines, _, not_run, _ = cov.analysis2(str(file))
        package = ".".join(file.relative_to(ROOT).parent.parts)
        statements[package] += len(lines)
        missed[package] += len(not_run)
    terminalreporter.section("coverage by package")
    for package in sorted(statements):
        terminalreporter.write_line(_line(package, statements[package], missed[package]))
    terminalreporter.write_line(_line("all", sum(statements.values()), sum(missed.values())))


def _line(name: str, statements: int, missed: int) -> str:
    return f"{name:<18} {statements:>6} statements  {100 * (1 - missed / statements) if statements else 100:5.1f} %"
