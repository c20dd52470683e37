"""`python -m tests.bench`: the speed table. Every figure stands beside its yardstick, measured in the same run.

It says how things are and fails only when a measurement itself does: a target that is missed is shown, not raised.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tests.bench import (
    append,
    cluster,
    cold,
    define,
    effect,
    failover,
    follow,
    group,
    growth,
    history,
    lab,
    listing,
    metrics,
    moves,
    past,
    process,
    proofs,
    replay,
    stream,
    writers,
)
from tests.bench.measure import Bench, Row
from tests.bench.table import markdown, text
from tests.integration.zookeeper_server import JARS, ZookeeperServer

Measure = Callable[[Bench], Coroutine[Any, Any, list[Row]]]

BENCHES: dict[str, tuple[Measure, str]] = {
    "append": (append.measure, "durable append, one client: ZooKeeper and SQLite, against the raw library"),
    "group": (group.measure, "24 clients through the appender, against raw pipelined creates"),
    "writers": (writers.measure, "3 to 16 nodes that report at once: forwarded to the primary, against direct"),
    "replay": (replay.measure, "verify + decode + fold, against decode + fold, and against `eventsourcing`"),
    "define": (define.measure, "define a VM at 0, 1,000 and 10,000 VMs"),
    "follow": (follow.measure, "event appended until folded in another process, against raw watch + get"),
    "stream": (stream.measure, "1,000 live readers of the events at 50 a second, against bare Starlette"),
    "listing": (listing.measure, "list 1,000 and 10,000 VMs through the API, against 100"),
    "metrics": (metrics.measure, "what Prometheus reads, with 3,000 running VMs, against the usual library"),
    "process": (process.measure, "`pvc vm list` as a process, against `import click`"),
    "effect": (effect.measure, "command until effect through the daemon, simulated hypervisor"),
    "history": (history.measure, "newest 50 records of one VM in a long history, against a short one"),
    "growth": (
        growth.measure,
        "the log at 100,000 records and more against 10,000: speed, ZooKeeper's memory, bytes per record",
    ),
    "cold": (cold.measure, "`pvcd` starts with a long log: with a snapshot, without, with nothing but another node"),
    "proofs": (proofs.measure, "verify an exported log, against one hash of each record"),
    "past": (past.measure, "the state at a past position of a long log, against a short one; the fork of a state"),
    "cluster": (cluster.measure, "30 nodes and 3,000 VMs in one process: define, mass start, flush, loss of a node"),
    "lab": (lab.measure, "three real hosts: command to effect, event to all nodes, ZooKeeper's leader killed"),
    "moves": (moves.measure, "three real hosts: live migration, its downtime, flush of 20 VMs"),
    "failover": (failover.measure, "three real hosts: power cuts until VMs run elsewhere (20 with --full)"),
}
NEED_ZOOKEEPER = {"append", "group", "writers", "follow", "cluster"}


def main() -> int:
    options = _options()
    logging.basicConfig(level=logging.ERROR)
    names = options.names or list(BENCHES)
    rows: list[Row] = []
    failed = False
    begun = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="pvc-bench-", dir=options.dir))
    try:
        with _zookeeper(home, wanted=bool(NEED_ZOOKEEPER & set(names))) as hosts:
            for name in names:
                started = time.monotonic()
                place = home / name
                place.mkdir()
                bench = Bench(home=place, quick=options.quick, full=options.full, zookeeper=hosts)
                try:
                    rows += asyncio.run(BENCHES[name][0](bench))
                except Exception as error:
                    logging.exception("%s failed", name)
                    rows.append(Row(what=name, note=f"failed: {type(error).__name__}: {error}"))
                    failed = True
                print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(_shape(time.monotonic() - begun, options.quick))
    print()
    print(markdown(rows) if options.markdown else text(rows))
    if options.json:
        Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    listed = "\n".join(f"  {name:9} {what}" for name, (_, what) in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures each figure beside its yardstick in the same run, and prints the ratios.",
        epilog=f"measurements:\n{listed}\n\nexample: ./dev bench --quick append replay",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to take (all of them if none is named)")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds: under a minute, less sure")
    parser.add_argument("--full", action="store_true", help="logs of 1,000,000 records instead of 200,000")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", metavar="FILE", help="write the rows to FILE too")
    parser.add_argument("--dir", metavar="DIR", help="measure disks there (default: the temporary directory)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no such measurement: {', '.join(unknown)} (there are: {', '.join(BENCHES)})")
    return options


@contextlib.contextmanager
def _zookeeper(home: Path, *, wanted: bool) -> Iterator[str]:
    """A server of our own for this run, or an empty address where it is not wanted or not installed."""
    if not wanted or not shutil.which("java") or not (JARS / "zookeeper.jar").exists():
        yield ""
        return
    server = ZookeeperServer(home / "zookeeper")
    server.start()
    try:
        yield server.hosts
    finally:
        server.kill()


def _shape(seconds: float, quick: bool) -> str:
    cpus = len(os.sched_getaffinity(0))
    kind = "quick" if quick else "normal"
    load = os.getloadavg()[0]
    return (
        f"{cpus} CPUs, {platform.machine()}, Python {platform.python_version()}, Linux {platform.release()}; "
        f"{kind} run of {seconds:.0f} s; load {load:.1f} at its end"
    )


if __name__ == "__main__":
    sys.exit(main())
