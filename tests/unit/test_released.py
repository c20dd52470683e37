"""What breaks those who have an earlier release is found before there is another; a release keeps what it was."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvc.events.registry import EVENTS
from pvc.schemas import __main__ as schemas
from pvc.schemas.compatible import api_breaks, command_breaks, event_breaks
from pvc.schemas.generate import generated_files
from pvc.schemas.released import NotReleasable, breaks_since, keep_release, last_release
from tests.support import golden

FILES = generated_files()
"""Made once: it takes a second."""

Document = dict[str, Any]

EVENT: Document = {
    "title": "vm.painted",
    "x-version": 1,
    "$ref": "#/$defs/VmPainted",
    "$defs": {
        "VmPainted": {
            "type": "object",
            "properties": {
                "vm": {"type": "string"},
                "colour": {"$ref": "#/$defs/Colour", "default": "red"},
                "coats": {"type": "integer", "minimum": 1, "maximum": 5, "default": 1},
                "where": {"type": "array", "items": {"type": "string", "maxLength": 10}, "default": []},
                "by": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
            "required": ["vm"],
        },
        "Colour": {"enum": ["red", "blue"]},
    },
}


def fields_of(event: Document) -> Document:
    fields: Document = event["$defs"]["VmPainted"]["properties"]
    return fields


def told(change: Callable[[Document], object], upcasters: tuple[tuple[str, int], ...] = ()) -> list[str]:
    """What the comparison says of a changed event."""
    present = copy.deepcopy(EVENT)
    change(present)
    return [str(one) for one in event_breaks({"vm.painted": EVENT}, {"vm.painted": present}, upcasters)]


@pytest.mark.parametrize(
    "change",
    [
        lambda event: event,
        lambda event: fields_of(event).update(gloss={"type": "boolean", "default": False}),
        lambda event: fields_of(event)["coats"].update(maximum=9, minimum=0),
        lambda event: fields_of(event)["coats"].pop("maximum"),
        lambda event: event["$defs"]["Colour"]["enum"].append("green"),
        lambda event: fields_of(event)["by"]["anyOf"].append({"type": "integer"}),
        lambda event: fields_of(event)["where"]["items"].pop("maxLength"),
        lambda event: event["$defs"]["VmPainted"].update(required=[]),
        lambda event: event["$defs"]["VmPainted"].update(description="otherwise said"),
        lambda event: (
            event["$defs"].update(Paint=event["$defs"].pop("VmPainted")),
            event.update({"$ref": "#/$defs/Paint"}),
        ),
    ],
)
def test_what_old_records_do_not_notice_is_let_pass(change: Callable[[Document], object]) -> None:
    assert told(change) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda event: fields_of(event).pop("coats"), "vm.painted.coats: the field is gone"),
        (lambda event: fields_of(event)["vm"].update(type="integer"), "vm.painted.vm: it was string and is integer"),
        (lambda event: fields_of(event)["coats"].update(default=2), "coats: its default was 1 and is 2"),
        (lambda event: fields_of(event)["coats"].update(maximum=3), "coats: maximum was 5 and is 3"),
        (lambda event: fields_of(event)["coats"].update(minimum=2), "coats: minimum was 1 and is 2"),
        (lambda event: fields_of(event)["vm"].update(pattern="^a$"), "vm: its pattern was 'none' and is '^a$'"),
        (lambda event: fields_of(event)["vm"].update(enum=["a"]), "vm: any other value is no longer taken"),
        (lambda event: event["$defs"]["Colour"].update(enum=["red"]), "colour: 'blue' is no longer taken"),
        (
            lambda event: fields_of(event)["where"]["items"].update(type="integer"),
            "where[]: it was string and is integer",
        ),
        (lambda event: fields_of(event)["by"].update(anyOf=[{"type": "null"}]), "by: string is no longer taken"),
        (
            lambda event: (
                fields_of(event).update(gloss={"type": "boolean"}),
                event["$defs"]["VmPainted"].update(required=["vm", "gloss"]),
            ),
            "gloss: it is new and has no default",
        ),
        (lambda event: event["$defs"]["VmPainted"].update(required=["vm", "coats"]), "coats: it is required now"),
        (lambda event: event.update({"x-version": 2}), "version 1 was released, and there is no upcaster from it"),
        (lambda event: event.update({"x-version": 0}), "its version went back from 1 to 0"),
    ],
)
def test_what_old_records_would_break_on_is_found_with_what_to_do(
    change: Callable[[Document], object], found: str
) -> None:
    [only] = told(change)
    assert found in only
    assert "\n    " in only, "a remedy"


def test_an_event_that_is_gone_is_found() -> None:
    [only] = event_breaks({"vm.painted": EVENT}, {}, ())
    assert (only.where, only.what) == ("event vm.painted", "it is gone")


def test_a_raised_version_with_its_upcasters_may_be_anything() -> None:
    def repaint(event: Document) -> None:
        event["x-version"] = 3
        event["$defs"]["VmPainted"] = {"type": "object", "properties": {"paint": {"type": "integer"}}}

    assert told(repaint, (("vm.painted", 1), ("vm.painted", 2))) == []
    [only] = told(repaint, (("vm.painted", 1),))
    assert "version 2 was released" not in told(repaint)[0] and "version 2" in only


def test_commands_are_held_to_what_clients_may_send() -> None:
    assert list(command_breaks({"vm.paint": EVENT}, {"vm.paint": EVENT, "vm.more": EVENT})) == []
    changed = copy.deepcopy(EVENT)
    fields_of(changed)["coats"]["default"] = 2
    assert list(command_breaks({"vm.paint": EVENT}, {"vm.paint": changed})) == [], "a default is no promise to clients"
    del fields_of(changed)["colour"]
    assert [one.where for one in command_breaks({"vm.paint": EVENT}, {"vm.paint": changed})] == [
        "command vm.paint.colour"
    ]
    assert [one.what for one in command_breaks({"vm.paint": EVENT}, {})] == ["it is gone"]


API: Document = {
    "paths": {
        "/vms": {
            "get": {
                "parameters": [{"$ref": "#/components/parameters/at"}],
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/List"}}}}
                },
            },
            "post": {
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Define"}}}},
                "responses": {"204": {}},
            },
        }
    },
    "components": {
        "parameters": {"at": {"name": "at", "in": "query", "schema": {"type": "string"}}},
        "schemas": {
            "List": {
                "type": "object",
                "properties": {
                    "items": {"type": "array", "items": {"$ref": "#/components/schemas/List"}},
                    "next": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["items"],
            },
            "Define": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        },
    },
}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda api: api["paths"].update({"/more": {}}), []),
        (lambda api: schema(api, "List")["properties"].update(more={"type": "string"}), []),
        (lambda api: schema(api, "List")["required"].append("next"), []),
        (lambda api: schema(api, "Define")["properties"].update(more={"type": "string"}), []),
        (lambda api: schema(api, "Define")["properties"].pop("name"), ["POST /vms body.name: the field is gone"]),
        (lambda api: api["paths"]["/vms"].pop("post"), ["POST /vms: it is gone"]),
        (lambda api: schema(api, "List")["properties"].pop("items"), ["GET /vms reply.items: the field is gone"]),
        (lambda api: schema(api, "List").update(required=[]), ["GET /vms reply.items: it may be missing now"]),
        (
            lambda api: schema(api, "List")["properties"]["next"]["anyOf"].append({"type": "integer"}),
            ["GET /vms reply.next: it may be integer now"],
        ),
        (lambda api: api["paths"]["/vms"]["get"].update(parameters=[]), ["GET /vms at: the argument is gone"]),
        (
            lambda api: api["paths"]["/vms"]["get"]["parameters"].append(
                {"name": "x", "in": "query", "required": True}
            ),
            ["GET /vms x: the argument is required now"],
        ),
        (
            lambda api: schema(api, "Define")["properties"]["name"].update(type="integer"),
            ["POST /vms body.name: it was string and is integer"],
        ),
    ],
)
def test_an_api_may_ask_no_more_and_answer_no_less(change: Callable[[Document], object], found: list[str]) -> None:
    present = copy.deepcopy(API)
    change(present)
    assert [f"{one.where}: {one.what}" for one in api_breaks(API, present)] == found


def schema(api: Document, name: str) -> Document:
    found: Document = api["components"]["schemas"][name]
    return found


# Releases.


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with the generated files and a corpus, and no release."""
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    corpus = golden.living()
    (tmp_path / "tests/golden").mkdir(parents=True)
    (tmp_path / "tests/golden" / corpus.name).write_bytes(corpus.read_bytes())
    return tmp_path


