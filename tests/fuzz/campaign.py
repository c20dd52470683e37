"""A campaign against a real `pvcd`: one attack after the other, a good client all the while, and figures of each."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.attacks import ATTACKS, Attackers
from tests.fuzz.target import FEW_FILES, Target


@dataclass
class Round:
    """What came of one attack."""

    attack: str
    tls: bool
    tried: int
    replies: dict[str, int]
    files: int
    """Open files of the daemon when all was over."""
    memory_mib: float
    good: dict[str, Any]
    """What the good client has met."""


@dataclass
class Report:
    """What came of a campaign."""

    seed: int
    files_before: int = 0
    memory_before_mib: float = 0.0
    rounds: list[Round] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    verified: int = 0

    @property
    def tried(self) -> int:
        """Inputs in all."""
        return sum(one.tried for one in self.rounds)


def run_campaign(folder: Path, *, tls: bool, seconds: float, seed: int, tell: Any = None) -> Report:
    """Attack a daemon of its own for so long in all, then see whether it is well."""
    report = Report(seed=seed)
    target = Target(folder, tls=tls)
    try:
        _good_client(target).close()  # what is loaded for the first time is no leak
        report.files_before, report.memory_before_mib = target.files(), target.memory_mib()
        for name in ATTACKS:
            one = _attack(target, name, seconds / len(ATTACKS), seed, report.failures)
            one.files = target.await_files(report.files_before)
            one.memory_mib = target.memory_mib()
            report.rounds.append(one)
            if one.files > report.files_before + FEW_FILES:
                report.failures.append(f"{name}: {one.files} files are open, {report.files_before} were before")
            if one.good["failures"]:
                report.failures.append(f"{name}: the good client was not served: {one.good['first_failures']}")
            if tell is not None:
                tell(one)
        report.verified = target.assert_well()
        report.failures += [f"its log says: {line}" for line in target.defects()[:5]]
    finally:
        target.close()
    return report


class _Good:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def close(self) -> dict[str, Any]:
        """End it; what it has met."""
        said, _ = self._process.communicate(timeout=90)
        told: dict[str, Any] = json.loads(said)
        return told


def _good_client(target: Target) -> _Good:
    program = [sys.executable, "-m", "tests.fuzz.good_client", str(target.port), "tls" if target.tls else "plain"]
    pipe = subprocess.PIPE
    return _Good(
        subprocess.Popen([*program, target.good_token], stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[2])
    )


def _attack(target: Target, name: str, seconds: float, seed: int, failures: list[str]) -> Round:
    who = Attackers(target, seed)
    good = _good_client(target)
    try:
        tried = asyncio.run(_started(name, who, seconds))
    finally:
        met = good.close()
    failures += [f"{name}: {one}" for one in who.wrong[:3]]
    return Round(name, target.tls, tried, dict(who.statuses), target.files(), target.memory_mib(), met)


async def _started(name: str, who: Attackers, seconds: float) -> int:
    return await ATTACKS[name](who, seconds)


def new_folder() -> Path:
    """Short, for a Unix socket's name may have only a hundred characters."""
    return Path(tempfile.mkdtemp(prefix="pvc-fuzz-"))
