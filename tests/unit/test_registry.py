"""The vocabulary is whole: every event has its reader, teller and evolve; every command its card."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from pvc.commands.access_table import TABLE
from pvc.commands.base import CommandSpec
from pvc.commands.facts import REPORTS
from pvc.commands.registry import BY_NAME, COMMANDS
from pvc.events.cluster import CommandRejected
from pvc.events.fence import FenceSettings
from pvc.events.node import NodeFenceSet, NodeJoined
from pvc.events.record import RawEvent
from pvc.events.registry import BY_TYPE, EVENTS, Event, Subject, UnknownEvent, decode_event, encode_event, subject_of
from pvc.events.vm_moves import VmMoved
from pvc.projections.fold import EVOLVE
from pvc.projections.story import FAILURES, TOLD, tell
from pvc.projections.vm_machine import TRANSITIONS
from tests.support.samples import SAMPLES

EVERY_EVENT = pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
EVERY_COMMAND = pytest.mark.parametrize("spec", COMMANDS, ids=lambda spec: spec.name)


def test_the_tables_name_every_event_exactly_once() -> None:
    assert set(EVOLVE) == set(TOLD) == set(EVENTS) == set(SAMPLES)
    assert len(BY_TYPE) == len(EVENTS)
    assert set(BY_TYPE) >= FAILURES
    assert set(BY_TYPE) >= {event for _, event in TRANSITIONS}


@EVERY_EVENT
def test_an_event_survives_being_stored(event: type[Event]) -> None:
    for sample in SAMPLES[event]:
        raw = encode_event(sample)
        assert (raw.type, raw.v) == (event.TYPE, 1)
        again = decode_event(raw)
        assert again == sample and type(again) is event
        assert encode_event(again).data == raw.data


@EVERY_EVENT
def test_an_event_is_told_in_a_sentence(event: type[Event]) -> None:
    for sample in SAMPLES[event]:
        told = tell(encode_event(sample))
        assert told.summary and told.summary == told.summary.strip()
        assert "None" not in told.summary and "<" not in told.summary and "  " not in told.summary
        assert told.subject == str(subject_of(sample))
        assert told.failure == (event.TYPE in FAILURES)
        msgspec.json.encode(told)


@EVERY_EVENT
def test_an_event_is_frozen_documented_and_named_after_its_subject(event: type[Event]) -> None:
    assert event.__struct_config__.frozen
    assert event.__doc__ and event.__doc__.endswith(".")
    assert re.fullmatch(r"(cluster|command|access|node|vm|webhook)\.[a-z_]+", event.TYPE)


def test_subjects_are_what_the_history_asks_for() -> None:
    samples = {event.TYPE: str(subject_of(SAMPLES[event][0])) for event in EVENTS}
    assert samples["cluster.initialised"] == "cluster"
    assert samples["node.ready"] == "node/hv1"
    assert samples["access.token_created"] == "access/abcdefgh"
    assert samples["access.erasure_requested"] == samples["access.person_erased"] == "access/3f2a91c0"
    assert samples["vm.defined"].startswith("vm/")
    assert subject_of(CommandRejected(code="c", message="m")) == Subject("cluster", "")
    assert subject_of(CommandRejected(code="c", message="m", vm="x")) == Subject("vm", "x")


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (NodeFenceSet(node="hv1", settings=FenceSettings(agent="fence_ipmilan")), "to be fenced by fence_ipmilan"),
        (NodeFenceSet(node="hv1"), "not to be fenced by an agent"),
        (NodeJoined(node="hv4"), "node hv4 is a member; it joins when pvcd starts there"),
        (
            NodeJoined(node="hv4", coordinator=True),
            "node hv4 is a member and coordinator; it joins when pvcd starts there",
        ),
        (VmMoved(vm="web01", source="hv1", target="hv1"), "its home is hv1 now"),
        (VmMoved(vm="web01", source="hv1", target="hv2"), "moved from hv1 to hv2"),
    ],
    ids=str,
)
def test_nothing_is_told_as_done_that_is_only_meant(event: Event, told: str) -> None:
    assert tell(encode_event(event)).summary == told


def test_an_event_of_an_unknown_type_is_still_told_and_passed_on() -> None:
    raw = RawEvent(type="vm.teleported", v=3, data=msgspec.Raw(msgspec.msgpack.encode({"where": "hv9"})))
    told = tell(raw)
    assert (told.type, told.v, told.subject, told.summary) == ("vm.teleported", 3, "vm", "vm.teleported")
    assert told.data == {"where": "hv9"}


@pytest.mark.parametrize(
    "raw",
    [
        RawEvent(type="no.such", data=msgspec.Raw(b"\x80")),
        RawEvent(type="vm.enabled", v=2, data=msgspec.Raw(b"\x80")),
        RawEvent(type="vm.enabled", data=msgspec.Raw(b"\x80")),
        RawEvent(type="vm.enabled", data=msgspec.Raw(b"\xc1")),
        RawEvent(type="vm.selector_set", data=msgspec.Raw(msgspec.msgpack.encode({"vm": "x", "selector": "newest"}))),
    ],
)
def test_an_event_that_cannot_be_read_is_said_to_need_an_update(raw: RawEvent) -> None:
    with pytest.raises(UnknownEvent) as failure:
        decode_event(raw)
    assert failure.value.hint == "update PVC on this node"
    assert repr(raw.type) in failure.value.message


def test_fields_of_a_later_version_are_passed_over() -> None:
    data = msgspec.msgpack.encode({"vm": "x", "colour": "red"})
    assert decode_event(RawEvent(type="vm.enabled", data=msgspec.Raw(data))) == BY_TYPE["vm.enabled"](vm="x")


# Commands.


@EVERY_COMMAND
def test_a_command_has_a_card_that_is_filled_in(spec: CommandSpec) -> None:
    struct = spec.struct
    assert struct.__doc__ and struct.__doc__.splitlines()[0].endswith(".")
    assert spec.action in TABLE
    assert spec.decide.__doc__
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", spec.name) and BY_NAME[spec.name] is spec
    assert struct.__struct_config__.forbid_unknown_fields and struct.__struct_config__.frozen
    fields = set(struct.__struct_fields__)
    assert set(re.findall(r"{(\w+)}", spec.path)) <= fields
    assert set(re.findall(r"{(\w+)}", spec.confirm)) <= fields
    assert set(spec.args) <= fields and set(spec.internal) <= fields
    assert set(spec.outcomes) <= set(BY_TYPE)
    assert not spec.outcomes or True in spec.outcomes.values()
    assert set(spec.begins) <= set(BY_TYPE)
    assert not (spec.begins or spec.anywhere) or spec.operation is not None
    assert spec.cli[0] == spec.name.partition(".")[0]


@EVERY_COMMAND
def test_the_example_of_a_command_is_one(spec: CommandSpec) -> None:
    converted = msgspec.convert(dict(spec.example), spec.struct)
    assert msgspec.json.decode(msgspec.json.encode(converted), type=spec.struct) == converted
    assert set(spec.example) >= set(spec.args) & set(struct_required(spec))
    assert not set(spec.example) & set(spec.internal)


@EVERY_COMMAND
def test_every_field_of_a_command_is_described(spec: CommandSpec) -> None:
    schema = msgspec.json.schema(spec.struct)
    bare = [
        f"{name}.{field}"
        for name, definition in schema["$defs"].items()
        for field, card in definition.get("properties", {}).items()
        if not _described(card)
    ]
    assert bare == []


def test_no_two_commands_share_a_route_or_their_words() -> None:
    assert len({(spec.method, spec.path) for spec in COMMANDS}) == len(COMMANDS)
    assert len({spec.cli for spec in COMMANDS}) == len(COMMANDS)
    assert len(BY_NAME) == len(COMMANDS)
    words = {spec.cli for spec in COMMANDS}
    assert not [cli for cli in words if any(other[: len(cli)] == cli and other != cli for other in words)]


def test_reports_have_names_of_their_own() -> None:
    names = [name for name, _ in REPORTS.values()]
    assert len(set(names)) == len(names)
    assert not set(names) & set(BY_NAME)
    assert all(report.__doc__ and decide.__doc__ for report, (_, decide) in REPORTS.items())


def struct_required(spec: CommandSpec) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(spec.struct) if field.required]


def _described(card: dict[str, Any]) -> bool:
    return bool(card.get("description")) or any(_described(option) for option in card.get("anyOf", ()))