def test_before_the_first_release_there_is_nothing_to_break(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert last_release(tree) is None
    assert schemas.main(["--compatible"], tree) == 0
    assert "nothing is released yet" in capsys.readouterr().out


def test_a_release_keeps_every_schema_and_the_corpus_and_is_compatible_with_itself(tree: Path) -> None:
    kept = keep_release(tree, "0.1.0", FILES)
    assert last_release(tree) == kept
    assert {path.stem for path in (kept / "events").iterdir()} == {event.TYPE for event in EVENTS}
    assert (kept / "openapi.json").read_text() == FILES["schemas/openapi.json"]
    assert golden.read(kept / "records.json").entries
    assert breaks_since(kept, FILES) == []
    assert schemas.main(["--check"], tree) == 0, "what was kept is not taken for left over"
    assert schemas.main(["--compatible"], tree) == 0


def test_the_newest_release_counts_and_not_the_last_by_name(tree: Path) -> None:
    for version in ("0.9.0", "0.10.0"):
        keep_release(tree, version, FILES)
    last = last_release(tree)
    assert last is not None and last.name == "0.10.0"


def test_what_was_released_and_is_broken_now_fails_the_check(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = keep_release(tree, "0.1.0", FILES)
    stored = json.loads((kept / "events" / "vm.started.json").read_text())
    stored["$defs"]["VmStarted"]["properties"]["mood"] = {"type": "string", "default": ""}
    (kept / "events" / "vm.started.json").write_text(json.dumps(stored))
    (kept / "events" / "vm.teleported.json").write_text(json.dumps({**EVENT, "title": "vm.teleported"}))
    assert schemas.main(["--compatible"], tree) == 1
    out, err = capsys.readouterr()
    assert "event vm.started.mood: the field is gone" in out and "event vm.teleported: it is gone" in out
    assert "2 things break what 0.1.0 has released" in err
    with pytest.raises(NotReleasable, match="the field is gone"):
        keep_release(tree, "0.2.0", FILES)
    assert last_release(tree) == kept


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9", "0.2.0rc1"])
def test_a_release_is_never_written_again_nor_behind_another(tree: Path, version: str) -> None:
    kept = keep_release(tree, "0.1.0", FILES)
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    with pytest.raises(NotReleasable):
        keep_release(tree, version, FILES)
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before
    assert [path.name for path in kept.parent.iterdir()] == ["0.1.0"]


def test_what_is_out_of_date_is_not_released(tree: Path) -> None:
    (tree / "schemas/events/vm.started.json").write_text("{}")
    with pytest.raises(NotReleasable, match="out of date"):
        keep_release(tree, "0.1.0", FILES)
    assert last_release(tree) is None


def test_without_a_corpus_there_is_no_release(tree: Path) -> None:
    for path in (tree / "tests/golden").iterdir():
        path.unlink()
    with pytest.raises(NotReleasable, match="corpus"):
        keep_release(tree, "0.1.0", FILES)


def test_a_release_that_was_cut_off_is_none_and_is_made_anew(tree: Path) -> None:
    half = tree / "schemas/released/.0.1.0"
    half.mkdir(parents=True)
    (half / "openapi.json").write_text("{}")
    assert last_release(tree) is None
    assert breaks_since(keep_release(tree, "0.1.0", FILES), FILES) == []
    assert not half.exists()


def test_this_tree_is_compatible_with_its_last_release() -> None:
    assert schemas.main(["--compatible"]) == 0
