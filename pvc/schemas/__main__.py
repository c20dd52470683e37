"""`python -m pvc.schemas`: writes the generated files, says which are out of date, compares and keeps releases."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from pvc import __version__
from pvc.schemas.generate import generated_files, generated_present
from pvc.schemas.released import NotReleasable, breaks_since, keep_release, last_release

_ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str], root: Path = _ROOT) -> int:
    """Exit status 0 when all is as it should be, 1 when a check found something, or a release cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m pvc.schemas", description=__doc__)
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--check", action="store_true", help="change nothing; fail when a file is out of date")
    ways.add_argument(
        "--compatible", action="store_true", help="fail when records or clients of the last release would be left out"
    )
    ways.add_argument(
        "--release", action="store_true", help=f"keep schemas and corpus as those of version {__version__}"
    )
    asked = parser.parse_args(arguments)
    files = generated_files()
    if asked.compatible:
        return _compare(root, files)
    if asked.release:
        return _release(root, files)
    return _write_or_check(root, files, checking=asked.check)


def _compare(root: Path, files: Mapping[str, str]) -> int:
    last = last_release(root)
    if last is None:
        print("nothing is released yet, so there is nothing to be compatible with")
        return 0
    broken = breaks_since(last, files)
    for one in broken:
        print(one)
    if broken:
        print(f"{len(broken)} things break what {last.name} has released", file=sys.stderr)
    return 1 if broken else 0


def _release(root: Path, files: Mapping[str, str]) -> int:
    try:
        kept = keep_release(root, __version__, files)
    except NotReleasable as reason:
        print(f"not releasable: {reason}", file=sys.stderr)
        return 1
    print(f"kept: {kept.relative_to(root)}")
    return 0


def _write_or_check(root: Path, wanted: Mapping[str, str], *, checking: bool) -> int:
    stale = [path for path, text in wanted.items() if _text(root / path) != text]
    surplus = sorted(generated_present(root) - set(wanted))
    for path in stale:
        print(f"{'out of date' if checking else 'written'}: {path}")
        if not checking:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(wanted[path])
    for path in surplus:
        print(f"{'should not be there' if checking else 'removed'}: {path}")
        if not checking:
            (root / path).unlink()
    if checking and (stale or surplus):
        print("bring them up to date with: ./dev schemas", file=sys.stderr)
        return 1
    return 0


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
