"""`python -m pvc.schemas`: writes the generated files, or with --check says which are out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pvc.schemas.generate import GENERATED_FOLDERS, generated_files

_ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Exit status 0 when all files are as they should be, 1 when `--check` found one that is not."""
    parser = argparse.ArgumentParser(prog="python -m pvc.schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is out of date")
    checking = parser.parse_args(arguments).check
    wanted = generated_files()
    stale = [path for path, text in wanted.items() if _text(_ROOT / path) != text]
    surplus = sorted(_present() - set(wanted))
    for path in stale:
        print(f"{'out of date' if checking else 'written'}: {path}")
        if not checking:
            (_ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (_ROOT / path).write_text(wanted[path])
    for path in surplus:
        print(f"{'should not be there' if checking else 'removed'}: {path}")
        if not checking:
            (_ROOT / path).unlink()
    if checking and (stale or surplus):
        print("bring them up to date with: ./dev schemas", file=sys.stderr)
        return 1
    return 0


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _present() -> set[str]:
    """Files in the folders that hold generated files only."""
    found = (path for folder in GENERATED_FOLDERS for path in (_ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(_ROOT)) for path in found}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
