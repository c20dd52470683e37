"""Upcasting: any chain of versions is read as its steps say, the present one as it is, and the future not at all."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from pvc.errors import LogDamaged
from pvc.events.record import Actor, CommandRef, RawEvent, Record, check_follows, seal, unseal
from pvc.events.registry import EVENTS, TYPE_LEVELS, UPCASTERS
from pvc.events.versions import UnknownEvent, Upcaster, Versions
from pvc.log.history_file import HistoryFile
from pvc.log.history_search import HistoryQuery
from pvc.projections.fold import fold
from pvc.projections.story import tell
from tests.support.core import a_cluster_with_vm

STEPS = st.lists(st.integers(-100, 100), min_size=0, max_size=6)
"""What each step from one version to the next adds."""


def painted(version: int) -> type[Any]:
    """An event type of this version, whose field is named after it."""
    return msgspec.defstruct(
        "Painted",
        [("vm", str), (f"coats_v{version}", int)],
        frozen=True,
        kw_only=True,
        namespace={"TYPE": "vm.painted", "V": version},
    )


def step(version: int, more: int) -> Upcaster:
    """Names the field anew and adds to it."""

    def up(data: dict[str, Any]) -> dict[str, Any]:
        data[f"coats_v{version + 1}"] = data.pop(f"coats_v{version}") + more
        return data

    return up


def table(steps: list[int]) -> Versions[Any]:
    upcasters = {("vm.painted", i): step(i, more) for i, more in enumerate(steps, start=1)}
    return Versions([painted(len(steps) + 1)], upcasters, {"vm.painted"})


def raw(version: int, coats: int) -> RawEvent:
    data = msgspec.msgpack.encode({"vm": "web01", f"coats_v{version}": coats})
    return RawEvent(type="vm.painted", v=version, data=msgspec.Raw(data))


@given(STEPS, st.integers(-1000, 1000), st.data())
def test_an_old_version_is_brought_up_by_every_step_once_in_order(steps: list[int], coats: int, data: Any) -> None:
    version = data.draw(st.integers(1, len(steps) + 1))
    present = len(steps) + 1
    event = table(steps).decode(raw(version, coats))
    assert getattr(event, f"coats_v{present}") == coats + sum(steps[version - 1 :])
    assert event.vm == "web01"


@given(STEPS, st.integers(-1000, 1000))
def test_the_present_version_is_read_as_it_is(steps: list[int], coats: int) -> None:
    present = len(steps) + 1
    event = table(steps).decode(raw(present, coats))
    assert event == painted_like(event, coats, present)
    assert msgspec.msgpack.encode(event) == bytes(raw(present, coats).data)


@given(STEPS, st.integers(-3, 20))
def test_what_is_read_of_bytes_does_not_depend_on_when_and_leaves_them_alone(steps: list[int], coats: int) -> None:
    stored = raw(1, coats)
    before = bytes(stored.data)
    versions = table(steps)
    assert versions.decode(stored) == versions.decode(stored)
    assert bytes(stored.data) == before


@given(STEPS, st.integers(1, 50))
def test_what_is_newer_than_the_table_or_older_than_the_first_is_refused(steps: list[int], beyond: int) -> None:
    for version in (len(steps) + 1 + beyond, 0, -beyond):
        with pytest.raises(UnknownEvent) as refusal:
            table(steps).decode(raw(version, 1))
        assert refusal.value.code == "fold.unknown_event"
    with pytest.raises(UnknownEvent):
        table(steps).decode(RawEvent(type="vm.unheard", data=msgspec.Raw(b"\x80")))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_a_table_with_a_gap_cannot_be_made(steps: list[int], data: Any) -> None:
    missing = data.draw(st.integers(1, len(steps)))
    upcasters = {("vm.painted", i): step(i, more) for i, more in enumerate(steps, start=1) if i != missing}
    with pytest.raises(ValueError, match=rf"vm\.painted has no upcaster from version {missing}(;|$)"):
        Versions([painted(len(steps) + 1)], upcasters, {"vm.painted"})


@given(STEPS)
def test_nor_one_with_a_step_that_leads_nowhere(steps: list[int]) -> None:
    present = len(steps) + 1
    upcasters = {("vm.painted", i): step(i, more) for i, more in enumerate([*steps, 0], start=1)}
    with pytest.raises(ValueError, match=f"from {present} leads nowhere"):
        Versions([painted(present)], upcasters, {"vm.painted"})
    with pytest.raises(ValueError, match=r"vm\.gone from 1 leads nowhere"):
        Versions([painted(1)], {("vm.gone", 1): step(1, 0)}, ())


def test_nor_one_whose_later_version_older_members_would_meet() -> None:
    with pytest.raises(ValueError, match="without a feature level"):
        Versions([painted(2)], {("vm.painted", 1): step(1, 0)}, ())


def test_nor_one_with_two_of_a_type_or_a_version_before_the_first() -> None:
    with pytest.raises(ValueError, match="two events share a type"):
        Versions([painted(1), painted(1)], {}, ())
    with pytest.raises(ValueError, match="has version 0"):
        Versions([painted(0)], {}, ())


@pytest.mark.parametrize(
    ("data", "upcaster"),
    [
        (b"\xc1", step(1, 0)),
        (b"\x80", step(1, 0)),
        (msgspec.msgpack.encode([1]), step(1, 0)),
        (msgspec.msgpack.encode({"vm": "w", "coats_v1": "many"}), step(1, 0)),
        (msgspec.msgpack.encode({"vm": "w", "coats_v1": 1}), lambda data: {"vm": "w"}),
        (msgspec.msgpack.encode({"vm": "w", "coats_v1": 1}), lambda data: {**data, "coats_v2": "red"}),
    ],
)
def test_what_cannot_be_brought_up_is_said_to_be_unreadable(data: bytes, upcaster: Upcaster) -> None:
    versions = Versions([painted(2)], {("vm.painted", 1): upcaster}, {"vm.painted"})
    with pytest.raises(UnknownEvent) as refusal:
        versions.decode(RawEvent(type="vm.painted", v=1, data=msgspec.Raw(data)))
    assert refusal.value.code == "fold.unreadable_event"


def test_the_real_table_is_whole() -> None:
    assert Versions(EVENTS, UPCASTERS, TYPE_LEVELS)


class _Nested(Struct, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "vm.boxed"
    V: ClassVar[int] = 2
    sizes: tuple[int, ...] = ()
    secret: bytes = b""


def test_tuples_and_bytes_survive_the_way_up() -> None:
    versions = Versions([_Nested], {("vm.boxed", 1): lambda data: {"sizes": data["size"], **data}}, {"vm.boxed"})
    stored = msgspec.msgpack.encode({"size": [1, 2], "secret": b"\x00\xff"})
    event = versions.decode(RawEvent(type="vm.boxed", v=1, data=msgspec.Raw(stored)))
    assert event == _Nested(sizes=(1, 2), secret=b"\x00\xff")


@given(
    kind=st.sampled_from(["vm.teleported", "vm.started", "moon.landed"]),
    version=st.integers(2, 9),
    fields=st.dictionaries(
        st.text(max_size=5), st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(max_size=5), st.booleans()), max_size=4
    ),
)
def test_a_newer_event_passes_through_storage_history_and_stream_and_stops_only_the_fold(
    kind: str, version: int, fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cluster = a_cluster_with_vm()
    head = cluster.state.head
    newer = RawEvent(type=kind, v=version, data=msgspec.Raw(msgspec.msgpack.encode(fields)))
    entry = seal(
        Record(
            position=head.position + 1,
            prev=head.hash,
            id="R" * 26,
            time_us=1,
            actor=Actor(principal="root", method="socket"),
            origin="hv1",
            command=CommandRef(id="newer", name="newer"),
            events=(newer,),
        )
    )
    again = unseal(entry.data)
    assert (again.data, again.hash) == (entry.data, entry.hash)
    check_follows(again, head)
    assert tell(again.record.events[0]).data == fields
    index = HistoryFile(tmp_path_factory.mktemp("index") / "history.db")
    try:
        index.index([*cluster.entries, again])
        assert index.data(again.position) == entry.data
        [found] = index.query(HistoryQuery(types=(kind,), after=head.position))
        assert found.data == entry.data
    finally:
        index.close()
    before = cluster.state.state_hash()
    with pytest.raises(UnknownEvent):
        fold(cluster.state, again)
    assert (cluster.state.head, cluster.state.state_hash()) == (head, before)
    with pytest.raises(LogDamaged):
        check_follows(again, cluster.entries[0].head)


def painted_like(event: Any, coats: int, version: int) -> Any:
    return type(event)(**{"vm": "web01", f"coats_v{version}": coats})
