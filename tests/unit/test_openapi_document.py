"""The OpenAPI document: valid, with examples that are what they are examples of, and with the codes of all problems."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import openapi_spec_validator
import pytest
from jsonschema import Draft202012Validator

from pvc.commands.access_table import Action
from pvc.gateway import app
from pvc.gateway.app import all_endpoints
from pvc.gateway.endpoint import Deprecated, Endpoint
from pvc.gateway.openapi import openapi_document
from pvc.schemas.problem_codes import problem_codes
from tests.unit.gateway_house import a_house
from tests.unit.test_error_codes import rows

DOCUMENT: dict[str, Any] = json.loads(json.dumps(openapi_document(all_endpoints())))


class Content(NamedTuple):
    """A body that is described."""

    where: str
    media_type: str
    schema: dict[str, Any]
    example: Any


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            yield operation["operationId"], operation


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    found: Any = value
    if "$ref" in value:
        found = DOCUMENT
        for word in value["$ref"].removeprefix("#/").split("/"):
            found = found[word]
    return dict(found)


def contents() -> Iterator[Content]:
    for name, operation in operations():
        bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for status, body in bodies.items():
            for media_type, content in resolved(body).get("content", {}).items():
                yield Content(f"{name} {status}", media_type, content["schema"], content.get("example"))


JSON = [content for content in contents() if content.media_type in ("application/json", "application/problem+json")]


def test_it_is_valid() -> None:
    openapi_spec_validator.validate(DOCUMENT)


def test_everything_that_is_json_has_an_example_and_each_example_is_right() -> None:
    wrong = {}
    for content in JSON:
        if content.where.startswith(("health ", "api.openapi ")):
            continue  # two small ones, and the document itself
        if content.example is None:
            wrong[content.where] = "no example"
            continue
        schema = {**content.schema, "components": DOCUMENT["components"]}
        errors = [error.message for error in Draft202012Validator(schema).iter_errors(content.example)]
        if errors:
            wrong[content.where] = errors[0]
    assert wrong == {}
    assert len(JSON) > 300


def test_each_operation_says_who_may_and_how_to_prove_it() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert schemes["token"]["scheme"] == "bearer"
    without = {"health"} | {endpoint.name for endpoint in all_endpoints() if endpoint.open}
    for name, operation in operations():
        asked = operation.get("security", DOCUMENT["security"])
        assert all(scheme in schemes for one in asked for scheme in one)
        assert bool(asked) == (name not in without)
        assert "401" in operation["responses"] or name == "health"


def test_the_codes_of_problems_are_those_of_the_manual() -> None:
    written = {row.code for row in rows()}
    unknown = {
        (name, code)
        for name, operation in operations()
        for response in operation["responses"].values()
        for code in response.get("x-codes", ())
        if code not in written and not ("*" in code and any(one.startswith(code.split("*")[0]) for one in written))
    }
    assert unknown == set()


@pytest.mark.parametrize(
    ("endpoint", "status", "code"),
    [
        ("vm.start", "409", "vm.is_running"),
        ("vm.start", "409", "vm.is_*"),
        ("vm.start", "404", "vm.not_found"),
        ("vm.start", "412", "precondition.changed"),
        ("vm.migrate", "409", "node.unsuitable"),
        ("vm.define", "409", "vm.name_taken"),
        ("vm.list", "422", "input.unknown_field"),
        ("vm.list", "422", "list.cursor_invalid"),
        ("time.diff", "422", "list.cursor_invalid"),
        ("operation.cancel", "409", "operation.not_cancellable"),
        ("node.flush", "409", "node.none_ready"),
        ("time.undo", "409", "undo.no_inverse"),
        ("log.repair", "415", "http.wrong_content_type"),
    ],
)
def test_the_codes_of_an_endpoint_are_found_wherever_they_are_raised(endpoint: str, status: str, code: str) -> None:
    assert code in problem_codes(all_endpoints())[endpoint][status]


def test_the_file_of_codes_is_that_of_the_source() -> None:
    stored = Path(__file__).parents[2] / "pvc" / "gateway" / "problem_codes.json"
    assert json.loads(stored.read_text()) == problem_codes(all_endpoints())


OLD = Endpoint(
    name="old.things",
    action=Action.SELF_READ,
    method="GET",
    path="/old-things",
    handle=next(one.handle for one in all_endpoints() if one.name == "access.whoami"),
    summary="Things, as they were.",
    media_type="application/json",
    deprecated=Deprecated(
        since=datetime.date(2026, 3, 1), sunset=datetime.date(2027, 3, 1), instead="`GET /api/v1/things`"
    ),
)


def test_what_is_deprecated_is_described_so() -> None:
    operation = openapi_document([OLD])["paths"]["/api/v1/old-things"]["get"]
    assert operation["deprecated"] is True and operation["x-sunset"] == "2027-03-01"
    assert "until 2027-03-01. Use `GET /api/v1/things`" in operation["description"]


async def test_each_reply_of_what_is_deprecated_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = app.all_endpoints()
    monkeypatch.setattr(app, "all_endpoints", lambda: [*real, OLD])
    async with a_house(tmp_path) as house:
        for path in ("/old-things", "/old-things?nonsense=1"):
            reply = await house.root.get(path)
            assert reply.headers["Deprecation"] == "@1772323200", path
            assert reply.headers["Sunset"] == "Mon, 01 Mar 2027 00:00:00 GMT"
            assert 'rel="deprecation"' in reply.headers["Link"]
        current = await house.root.get("/whoami")
        assert "Deprecation" not in current.headers and "Sunset" not in current.headers
