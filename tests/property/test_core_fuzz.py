"""Whatever comes in as a command: it is refused at its fields, refused by the state, or recorded. Nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.commands.base import CommandSpec
from pvc.commands.registry import COMMANDS
from pvc.commands.vm_xml import parse_domain_xml
from pvc.errors import InvalidInput, Rejected
from pvc.events.registry import decode_event, encode_event
from pvc.projections.story import tell
from pvc.projections.vm_machine import VmState
from tests.support.core import TinyCluster, a_cluster_with_vm

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
LIKELY = st.sampled_from(
    [
        "web01",
        "web02",
        "hv1",
        "nobody",
        "",
        "a\nb",
        "/a",
        "raw",
        "force",
        True,
        False,
        0,
        1,
        64,
        9_000,
        ["hv1"],
        [],
        "mem",
    ]
)
CLUSTERS: dict[VmState, TinyCluster] = {state: a_cluster_with_vm(state) for state in VmState}
EVERY_COMMAND = pytest.mark.parametrize("spec", COMMANDS, ids=lambda spec: spec.name)


def a_body(spec: CommandSpec) -> st.SearchStrategy[dict[str, Any]]:
    """The example with some fields replaced, left out or added."""
    fields = st.sampled_from([*spec.struct.__struct_fields__, "unknown"])
    changes = st.dictionaries(fields, LIKELY | ANYTHING, max_size=4)
    left_out = st.sets(st.sampled_from(sorted(spec.example)), max_size=1)
    return st.builds(
        lambda changes, left_out: {k: v for k, v in (spec.example | changes).items() if k not in left_out},
        changes,
        left_out,
    )


@pytest.mark.many_seeds
@EVERY_COMMAND
@given(data=st.data(), state=st.sampled_from(list(VmState)))
def test_no_body_makes_a_command_fail_otherwise_than_by_refusal(
    spec: CommandSpec, data: st.DataObject, state: VmState
) -> None:
    body = data.draw(a_body(spec))
    cluster = CLUSTERS[state]
    try:
        command = msgspec.convert(body, spec.struct)
    except msgspec.ValidationError:
        return
    try:
        decision = cluster.try_out(command)
    except Rejected as refusal:
        assert refusal.code and refusal.message and refusal.hint
        return
    for event in decision.events:
        raw = encode_event(event)
        assert decode_event(raw) == event, "what is written can be read back"
        assert tell(raw).summary


@pytest.mark.many_seeds
@EVERY_COMMAND
@given(value=ANYTHING)
def test_no_value_at_all_breaks_the_reading_of_a_command(spec: CommandSpec, value: Any) -> None:
    try:
        command = msgspec.convert(value, spec.struct)
    except msgspec.ValidationError as error:
        assert str(error)
    else:
        assert isinstance(command, spec.struct)


PIECES = st.sampled_from(
    [
        "<domain>",
        "</domain>",
        "<name>web01</name>",
        "<memory>65536</memory>",
        "<memory unit='",
        "'>",
        "MiB",
        "<vcpu>2</vcpu>",
        "<vcpu>",
        "</vcpu>",
        "<!DOCTYPE domain [",
        "<!ENTITY a 'b'>",
        "]>",
        "&a;",
        "&#0;",
        "<?xml version='1.0' encoding='utf-16'?>",
        "<?xml version='1.0' encoding='no-such'?>",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "xmlns:a='b'",
        "\x00",
        "٣",
        "9" * 30,
    ]
)


@given(st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join))
def test_no_text_breaks_the_reading_of_an_xml(xml: str) -> None:
    for text in (xml, f"<domain>{xml}</domain>", f"<domain><memory unit='MiB'>64</memory>{xml}</domain>"):
        try:
            parsed = parse_domain_xml(text)
        except InvalidInput as refusal:
            assert refusal.field == "xml" and refusal.hint
        else:
            assert parsed.spec.memory_mib >= 16 and parsed.spec.vcpus >= 1
