"""The rules of the house that no linter knows: small modules, each saying what it is for."""

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE_LINES_MAX = 400
MEDIAN_LINES_MAX = 200
GENERATED = ROOT / "pvc" / "client" / "generated"
MODULES = sorted(path for path in (ROOT / "pvc").rglob("*.py") if not path.is_relative_to(GENERATED))
EVERYTHING = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "deploy").rglob("*.py"))]


def lines_of(module: Path) -> int:
    return len(module.read_text().splitlines())


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(m.relative_to(ROOT))
        for m in EVERYTHING
        if m.read_text() and not ast.get_docstring(ast.parse(m.read_text()))
    ]
    assert silent == []


def test_no_module_is_longer_than_a_person_reads_at_once() -> None:
    long = {str(m.relative_to(ROOT)): lines_of(m) for m in MODULES if lines_of(m) > MODULE_LINES_MAX}
    assert long == {}


def test_the_median_module_is_small() -> None:
    assert statistics.median(lines_of(m) for m in MODULES) <= MEDIAN_LINES_MAX
