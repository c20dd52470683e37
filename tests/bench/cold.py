"""The start of a real `pvcd` with a long log: with a snapshot, without, and with nothing at all but another node."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import http.client
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pvc.client.connections import Connection
from pvc.client.json_client import JsonClient
from pvc.events.record import unseal
from pvc.log.history import HistoryIndex
from pvc.projections.snapshot import snapshot
from pvc.runtime.log_care import LogStatus
from pvc.runtime.snapshots import EVERY_RECORDS, SnapshotFile
from pvc.runtime.world import World
from tests.bench.daemon import Api
from tests.bench.grown import CLUSTER, REPLAY_BATCH, Window, a_server, grown, why_not
from tests.bench.measure import Bench, Row, Side, at_most, compare, figure, skipped, stopwatch, take_turns
from tests.bench.records import NODE
from tests.support.certificates import a_certificate

OTHER = "hv2"
EMPTY = "empty"
MORE_S = 1.0
"""So much longer than with an empty log may a start take that has a snapshot."""
WAIT_S = 600.0
"""For anything; far more than it takes, so that only a defect ends it."""
STOP_S = 60.0
MIB = 1024 * 1024


class Start(msgspec.Struct, kw_only=True):
    """How a start went; seconds from before the process was there."""

    served_s: float
    """Until it answered what a client asks, having folded the whole log."""
    cpu_s: float
    """Processor that it had used by then."""
    replica_s: float = 0.0
    archive_s: float = 0.0
    memory: int = 0
    """The most that it held, in bytes."""
    fetched: dict[str, int] = msgspec.field(default_factory=dict)
    """Bytes: `records` and `snapshot` from the other node, `zookeeper`."""


async def measure(bench: Bench) -> list[Row]:
    if why := why_not():
        return [skipped("cold start", why)]
    records = 1_000_000 if bench.full else bench.size(30_000, 200_000)
    home = bench.home / NODE
    with a_server(bench.home) as server:
        async with grown(home, Window(), server) as log:
            await log.grow(records - EVERY_RECORDS + 1)
            SnapshotFile(home / "old-snapshot").save(snapshot(log.world.state))
            await log.grow(records)
            await log.settle()
        empty = Daemon(bench.home / EMPTY, server.hosts, NODE, EMPTY)
        own, other = (Daemon(bench.home / name, server.hosts, name, CLUSTER) for name in (NODE, OTHER))
        data = await _records(own.data / "history.db")
        restarts = await _restarts(bench, own, empty, records)
        folds = await _folds(own, data, records)
        newcomers = await _newcomers(bench, own, other, data, records)
    return [*restarts, *folds, *newcomers]


async def _restarts(bench: Bench, own: Daemon, empty: Daemon, records: int) -> list[Row]:
    async def from_nothing() -> float:
        return (await _start(empty, 0)).served_s

    async def again() -> float:
        return (await _start(own, records)).served_s

    async def after_a_crash() -> float:
        shutil.copyfile(own.home / "old-snapshot", own.data / "snapshot")
        return (await _start(own, records)).served_s

    await again()
    nothing, stopped, killed = await take_turns(min(bench.rounds, 5), from_nothing, again, after_a_crash)
    allowed = statistics.median(nothing)
    target = at_most(round((allowed + MORE_S) / allowed, 2))
    against = "with an empty log"
    return [
        compare(f"`pvcd` starts, {records:,} records, stopped in good order", "s", stopped, nothing, against, target),
        compare(
            f"`pvcd` starts, {records:,} records, snapshot {EVERY_RECORDS:,} records old",
            "s",
            killed,
            nothing,
            against,
            target,
            "as old as it can be after a crash",
        ),
    ]


async def _folds(own: Daemon, data: list[bytes], records: int) -> list[Row]:
    used = []

    async def without_snapshot() -> float:
        (own.data / "snapshot").unlink()
        start = await _start(own, records)
        used.append(start.cpu_s)
        return start.served_s

    ours, plain = await take_turns(3, without_snapshot, _from_memory(data), warm_up=0)
    note = f"{statistics.median(used):.1f} s of processor"
    what = f"... without a snapshot: {records:,} records folded from archive and ZooKeeper"
    return [compare(what, "s", ours, plain, "verify + decode + fold, from memory", note=note)]


async def _newcomers(bench: Bench, own: Daemon, other: Daemon, data: list[bytes], records: int) -> list[Row]:
    starts: list[Start] = []
    with own.running() as giver:
        await asyncio.to_thread(giver.until_served, records)
        await asyncio.to_thread(_add_node, own)

        async def newcomer() -> float:
            shutil.rmtree(other.data, ignore_errors=True)
            starts.append(await _start(other, records, to_the_end=True))
            return starts[-1].served_s

        await take_turns(bench.size(1, 3), newcomer, warm_up=0)
        plain = await _from_memory(data)()
    what, against = "... with nothing but another node", f"verify + decode + fold, from memory: {figure(plain, 's')}"

    def row(told: str, values: list[float], note: str = "") -> Row:
        middle = statistics.median(values)
        spread = (min(values) / plain, max(values) / plain)
        measured = figure(middle, "s")
        return Row(what=told, measured=measured, reference=against, ratio=middle / plain, spread=spread, note=note)

    last = starts[-1]
    blobs = sum(path.stat().st_size for path in (own.data / "archive").glob("*"))
    fetched = last.fetched.get("records", 0)
    from_server = last.fetched.get("zookeeper", 0)
    return [
        row(f"{what}, until it serves", [start.served_s for start in starts]),
        row("... until its replica is whole", [start.replica_s for start in starts]),
        row("... until its archive is whole", [start.archive_s for start in starts]),
        Row(
            what="... what it fetches from the other node",
            measured=figure(fetched / MIB, "MiB"),
            reference=f"the archive's files: {figure(blobs / MIB, 'MiB')}",
            ratio=fetched / blobs,
            note=f"and its snapshot, {last.fetched.get('snapshot', 0) / MIB:.2f} MiB; {from_server / MIB:.0f} MiB "
            f"from ZooKeeper; it held {last.memory / MIB:.0f} MiB of memory at most",
        ),
    ]


def _from_memory(data: list[bytes]) -> Side:
    async def round_() -> float:
        world = World()
        with stopwatch() as watch:
            for one in data:
                world.apply(unseal(one))
        assert world.position == len(data)
        return watch.seconds

    return round_


async def _records(replica: Path) -> list[bytes]:
    index = await HistoryIndex.open(replica)
    try:
        data: list[bytes] = []
        while batch := await index.read(len(data) + 1, REPLAY_BATCH):
            data += batch
        return data
    finally:
        await index.close()


def _add_node(own: Daemon) -> None:
    with JsonClient(Connection(name="bench", url=f"unix://{own.socket}")) as client:
        client.command("node.add", {"node": OTHER, "coordinator": True})


async def _start(daemon: Daemon, records: int, *, to_the_end: bool = False) -> Start:
    """Start it, see how that goes, and stop it in good order."""

    def observed() -> Start:
        with daemon.running() as process:
            start = process.until_served(records)
            if to_the_end:
                process.until_whole(records, start)
                start.fetched = daemon.fetched()
            return start

    return await asyncio.to_thread(observed)


class Daemon:
    """A node of a cluster on ZooKeeper, whose files are in `home / "data"`."""

    def __init__(self, home: Path, hosts: str, node: str, cluster: str) -> None:
        self.home = home
        self.data = home / "data"
        self.socket = home / "pvc.sock"
        self._told = home / "fetched"
        home.mkdir(mode=0o700, exist_ok=True)
        certificate = a_certificate(home, node)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        (home / "pvc.toml").write_text(
            f'[node]\nname = "{node}"\ndata_dir = "{self.data}"\naddress = "127.0.0.1"\n'
            f'[hypervisor]\nkind = "simulated"\n[log]\nkind = "zookeeper"\nhosts = "{hosts}"\ncluster = "{cluster}"\n'
            f'[gateway]\nsocket = "{self.socket}"\nlisten = "0.0.0.0:{port}"\n'
            f'tls_cert = "{certificate.cert}"\ntls_key = "{certificate.key}"\n'
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[_Process]:
        """The daemon, just started; stopped in good order at the end."""
        self._told.unlink(missing_ok=True)
        begun = time.perf_counter()
        with (self.home / "pvcd.log").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.cold_daemon", "--config", self.home / "pvc.toml"],
                stdout=out,
                stderr=out,
                env={**os.environ, "PVC_BENCH_FETCHED": str(self._told)},
            )
        try:
            yield _Process(process, begun, self)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_S)
            process.kill()
            process.wait()

    def fetched(self) -> dict[str, int]:
        """Bytes by what they were."""
        sums: collections.Counter[str] = collections.Counter()
        for line in self._told.read_text().splitlines():
            what, count = line.split()
            sums[what] += int(count)
        return dict(sums)

    def last_words(self) -> str:
        return (self.home / "pvcd.log").read_text(errors="replace")[-2_000:]


class _Process:
    def __init__(self, process: subprocess.Popen[bytes], begun: float, daemon: Daemon) -> None:
        self._process = process
        self._begun = begun
        self._daemon = daemon

    def until_served(self, records: int) -> Start:
        """Wait until it answers a client, with a state of at least so many records."""
        while True:
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                contextlib.closing(Api(self._daemon.socket)) as api,
            ):
                api.request("GET", "/api/v1/whoami")  # it is answered when the fold has caught up
                reply = api.getresponse()
                reply.read()
                if reply.status != http.HTTPStatus.SERVICE_UNAVAILABLE:
                    assert int(reply.headers["PVC-Position"]) >= records, "it answers too early"
                    return Start(served_s=self._seconds(), cpu_s=self._cpu_s())
            self._wait(0.01)

    def until_whole(self, records: int, start: Start) -> None:
        """Wait until its replica and its archive are whole, too."""
        with contextlib.closing(Api(self._daemon.socket)) as api:
            while not start.replica_s or not start.archive_s:
                self._wait(0.25)
                status = msgspec.convert(api.get("/log/status"), LogStatus)
                archive = status.archives[0]
                if not start.replica_s and status.replica_position >= records:
                    start.replica_s = self._seconds()
                if not start.archive_s and archive.segments and not archive.missing:
                    start.archive_s = self._seconds()
        start.memory = self._memory()

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)
        assert self._process.poll() is None and self._seconds() < WAIT_S, self._daemon.last_words()

    def _seconds(self) -> float:
        return time.perf_counter() - self._begun

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _memory(self) -> int:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        (peak,) = [line for line in lines if line.startswith("VmHWM:")]
        return int(peak.split()[1]) * 1024
