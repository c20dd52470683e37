"""What Prometheus reads: judged by its own client's parser, against what was done before."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from pvc.gateway.metric_catalogue import FAMILIES
from pvc.gateway.metric_page import CONTENT_TYPE, Family, Kind, Page
from pvc.meters import MAX_SERIES, OTHER, Counter, Histogram
from pvc.runtime.append_watch import AppendWatch
from pvc.runtime.log_care import ArchiveInfo, LogStatus, SegmentInfo, SegmentState
from pvc.runtime.telemetry import GuestFigures
from pvc.runtime.world import World, catch_up
from tests.unit.gateway_house import House, a_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as house:
        yield house


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(house: House, **arguments: str) -> Samples:
    """Name and labels -> value, as the official parser has it."""
    reply = await house.root.get("/metrics", params=arguments)
    assert (reply.status_code, reply.headers["content-type"]) == (200, CONTENT_TYPE), reply.text
    found: Samples = {}
    for family in text_string_to_metric_families(reply.text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def names(samples: Samples, prefix: str = "") -> set[str]:
    return {name for name, _ in samples if name.startswith(prefix)}


class Care:
    """A log in ZooKeeper, as far as its status goes."""

    def __init__(self) -> None:
        self.asked = 0

    async def status(self) -> LogStatus:
        self.asked += 1
        segment = SegmentInfo(first=11, last=14, size_bytes=500, state=SegmentState.ACTIVE)
        sealed = SegmentInfo(first=5, last=10, size_bytes=700, state=SegmentState.SEALED)
        return LogStatus(
            kind="zookeeper",
            position=14,
            replica_position=14,
            replica_bytes=4096,
            segments=(sealed, segment),
            archived_segments=2,
            archived_position=4,
            removed_position=4,
            quota_records=1000,
            quota_bytes=2000,
            archives=(ArchiveInfo(title='directory "x"\\y', segments=2, missing=1, problem="full"),),
            damage=("a copy",),
        )


async def test_nodes_vms_and_health_are_what_the_api_says(house: House) -> None:
    await house.second_node("hv2")
    await house.define(name="db01", node="hv1")
    await house.define(node="hv1")
    await house.start()
    vm_id = house.state.vm_names["web01"]
    guest = GuestFigures(cpu_seconds=12.5, memory_used_mib=100, disk_read_bytes=7, sent_bytes=9)
    await house.hear(guests={vm_id: guest}, cpu_per_cent=50.0, memory_used_mib=3, load1=0.5, zookeeper="leader")
    samples = await scrape(house)
    assert value(samples, "pvc_vm_state", vm="web01", node="hv1", state="running") == 1
    assert value(samples, "pvc_vm_state", vm="db01", node="hv1", state="stopped") == 1
    assert value(samples, "pvc_node_vms", node="hv1", state="running") == 1
    assert value(samples, "pvc_vm_cpu_seconds_total", vm="web01", node="hv1") == 12.5
    assert value(samples, "pvc_vm_memory_used_bytes", vm="web01", node="hv1") == 100 * 1024**2
    assert value(samples, "pvc_vm_disk_written_bytes_total", vm="web01", node="hv1") == 0
    assert value(samples, "pvc_node_cpu_used_ratio", node="hv1") == 0.5
    assert value(samples, "pvc_node_zookeeper_serving", node="hv1") == 1
    assert value(samples, "pvc_cluster_nodes", state="ready") == 2
    assert value(samples, "pvc_node_filesystem_size_bytes", node="hv1", place="data") > 0
    cluster = (await house.root.get("/cluster")).json()
    assert value(samples, "pvc_cluster_health", health=cluster["health"]) == 1
    reasons = {dict(labels)["code"] for name, labels in samples if name == "pvc_cluster_health_reasons"}
    assert reasons == {problem["code"] for problem in cluster["problems"]} != set()


async def test_each_node_tells_of_its_own_vms_unless_all_are_wanted(house: House) -> None:
    await house.second_node("hv2")
    await house.define(name="here", node="hv1")
    await house.define(name="there", node="hv2")

    def vms(samples: Samples) -> set[str]:
        return {dict(labels)["vm"] for name, labels in samples if name == "pvc_vm_vcpus"}

    assert vms(await scrape(house)) == {"here"}
    assert vms(await scrape(house, vms="all")) == {"here", "there"}
    assert vms(await scrape(house, vms="none")) == set()
    counted = await scrape(house, vms="none")
    assert value(counted, "pvc_node_vms", node="hv2", state="stopped") == 1, "the counts are of all nodes"
    assert (await house.root.get("/metrics", params={"vms": "some"})).status_code == 422


async def test_requests_are_counted_by_route_and_never_by_what_was_asked_for(house: House) -> None:
    await house.define()
    for name in ("web01", "nobody", "x" * 50):
        await house.root.get(f"/vms/{name}")
    await house.root.request("BREW", "/vms/web01")
    await house.root.get("/no/such/route")
    samples = await scrape(house)
    assert value(samples, "pvc_gateway_requests_total", route="/vms/{vm}", method="GET", status="200") == 1
    assert value(samples, "pvc_gateway_requests_total", route="/vms/{vm}", method="GET", status="404") == 2
    # The path is none of the list where the method is none of the path's.
    assert value(samples, "pvc_gateway_requests_total", route="other", method="other", status="405") == 1
    assert value(samples, "pvc_gateway_requests_total", route="other", method="GET", status="404") == 1
    assert value(samples, "pvc_gateway_refusals_total", code="vm.not_found") == 2
    assert value(samples, "pvc_gateway_request_duration_seconds_count", route="/vms/{vm}", method="GET") == 3
    assert not any("nobody" in part for _, labels in samples for pair in labels for part in pair)


async def test_what_a_caller_asked_to_wait_is_not_taken_for_slowness(house: House) -> None:
    await house.define()
    operation = (await house.root.post("/vms/web01/start")).json()["operation"]["id"]
    began_s = time.monotonic()
    assert (await house.root.get(f"/operations/{operation}?wait=1")).json()["state"] == "pending"
    assert time.monotonic() - began_s >= 0.9
    samples, labels = await scrape(house), {"route": "/operations/{operation}", "method": "GET"}
    assert value(samples, "pvc_gateway_request_duration_seconds_count", **labels) == 1
    assert value(samples, "pvc_gateway_request_duration_seconds_sum", **labels) < 0.9


async def test_appends_and_what_happened_are_counted(house: House) -> None:
    await house.second_node("hv2")
    await house.lose("hv2")
    samples = await scrape(house)
    appended = value(samples, "pvc_log_appended_records_total")
    assert appended == house.state.position == value(samples, "pvc_log_position")
    assert value(samples, "pvc_log_append_duration_seconds_count") <= appended
    assert value(samples, "pvc_log_append_duration_seconds_bucket", le="+Inf") > 0
    assert value(samples, "pvc_ha_nodes_lost_total") == value(samples, "pvc_ha_elections_total") == 1
    assert value(samples, "pvc_ha_fences_total") == 0
    assert value(samples, "pvc_log_events_total", type="node.lost") == 1
    assert value(samples, "pvc_cluster_faults", code="node.lost", acknowledged="false") == 1
    assert value(samples, "pvc_node_state", node="hv2", state="lost") == 1


async def test_what_a_node_reads_again_at_its_start_is_not_counted_as_if_it_had_just_happened(house: House) -> None:
    await house.second_node("hv2")
    await house.lose("hv2")
    world = World(behind=True)
    watch = AppendWatch(house.services.clock, caught_up=lambda: world.caught_up)
    with world.listening(watch.folded):
        await catch_up(world, house.log)
        assert not watch.meters.events.values
        world.note_caught_up()
        await house.define()
        await catch_up(world, house.log)
    assert watch.meters.events.values == {("vm.defined",): 1}


async def test_segments_quota_and_archives_are_looked_at_now_and_then(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        care = Care()
        object.__setattr__(house.services, "log_care", care)
        samples = [await scrape(house) for _ in range(3)][-1]
    assert care.asked == 1, "not for each reader anew"
    assert value(samples, "pvc_log_hot_records") == 10
    assert value(samples, "pvc_log_hot_bytes") == 1200
    assert value(samples, "pvc_log_quota_records") == 1000
    assert value(samples, "pvc_log_segments", state="archived") == 2
    assert value(samples, "pvc_log_archive_problem", archive='directory "x"\\y') == 1, "a label may be anything"
    assert value(samples, "pvc_log_damaged_copies") == 1


async def test_who_may_read_is_whoever_sees_the_whole_cluster(house: House) -> None:
    viewer = await house.member("prometheus", {"role": "viewer"}, role="viewer")
    limited = await house.member("anna", {"role": "admin", "tag": "shop"})
    async with house.outside_with(viewer) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("http://pvc/metrics")).status_code == 200, "where Prometheus looks"
        assert (await client.post("http://pvc/metrics")).status_code == 405
    async with house.outside_with(limited) as client:
        reply = await client.get("/metrics")
        assert (reply.status_code, reply.json()["code"]) == (403, "access.forbidden")
    assert (await house.outside.get("http://pvc/metrics")).status_code == 401


async def test_no_persons_name_and_no_address_is_in_it(house: House) -> None:
    token = await house.person("anna.example")
    async with house.outside_with(token, "192.0.2.99") as client:
        await client.post("/vms", json={"name": "web01", "memory_mib": 64})
        text = (await client.get("/metrics")).text
    assert 'route="/vms",method="POST"' in text
    assert "anna" not in text and "192.0.2" not in text and "pvc_" + token.split("_")[1] not in text


async def test_before_there_is_a_cluster_root_sees_the_process(tmp_path: Path) -> None:
    async with a_house(tmp_path, initialised=False) as house:
        samples = await scrape(house)
    assert value(samples, "pvc_log_position") == 0
    assert names(samples, "pvc_cluster") == set()
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes"} <= names(samples)


async def test_every_sample_is_of_the_catalogue(house: House) -> None:
    await house.define()
    known = {series for family in FAMILIES for series in family.series}
    assert names(await scrape(house)) <= known


def test_the_catalogue_keeps_to_the_conventions() -> None:
    for family in FAMILIES:
        assert family.name.startswith(("pvc_", "process_")), family
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER), family
        assert family.help.endswith(".") and family.help.isprintable(), family
        assert not set(family.labels) & {"le", "instance", "job"}, family
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_what_is_counted_has_a_bound() -> None:
    counter, histogram = Counter(), Histogram((1.0,))
    for number in range(MAX_SERIES + 5):
        counter.add(str(number), "x")
        histogram.observe(2.0, str(number))
    assert len(counter.values) == MAX_SERIES + 1 and counter.total(OTHER, OTHER) == 5
    assert histogram.values[OTHER,][0] == [0, 5]


def test_a_bucket_has_all_that_took_no_longer() -> None:
    family = Family(name="pvc_x_seconds", kind=Kind.HISTOGRAM, help="X.")
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 3.0):
        histogram.observe(seconds)
    page = Page([family])
    page.histogram(family, histogram)
    (parsed,) = text_string_to_metric_families(page.text().decode())
    found: dict[Any, float] = {(one.name, one.labels.get("le", "")): one.value for one in parsed.samples}
    assert [found["pvc_x_seconds_bucket", le] for le in ("0.1", "1", "+Inf")] == [2, 3, 4]
    assert found["pvc_x_seconds_sum", ""] == pytest.approx(3.65)


async def test_each_reply_has_the_id_of_its_request(house: House) -> None:
    first, second = [(await house.root.get("/whoami")).headers["pvc-request-id"] for _ in range(2)]
    assert first != second and len(first) == 16
    given = await house.root.get("/whoami", headers={"X-Request-Id": "proxy-1.a:2"})
    assert given.headers["pvc-request-id"] == "proxy-1.a:2"
    hostile: httpx.Response = await house.root.get("/whoami", headers={"X-Request-Id": 'a" b=c'})
    assert len(hostile.headers["pvc-request-id"]) == 16
    assert (await house.outside.get("/whoami")).headers["pvc-request-id"], "a refusal too"


async def test_webhooks_are_told_of_by_the_node_that_delivers(house: House) -> None:
    reply = await house.root.post("/webhooks", json={"name": "crm", "url": "https://crm.example/hook"})
    assert reply.status_code == 200, reply.text
    house.services.meters.deliveries.add("retry")
    samples = await scrape(house)
    states = {dict(labels)["state"] for name, labels in samples if name == "pvc_webhook_state"}
    assert states == {"proving"}
    assert value(samples, "pvc_webhook_lag_records", webhook="crm") >= 0
    assert value(samples, "pvc_webhook_breaker_open", webhook="crm") == 0
    assert value(samples, "pvc_webhook_deliveries_total", outcome="retry") == 1
    assert house.state.cluster is not None
    house.state.put_cluster(replace(house.state.cluster, primary="hv2"))
    assert "pvc_webhook_state" not in names(await scrape(house))


async def test_a_file_system_that_does_not_answer_holds_up_neither_the_node_nor_the_others(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, let_go, looked = tmp_path / "hanging", threading.Event(), list[threading.Thread]()

    def usage(path: Path) -> Any:
        looked.append(threading.current_thread())
        if path == hanging and looked[-1] is not threading.main_thread():
            let_go.wait(60)
        return SimpleNamespace(total=100, free=40)

    monkeypatch.setattr("pvc.gateway.metrics.shutil.disk_usage", usage)
    assert isinstance(house.services.places, dict)
    house.services.places["archive"] = hanging
    try:
        samples = await scrape(house)
    finally:
        let_go.set()
    assert looked and threading.main_thread() not in looked
    found = {dict(labels)["place"] for name, labels in samples if name == "pvc_node_filesystem_size_bytes"}
    assert found == {"data"}
