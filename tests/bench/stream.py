"""1,000 live readers of the event stream at 50 events a second on one gateway: how soon each has each event, and what
memory that takes; against bare Starlette that hands ready bytes to as many queues, behind the same server.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tests.bench.daemon import Api, daemon, prepare
from tests.bench.measure import Bench, Row, at_most, compare, percentile
from tests.bench.records import Chain, a_cluster, vm_name

RATE = 50.0
READERS = 1_000
VMS = 16
"""Each with a writer of its own."""

TARGET = 2.0
"""Ours also commits each event, looks it up, and asks of each reader whether it may still see it."""

START_S = 60
DRAIN_S = 5.0


async def measure(bench: Bench) -> list[Row]:
    readers, seconds = bench.size(200, READERS), bench.size(3, 6)
    rounds = 3 if bench.quick else 5
    home = bench.home / "daemon"
    await prepare(home, a_cluster(Chain(), VMS))
    sides: list[list[_Round]] = [[], []]
    with daemon(home), _raw(bench.home / "raw.sock"):
        served: list[tuple[Path, Write]] = [(home / "pvc.sock", _switch), (bench.home / "raw.sock", _publish)]
        for turn in range(rounds + 1):
            for index in (0, 1) if turn % 2 else (1, 0):
                sides[index].append(await _round(*served[index], readers, seconds))
    ours, theirs = (side[1:] for side in sides)  # the first round warms up
    p50 = [statistics.median(one.p50 for one in side) for side in (ours, theirs)]
    sent = [sum(one.delivered for one in side) / sum(one.seconds for one in side) for side in (ours, theirs)]
    what = f"{readers:,} readers at {RATE:.0f} events/s, one gateway"
    against = "Starlette, ready bytes"
    replies = [[value for one in side for value in one.replied] for side in (ours, theirs)]
    note = (
        f"from before the command until the client has it; p50 {p50[0]:.1f} ms against {p50[1]:.1f} ms; "
        f"{sent[0]:,.0f} deliveries/s against {sent[1]:,.0f}; the clients share the two processors; a command's reply "
        f"takes {percentile(replies[0], 50):.0f} ms, p99 {percentile(replies[0], 99):.0f} ms, meanwhile, against "
        f"{percentile(replies[1], 50):.0f} and {percentile(replies[1], 99):.0f} ms"
    )
    memory = [[one.memory_mb for one in side] for side in (ours, theirs)]
    return [
        compare(f"{what}: p99", "ms", [o.p99 for o in ours], [t.p99 for t in theirs], against, at_most(TARGET), note),
        compare(
            f"{what}: memory", "MB", memory[0], memory[1], against,
            note="of the whole process while they are there; ours is a node with its log, index and hypervisor",
        ),
    ]  # fmt: skip


Write = Callable[[Api, int, int], int]
"""Makes one record; returns its position."""


class _Round(msgspec.Struct, frozen=True):
    """What one round has shown; times in milliseconds."""

    p50: float
    p99: float
    replied: list[float]
    """Until each command was answered."""
    delivered: int
    seconds: float
    memory_mb: float


async def _round(path: Path, write: Write, readers: int, seconds: float) -> _Round:
    """Write at the given rate while the readers read."""
    written: dict[int, int] = {}
    replied: list[float] = []
    async with _readers(path, readers) as process:
        began = time.monotonic()

        def work(number: int) -> None:
            """One writer's part, as its turns come; with several of them the rate does not hang on the replies."""
            api = Api(path)
            for turn in range(number, int(RATE * seconds), VMS):
                time.sleep(max(0.0, began + turn / RATE - time.monotonic()))
                before = time.monotonic_ns()
                written[write(api, number, turn // VMS)] = before
                replied.append((time.monotonic_ns() - before) / 1e6)
            api.close()

        with ThreadPoolExecutor(VMS) as writers:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(writers, work, number) for number in range(VMS)))
        took_s = time.monotonic() - began
        memory_mb = _memory_mb(path)
        await asyncio.sleep(DRAIN_S / 5)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"done\n")
        async with asyncio.timeout(START_S):
            heard: dict[str, list[int]] = msgspec.json.decode(await process.stdout.read())
    times = [(at - written[int(position)]) / 1e6 for position, all_ in heard.items() if int(position) in written
             for at in all_]  # fmt: skip
    missing = len(written) * readers - len(times)
    assert missing == 0, f"{missing} of {len(written) * readers} deliveries did not come"
    return _Round(percentile(times, 50), percentile(times, 99), replied, len(times), took_s, memory_mb)


@contextlib.asynccontextmanager
async def _readers(path: Path, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """The readers, all connected, in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.stream_readers", str(path), str(count),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 28,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _switch(api: Api, vm: int, turn: int) -> int:
    """A command that makes one record; returns its position."""
    wanted = _wanted[vm] = not _wanted.get(vm, False)
    reply = api.post(f"/vms/{vm_name(vm)}/autostart", {"autostart": wanted})
    assert reply["changed"], reply
    return int(reply["position"])


_wanted: dict[int, bool] = {}
"""What each VM's autostart was set to last."""


def _publish(api: Api, vm: int, turn: int) -> int:
    return int(api.post("/publish")["position"])


@contextlib.contextmanager
def _raw(path: Path) -> Iterator[Api]:
    """The yardstick, serving."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.stream_raw", str(path)])
    api = Api(path)
    try:
        until = time.monotonic() + START_S
        while True:
            try:
                api.post("/publish")
                break
            except OSError:
                api.close()
                assert process.poll() is None and time.monotonic() < until, "the yardstick does not serve"
                time.sleep(0.05)
        yield api
    finally:
        api.close()
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        process.kill()
        process.wait()


def _memory_mb(path: Path) -> float:
    """Of the process that serves there: what it has in memory."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024
