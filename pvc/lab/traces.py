"""Which processes of this machine belong to which lab, told by their command lines: no pid file has to be trusted."""

from __future__ import annotations

from pathlib import Path

from pvc.lab import processes
from pvc.lab.bmc import PROGRAM as BMC_PROGRAM
from pvc.lab.hardware import WATCHDOG_MODULE

POWER_MODULE = "pvc.lab.power"
POWER_SHELL = "power"
"""The shell that comes before it calls itself so."""
_DEPTH = 3
"""Of files of BMCs and watchdogs below the lab's directory: HOST/PLACE/FILE."""


def around(directory: Path) -> list[int]:
    """BMCs and watchdogs of the lab's hosts, and what these have called: all that is not inside of a host."""
    return [
        pid
        for pid, argv in processes.commands()
        if processes.INIT_MODULE not in argv
        and _directory_of(argv) == directory
        and processes.state_of(pid) not in "ZX"
    ]


def directories() -> set[Path]:
    """Those of all labs of which anything runs."""
    found = (_directory_of(argv) for _, argv in processes.commands())
    return {directory for directory in found if directory is not None}


def _directory_of(argv: list[str]) -> Path | None:
    """The lab that the process belongs to; the path is as it was given."""
    if processes.INIT_MODULE in argv:
        return _path(argv[-2:-1])
    if POWER_MODULE in argv or [argv[0], *argv[3:4]] == ["sh", POWER_SHELL]:
        return _path(argv[-3:-2])
    if Path(argv[0]).name == BMC_PROGRAM:
        return _path(_after("-c", argv), above=_DEPTH)
    if WATCHDOG_MODULE in argv:
        return _path(_after("--fifo", argv), above=_DEPTH)
    return None


def _after(option: str, argv: list[str]) -> list[str]:
    return argv[argv.index(option) + 1 :] if option in argv else []


def _path(words: list[str], *, above: int = 0) -> Path | None:
    """The first word as a path, or its ancestor of so many steps."""
    lineage = [Path(words[0]), *Path(words[0]).parents] if words else []
    return lineage[above] if len(lineage) > above else None
