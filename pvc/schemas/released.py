"""Keeps what was released: the schemas and the corpus of records of each version, written once and never again.

schemas/released/<version>/events/<type>.json, commands/<name>.json, openapi.json
schemas/released/<version>/records.json        a log as that version wrote it, and what it folds to
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pvc.events.registry import UPCASTERS
from pvc.schemas.compatible import Break, api_breaks, command_breaks, event_breaks

RELEASED = Path("schemas/released")

CORPORA = Path("tests/golden")
"""Where the corpus is that is still being added to; `python -m tests.support.golden` writes it."""

RECORDS = "records.json"

_KEPT = ("events", "commands", "openapi.json")


class NotReleasable(Exception):
    """What is here cannot become a release as it is."""


def last_release(root: Path) -> Path | None:
    """The folder of the newest release; None before the first."""
    found = [path for path in (root / RELEASED).glob("*") if path.is_dir() and _number(path)]
    return max(found, key=_number, default=None)


def breaks_since(release: Path, files: Mapping[str, str]) -> list[Break]:
    """What of a release does not go any more with the generated files of today (path -> text)."""
    kinds = {kind: (_stored(release / kind), _made(files, f"schemas/{kind}/")) for kind in ("events", "commands")}
    return [
        *event_breaks(*kinds["events"], UPCASTERS.keys()),
        *command_breaks(*kinds["commands"]),
        *api_breaks(json.loads((release / "openapi.json").read_text()), json.loads(files["schemas/openapi.json"])),
    ]


def keep_release(root: Path, version: str, files: Mapping[str, str]) -> Path:
    """Keep what is here as a release. Raises NotReleasable; nothing is kept then."""
    target = root / RELEASED / version
    if target.exists():
        raise NotReleasable(
            f"{version} is released already; set the next version in pvc/__init__.py and pyproject.toml"
        )
    if not _number(target):
        raise NotReleasable(f"{version} is no version: numbers and dots alone, such as 1.4.0")
    last = last_release(root)
    if last is not None and _number(last) >= _number(target):
        raise NotReleasable(f"{version} does not come after {last.name}")
    stale = [path for path, text in files.items() if not (root / path).exists() or (root / path).read_text() != text]
    if stale:
        raise NotReleasable(f"{stale[0]} is out of date; ./dev schemas first")
    if last is not None and (broken := breaks_since(last, files)):
        raise NotReleasable("\n".join(map(str, broken)))
    corpora = sorted((root / CORPORA).glob("records-*.json"))
    if not corpora:
        raise NotReleasable("there is no corpus of records; python -m tests.support.golden records-v1")
    scratch = root / RELEASED / f".{version}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for name in _KEPT:
        source = root / "schemas" / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, scratch / name)
    shutil.copyfile(corpora[-1], scratch / RECORDS)
    scratch.rename(target)
    return target


def _number(path: Path) -> tuple[int, ...]:
    """The version that a folder is of; empty where it is of none, such as one that was not finished."""
    try:
        return tuple(map(int, path.name.split(".")))
    except ValueError:
        return ()


def _stored(folder: Path) -> dict[str, Any]:
    return {path.name.removesuffix(".json"): json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def _made(files: Mapping[str, str], beginning: str) -> dict[str, Any]:
    return {
        path.removeprefix(beginning).removesuffix(".json"): json.loads(text)
        for path, text in files.items()
        if path.startswith(beginning)
    }
