"""Coverage in one line a package, where pytest-cov would print one a file."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import coverage

ROOT = Path(__file__).parents[1]


def summary() -> Iterator[str]:
    """Statements and the share of them that ran, for each package under `pvc`; nothing where none was measured."""
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
    for package in sorted(statements):
        yield _line(package, statements[package], missed[package])
    yield _line("all", sum(statements.values()), sum(missed.values()))


def _line(name: str, statements: int, missed: int) -> str:
    return f"{name:<18} {statements:>6} statements  {100 * (1 - missed / statements) if statements else 100:5.1f} %"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in summary())
