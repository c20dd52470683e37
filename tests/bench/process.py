"""`pvc vm list` as a person runs it, process start and all, against what any Click program pays at least."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.daemon import daemon, environment, prepare
from tests.bench.measure import Bench, Row, Side, at_most, compare, skipped, stopwatch, take_turns
from tests.bench.records import Chain, a_cluster, vm_name

VMS = 100


async def measure(bench: Bench) -> list[Row]:
    what = f"`pvc vm list` with {VMS} VMs, whole process"
    pvc = Path(sys.executable).parent / "pvc"
    if not pvc.exists():
        return [skipped(what, f"there is no {pvc} (pip install -e .)")]
    home = bench.home / "daemon"
    await prepare(home, a_cluster(Chain(), VMS))
    with daemon(home):
        env, times = environment(home), bench.size(1, 2)
        ours, click = await take_turns(
            bench.rounds,
            _run([str(pvc), "vm", "list"], env, vm_name(VMS - 1), times),
            _run([sys.executable, "-c", "import click; print(click.__name__)"], env, "click", times),
        )
    return [compare(what, "ms", ours, click, '`python -c "import click"`', at_most(3))]


def _run(command: Sequence[str], env: dict[str, str], expected: str, times: int) -> Side:
    async def round_() -> float:
        with stopwatch() as watch:
            for _ in range(times):
                done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
                assert done.returncode == 0 and expected in done.stdout, done.stdout + done.stderr
        return watch.seconds / times * 1_000

    return round_
