"""Verifying a stored log: chain, tree and checkpoints, against one SHA-256 over each record and nothing else."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from pvc.proof.files import verify_files
from pvc.proof.frames import encode_file
from pvc.proof.verify import Verifier
from tests.bench.measure import Bench, Row, Side, compare, cpu_stopwatch, stopwatch, take_turns
from tests.bench.records import Chain, a_cluster, daily_life

VMS = 500


async def measure(bench: Bench) -> list[Row]:
    count = bench.size(60_000, 300_000)
    chain = Chain()
    data = [entry.data for entry in itertools.chain(a_cluster(chain, VMS), daily_life(chain, VMS, count))]
    file = bench.home / "log.pvclog"
    file.write_bytes(encode_file(1, data))
    size, stored = sum(map(len, data)) // len(data), file.stat().st_size / len(data)
    processors = len(os.sched_getaffinity(0))
    alone, bare = await take_turns(min(bench.rounds, 5), _verified_alone(file, len(data)), _hashed(data))
    together, bare_wall = await take_turns(
        min(bench.rounds, 5), _verified_together(file, len(data)), _hashed(data, wall=True)
    )
    against = "bare sha256 of the same bytes"
    what = "verify an exported log"
    shape = f"records of {size} bytes, {stored:.0f} in the file (zstd)"
    three = "three hashes a record: chain, leaf and one node, with decompression and decoding"
    asked = f"{processors} processes, by the clock; 500,000 /s are asked for"
    return [
        compare(f"{what}, one process", "/s", alone, bare, against, note=f"per second of processor; {shape}; {three}"),
        compare(f"{what}, all processors", "/s", together, bare_wall, f"{against}, one process", note=asked),
    ]


def _verified_alone(file: Path, count: int) -> Side:
    async def round_() -> float:
        verifier = Verifier()
        with cpu_stopwatch() as watch:
            verify_files([file], verifier, workers=1)
        assert verifier.verdict().records == count
        assert verifier.verdict().ok
        return count / watch.seconds

    return round_


def _verified_together(file: Path, count: int) -> Side:
    async def round_() -> float:
        verifier = Verifier()
        with stopwatch() as watch:
            verify_files([file], verifier)
        assert verifier.verdict().records == count
        assert verifier.verdict().ok
        return count / watch.seconds

    return round_


def _hashed(data: Sequence[bytes], *, wall: bool = False) -> Side:
    async def round_() -> float:
        with stopwatch() if wall else cpu_stopwatch() as watch:
            for each in data:
                hashlib.sha256(each).digest()
        return len(data) / watch.seconds

    return round_
