"""`GET /metrics` with 3,000 running VMs: the whole request, against the usual library writing as many lines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric, generate_latest

from pvc.events import vm
from pvc.events.record import Entry
from tests.bench.daemon import Api, daemon, prepare
from tests.bench.measure import Bench, Row, Side, at_most, compare, stopwatch, take_turns
from tests.bench.records import NODE, Chain, a_cluster, vm_id

VMS = 3_000
FEW = 100

START_S = 240.0
"""For the simulated hypervisor to start them all and the node to tell its figures: some 20 s."""

AGAINST_LIBRARY = 0.5
WITHOUT_VMS = 4.0
"""What a scrape without VMs may cost more at thirty times as many: nothing walks them, but what was measured of them
is decoded all the same."""


async def measure(bench: Bench) -> list[Row]:
    with contextlib.ExitStack() as stack:
        apis = []
        for size in (FEW, VMS):
            home = bench.home / str(size)
            await prepare(home, _all_to_run(size))
            api = stack.enter_context(daemon(home))
            _wait_until_measured(api, size)
            apis.append(api)
        few, many = apis
        body = _scrape(many, "here")
        lines = body.count(b"\n")
        written, by_library, few_alone, many_alone = await take_turns(
            bench.rounds, _scraping(many, "here"), _library(body), _scraping(few, "none"), _scraping(many, "none")
        )
    shape = f"{lines:,} lines, {len(body) / 1e6:.1f} MB"
    return [
        compare(
            f"/metrics with {VMS:,} running VMs, whole request",
            "ms",
            written,
            by_library,
            f"prometheus_client writes {lines:,} lines",
            at_most(AGAINST_LIBRARY),
            shape,
        ),
        compare(
            f"/metrics?vms=none with {VMS:,} VMs, whole request",
            "ms",
            many_alone,
            few_alone,
            f"{FEW} VMs",
            at_most(WITHOUT_VMS),
            "what was measured is decoded, nothing is walked",
        ),
    ]


def _all_to_run(size: int) -> Iterator[Entry]:
    chain = Chain()
    yield from a_cluster(chain, size)
    for number in range(size):
        yield chain.add("vm.start", vm.VmStartRequested(vm=vm_id(number), node=NODE, epoch=1))


def _wait_until_measured(api: Api, size: int) -> None:
    deadline = time.monotonic() + START_S
    while _scrape(api, "here").count(b"\npvc_vm_cpu_seconds_total{") < size:
        assert time.monotonic() < deadline, f"not all of {size} VMs run"
        time.sleep(1)


def _scrape(api: Api, vms: str) -> bytes:
    api.close()  # a scraper's connection is mostly gone by its next turn, too
    api.request("GET", f"/metrics?vms={vms}")
    reply = api.getresponse()
    body = reply.read()
    assert reply.status == 200, body
    return body


def _scraping(api: Api, vms: str) -> Side:
    async def round_() -> float:
        with stopwatch() as watch:
            _scrape(api, vms)
        return watch.seconds * 1_000

    return round_


def _library(body: bytes) -> Side:
    """The same samples, in the library's own objects, which are there already."""
    from prometheus_client.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(body.decode()))

    class Kept:
        def collect(self) -> list[Metric]:
            return families

    registry = CollectorRegistry()
    registry.register(Kept())

    async def round_() -> float:
        with stopwatch() as watch:
            generate_latest(registry)
        return watch.seconds * 1_000

    return round_
