"""Traces: what OpenTelemetry's own exporter is given, from a request to the start of the VM, joined by record ids."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pvc.clock import SystemClock, SystemRng, new_ulid
from pvc.daemon.config import Config, TracingConfig, load_config
from pvc.daemon.tracing import OtlpTracer, tracing
from pvc.drivers.hypervisor import Hypervisor
from pvc.errors import InvalidInput
from pvc.handlers.effect_watch import EffectWatch
from pvc.handlers.transfers import Transfers
from pvc.handlers.vm_reconciler import VmReconciler, nothing_missing
from pvc.runtime.append_watch import MAX_CHAINS, AppendWatch, Chains
from pvc.runtime.world import World, catch_up
from pvc.spans import Span, span_id_of, trace_id_of
from tests.unit.gateway_house import NODE, House, a_house


class Receiver:
    """Tracers of several nodes, and all that they tell."""

    def __init__(self, *, sample: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.sample = sample

    def of(self, node: str) -> OtlpTracer:
        return OtlpTracer(SimpleSpanProcessor(self.exporter), node, sample=self.sample)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def of_trace(self, record: str) -> dict[str, ReadableSpan]:
        """Name (with the node, where it has one) -> the span."""
        found = {}
        for span in self.spans():
            assert span.context is not None and span.attributes is not None
            if span.context.trace_id == trace_id_of(record):
                node = span.attributes.get("pvc.node")
                found[f"{span.name}@{node}" if span.name == "fold" else span.name] = span
        return found


@contextlib.asynccontextmanager
async def traced(tmp_path: Path, receiver: Receiver) -> AsyncIterator[House]:
    async with a_house(tmp_path, tracer=receiver.of(NODE)) as house:
        yield house


def a_reconciler(house: House, watch: AppendWatch, hypervisor: Hypervisor, world: World) -> VmReconciler:
    async def give(report: object, cause: str) -> None:
        await house.report(report, cause)
        await catch_up(world, house.log)

    return VmReconciler(
        NODE,
        lambda: world.state,
        hypervisor,
        give,
        house.services.clock,
        transfers=Transfers(hypervisor, lambda vm: None),
        obstacle=nothing_missing,
        watch=EffectWatch(NODE, house.services.clock, watch.meters, watch.tracer, watch.chains.of),
    )


async def test_a_start_is_one_trace_from_the_request_to_the_hypervisor_on_another_process(tmp_path: Path) -> None:
    receiver = Receiver()
    async with traced(tmp_path, receiver) as house:
        await house.define(node=NODE)
        # The node that carries it out knows nothing but the log.
        elsewhere, watch = World(), AppendWatch(house.services.clock, node="hv9", tracer=receiver.of("hv9"))
        with elsewhere.listening(watch.folded):
            reply = await house.root.post("/vms/web01/start", headers={"X-Request-Id": "r-7"})
            await catch_up(elsewhere, house.log)
            reconciler = a_reconciler(house, watch, house.hypervisor, elsewhere)
            await reconciler.reconcile(house.state.vm_names["web01"])
    record = reply.json()["record"]
    trace = receiver.of_trace(record)
    assert {
        "POST /vms/{vm}/start",
        "decide",
        "append",
        "fold@hv1",
        "fold@hv9",
        "vm.define",
        "vm.start",
        "vm.report_running",
    } <= trace.keys(), sorted(trace)
    root = trace["POST /vms/{vm}/start"]
    assert root.parent is None and root.context is not None and root.context.span_id == span_id_of(record)
    for name in ("decide", "append", "vm.define", "vm.start", "fold@hv9"):
        parent = trace[name].parent
        if name in ("vm.define", "vm.start"):
            assert parent is not None and parent.span_id == span_id_of(record), name
        assert parent is not None, name
    assert root.attributes is not None and root.attributes["pvc.request"] == "r-7"
    assert trace["vm.start"].resource.attributes["service.instance.id"] == "hv9"
    assert all((span.end_time or 0) >= (span.start_time or 0) > 0 for span in receiver.spans())
    assert "web01" not in str([span.to_json() for span in trace.values()]), "names are in the log, and not here"


async def test_who_asked_is_linked_to_and_not_followed(tmp_path: Path) -> None:
    receiver = Receiver()
    async with traced(tmp_path, receiver) as house:
        parent = f"00-{'a' * 32}-{'b' * 16}-01"
        reply = await house.root.post("/vms", json={"name": "x", "memory_mib": 64}, headers={"traceparent": parent})
        root = receiver.of_trace(reply.json()["record"])["POST /vms"]
        (link,) = root.links
        assert (link.context.trace_id, link.context.span_id) == (int("a" * 32, 16), int("b" * 16, 16))
        for hostile in ("00-" + "0" * 32 + "-" + "b" * 16 + "-01", "x" * 400, "00-zz-b-01"):
            again = await house.root.post(
                "/vms/x/tags", json={"tag": f"t{len(hostile)}"}, headers={"traceparent": hostile}
            )
            for span in receiver.of_trace(again.json()["record"]).values():
                assert not span.links


async def test_what_only_reads_or_is_refused_or_repeated_begins_no_trace(tmp_path: Path) -> None:
    receiver = Receiver()
    async with traced(tmp_path, receiver) as house:
        await house.root.post("/vms", json={"name": "x", "memory_mib": 64}, headers={"Idempotency-Key": "k"})
        before = [span.name for span in receiver.spans()]
        await house.root.get("/vms")
        await house.root.post("/vms/x/start", params={"dry_run": "true"})
        await house.root.post("/vms", json={"name": "x", "memory_mib": 64}, headers={"Idempotency-Key": "k"})
        assert [span.name for span in receiver.spans()] == before


async def test_a_failed_effect_says_with_what(tmp_path: Path) -> None:
    receiver, clock = Receiver(), SystemClock()
    record = new_ulid(clock, SystemRng())
    watch = EffectWatch("hv1", clock, tracer=receiver.of("hv1"))
    with contextlib.suppress(InvalidInput), watch.doing("start", "id", record):
        raise InvalidInput("no", code="hypervisor.no_kvm")
    (span,) = receiver.spans()
    assert span.status.description == "hypervisor.no_kvm" and not span.status.is_ok
    with watch.doing("destroy", "id", ""):
        pass
    assert len(receiver.spans()) == 1, "what no record asked for is nobody's trace"
    assert watch.meters.effect_failures.values == {("start",): 1}


def test_a_chain_leads_to_its_beginning_within_a_bound() -> None:
    chains = Chains()
    assert [chains.note("a", ""), chains.note("b", "a"), chains.note("c", "b")] == ["a", "a", "a"]
    assert chains.note("d", "never heard of") == "never heard of"
    for number in range(MAX_CHAINS):
        chains.note(str(number), "")
    assert chains.of("b") == "b"


def test_a_trace_is_the_records_id_as_a_number() -> None:
    assert trace_id_of("00000000000000000000000001") == 1
    assert trace_id_of("7ZZZZZZZZZZZZZZZZZZZZZZZZZ") == (1 << 128) - 1
    assert trace_id_of("no ulid") == trace_id_of("no ulid") != trace_id_of("another")
    assert 0 < span_id_of("x") < 1 << 64


def test_a_share_of_the_traces_is_the_same_on_every_node() -> None:
    clock, rng = SystemClock(), SystemRng()
    records = [new_ulid(clock, rng) for _ in range(400)]
    told = []
    for node in ("hv1", "hv2"):
        receiver = Receiver(sample=0.25)
        tracer = receiver.of(node)
        for record in records:
            tracer.tell(Span(name="x", trace=record, began_us=1, ended_us=2))
        told.append({span.context.trace_id for span in receiver.spans() if span.context})
    assert told[0] == told[1] and 50 < len(told[0]) < 150


async def test_where_nothing_is_traced_the_library_is_not_even_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, asyncio, pvc.daemon.compose, pvc.daemon.tracing as t; from pvc.daemon.config import Config\n"
        "async def run():\n"
        "    async with t.tracing(Config()) as tracer: assert tracer is None\n"
        "asyncio.run(run()); sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0


async def test_a_receiver_that_is_not_there_keeps_nobody(tmp_path: Path) -> None:
    config = Config(tracing=TracingConfig(endpoint="http://127.0.0.1:9/v1/traces"))
    async with asyncio.timeout(20), tracing(config) as tracer:
        assert tracer is not None
        for _ in range(5_000):  # more than its queue takes
            tracer.tell(Span(name="x", trace="00000000000000000000000001", began_us=1, ended_us=2))


def test_a_wrong_place_for_traces_is_told_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "pvc.toml"
    path.write_text('[tracing]\nendpoint = "localhost:4318"\n')
    with pytest.raises(InvalidInput, match=r"tracing\.endpoint"):
        load_config(path)
