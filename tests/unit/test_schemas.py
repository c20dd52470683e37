"""The generated files are current, and what once was an event can be read for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from pvc.commands.registry import COMMANDS
from pvc.events.registry import BY_TYPE, EVENTS
from pvc.projections.vm_machine import VmState
from pvc.schemas.compatible import event_breaks
from pvc.schemas.generate import event_schema, generated_files, generated_present
from pvc.schemas.states_page import MEANINGS

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "events.json"
"""The schemas of all events as they were released. A new event or an optional field is added to it by
`python -m tests.unit.test_schemas`, which refuses anything else."""


def test_every_generated_file_is_current() -> None:
    stale = [path for path, text in generated_files().items() if text_of(path) != text]
    assert stale == [], "run ./dev schemas"


def test_no_generated_file_is_left_over() -> None:
    found = generated_present(ROOT)
    assert found - set(generated_files()) == set(), "run ./dev schemas"


@pytest.mark.parametrize("spec", COMMANDS, ids=lambda spec: spec.name)
def test_the_example_of_every_command_fits_its_schema(spec: Any) -> None:
    schema = json.loads(text_of(f"schemas/commands/{spec.name}.json") or "")
    jsonschema.validate(dict(spec.example), schema)
    assert msgspec.convert(spec.example, spec.struct)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**spec.example, "no_such_field": 1}, schema)


def test_the_golden_copy_has_every_event() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert set(golden) == set(BY_TYPE), "add the new ones: python -m tests.unit.test_schemas"


@pytest.mark.parametrize("name", json.loads(GOLDEN.read_text()) if GOLDEN.exists() else [])
def test_events_only_ever_gain_optional_fields(name: str) -> None:
    assert name in BY_TYPE, f"{name} is in logs out there and must stay readable"
    golden = json.loads(GOLDEN.read_text())[name]
    present = json.loads(msgspec.json.encode(event_schema(BY_TYPE[name])))
    if present["x-version"] > golden["x-version"]:
        pytest.fail(
            f"{name} has a new version: keep version {golden['x-version']} in the golden copy and test its upcaster"
        )
    assert incompatibilities(golden, present) == []


def test_the_compatibility_test_sees_what_breaks_readers() -> None:
    golden = json.loads(msgspec.json.encode(event_schema(BY_TYPE["vm.started"])))

    def changed(**changes: Any) -> list[str]:
        present = json.loads(json.dumps(golden))
        present["$defs"]["VmStarted"].update(changes)
        return incompatibilities(golden, present)

    properties = golden["$defs"]["VmStarted"]["properties"]
    assert changed() == []
    assert changed(properties={**properties, "more": {"type": "string"}}) == []
    assert changed(description="said otherwise") == []
    assert changed(required=["vm", "node", "epoch", "more"]) != []
    assert changed(properties={"vm": properties["vm"], "node": properties["node"]}) != []
    assert changed(properties={**properties, "epoch": {"type": "string"}}) != []
    assert changed(properties={**properties, "node": {**properties["node"], "maxLength": 10}}) != []


def test_every_state_has_its_sentence() -> None:
    assert set(MEANINGS) == set(VmState)


def incompatibilities(golden: Any, present: Any) -> list[str]:
    """What data that fitted `golden` may not fit in `present`."""
    return [f"{one.where}: {one.what}" for one in event_breaks({"it": golden}, {"it": present}, ())]


def text_of(path: str) -> str | None:
    file = ROOT / path
    return file.read_text() if file.exists() else None


def release() -> None:
    """Put what is new into the golden copy; refuse whatever breaks it."""
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for event in EVENTS:
        present = json.loads(msgspec.json.encode(event_schema(event)))
        broken = incompatibilities(golden.get(event.TYPE, present), present)
        if broken:
            raise SystemExit(f"{event.TYPE}: {broken}")
        golden[event.TYPE] = present
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    release()
