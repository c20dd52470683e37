"""The OpenAPI 3.1 document, made from the same list of endpoints as the routes."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect as types
from starlette.responses import Response

from pvc import __version__
from pvc.commands.access_table import Action, roles_for, told_action
from pvc.commands.base import CommandSpec
from pvc.gateway.cards import BASE_PATH, FieldCard, field_card
from pvc.gateway.console import CONSOLE_ACTION, CONSOLE_PATH
from pvc.gateway.endpoint import Call, Endpoint
from pvc.gateway.examples import example_of_reply
from pvc.gateway.health import Health
from pvc.gateway.lists import ListOf
from pvc.gateway.openapi_parts import (
    INTRODUCTION,
    PROBLEMS,
    REF,
    TAG_EXAMPLE,
    dry_run,
    if_match,
    if_none_match,
    key,
    min_position,
    not_modified,
    position_header,
    problem,
    security_schemes,
    source,
    tag_header,
)
from pvc.gateway.problems import Problem
from pvc.gateway.services import GatewayServices
from pvc.gateway.tags import subject_kind

Codes: TypeAlias = Mapping[str, Mapping[str, list[str]]]

_OWN_NAME = "api.openapi"
_OR_PEER = ", or another node of the cluster"
_OTHER_SCHEMAS: dict[str, dict[str, Any]] = {
    "text/plain": {"type": "string"},
    "application/json": {"type": "object"},
    "application/octet-stream": {},
}
_FOR_QUERIES = ("401", "403", "404", "409", "422", "429", "503")


def openapi_document(endpoints: Sequence[Endpoint], codes: Codes | None = None) -> dict[str, Any]:
    """The document as JSON-compatible values; `codes`: endpoint -> status -> problem codes, else those of the file."""
    schemas = _schemas(endpoints)
    codes = codes if codes is not None else _known_codes()
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(BASE_PATH + endpoint.path, {})[endpoint.method.lower()] = _operation(
            endpoint, schemas, codes.get(endpoint.name, {})
        )
    paths[BASE_PATH + CONSOLE_PATH] = {"get": _console_operation()}
    paths[f"{BASE_PATH}/health"] = {"get": _health_operation(schemas)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PVC",
            "version": __version__,
            "description": INTRODUCTION,
            "license": {"name": "GPL-3.0-only", "identifier": "GPL-3.0-only"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": security_schemes(),
            "parameters": {
                "min_position": min_position(),
                "dry_run": dry_run(),
                "key": key(),
                "source": source(),
                "if_match": if_match(),
                "if_none_match": if_none_match(),
            },
            "headers": {
                "position": {"description": "The log's position at this reply.", "schema": {"type": "integer"}},
                "tag": {
                    "description": "Give it as `If-None-Match` to be spared what has not changed; that of one thing, "
                    "as `If-Match` to hold a command to it.",
                    "schema": {"type": "string", "examples": [TAG_EXAMPLE]},
                },
            },
            "responses": {
                **{status: problem(status, text) for status, text in PROBLEMS.items()},
                "304": not_modified(),
            },
        },
    }


def json_schema(struct: type[msgspec.Struct], hidden: Iterable[str] = ()) -> dict[str, Any]:
    """The JSON Schema of one struct, without the fields that nobody may give."""
    schema = msgspec.json.schema(struct)
    body = schema["$defs"][struct.__name__]
    for name in hidden:
        del body["properties"][name]
    return schema


class _Schemas:
    """JSON Schemas of types, and the components they refer to."""

    def __init__(self, of: Sequence[Any]) -> None:
        schemas, self.components = msgspec.json.schema_components(of, ref_template=REF)
        self._schemas = dict(zip(map(_key_of, of), schemas, strict=True))

    def of(self, type_: Any) -> dict[str, Any]:
        return self._schemas[_key_of(type_)]


def _key_of(type_: Any) -> str:
    return repr(type_)


def _schemas(endpoints: Sequence[Endpoint]) -> _Schemas:
    commands = [endpoint.command for endpoint in endpoints if endpoint.command]
    replies = [endpoint.reply for endpoint in endpoints if endpoint.reply is not None]
    replies += [item for endpoint in endpoints for items, _ in endpoint.streams.values() for item in items]
    bodies = [endpoint.body for endpoint in endpoints if endpoint.body is not None]
    unique = {
        _key_of(type_): type_ for type_ in [*replies, *bodies, *(spec.struct for spec in commands), Problem, Health]
    }
    schemas = _Schemas(list(unique.values()))
    for spec in commands:
        _drop_given_elsewhere(schemas.components[spec.struct.__name__], spec)
    return schemas


def _drop_given_elsewhere(component: dict[str, Any], spec: CommandSpec) -> None:
    """A body need not repeat what the path says, and may not say what only the gateway sets."""
    for name in spec.internal:
        del component["properties"][name]
    in_path = _in_path(spec.path)
    for name in in_path:
        del component["properties"][name]
    required = [name for name in component.get("required", ()) if name not in in_path]
    component.pop("required", None)
    if required:
        component["required"] = required


def _operation(endpoint: Endpoint, schemas: _Schemas, codes: Mapping[str, list[str]]) -> dict[str, Any]:
    statuses = [status for status in PROBLEMS if status != "412" or _is_held(endpoint)]
    if endpoint.method == "GET":
        statuses = list(_FOR_QUERIES)
    or_peer = _OR_PEER if endpoint.peers else ""
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.path.split("/")[1]],
        "summary": endpoint.summary,
        "description": f"{endpoint.help}\n\n{told_action(endpoint.action)}{or_peer}.".strip(),
        "x-action": endpoint.action.value,
        "x-roles": [role.value for role in roles_for(endpoint.action)],
        "parameters": _parameters(endpoint),
        "responses": {
            "200": _success(endpoint, schemas),
            **({"304": {"$ref": "#/components/responses/304"}} if _is_tagged(endpoint) else {}),
            **{status: _refusal(status, codes.get(status, ())) for status in statuses},
        },
    }
    if endpoint.deprecated is not None:
        gone = endpoint.deprecated
        operation |= {"deprecated": True, "x-sunset": gone.sunset.isoformat()}
        operation["description"] += f"\n\nDeprecated since {gone.since}; works until {gone.sunset}. Use {gone.instead}."
    if endpoint.open:
        operation["security"] = []
    if endpoint.peers:
        operation["security"] = [{"token": []}, {"peer": []}]
    if endpoint.command is not None:
        body = _body(endpoint.command, schemas)
        if body is not None:
            operation["requestBody"] = body
    if endpoint.body is not None:
        schema = {"schema": schemas.of(endpoint.body), "example": endpoint.body_example}
        operation["requestBody"] = {"required": True, "content": {"application/json": schema}}
    return operation


def _refusal(status: str, codes: Sequence[str]) -> dict[str, Any]:
    """The reply with this status; where its codes are known, with them."""
    if not codes:
        return {"$ref": f"#/components/responses/{status}"}
    return problem(status, PROBLEMS[status], codes)


@functools.cache
def _known_codes() -> Codes:
    codes: Codes = json.loads(Path(__file__).with_name("problem_codes.json").read_bytes())
    return codes


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = ["min_position", *(["dry_run", "key", "source"] if endpoint.command or endpoint.controls else [])]
    if _is_held(endpoint):
        names.append("if_match")
    if _is_tagged(endpoint):
        names.append("if_none_match")
    parameters: list[dict[str, Any]] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    struct = endpoint.command.struct if endpoint.command else endpoint.arguments
    cards = _cards(struct) if struct else {}
    for name in _in_path(endpoint.path):
        card = cards.get(name)
        parameters.append(
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": card.description if card else f"The {name}.",
                "schema": _card_schema(card) if card else dict(endpoint.places.get(name, {"type": "string"})),
            }
        )
    if endpoint.arguments is not None:
        parameters += [_query_parameter(card, endpoint.listing) for card in cards.values()]
    parameters += [
        {"name": header.name, "in": "header", "description": header.description, "schema": dict(header.schema)}
        for header in endpoint.headers
    ]
    return parameters


def _query_parameter(card: FieldCard, listing: ListOf[Any] | None) -> dict[str, Any]:
    style: dict[str, Any] = {"style": "form", "explode": False} if card.type == "list" else {}
    schema = _card_schema(card)
    if listing is not None and card.name in ("sort", "fields"):
        words = listing.sortable if card.name == "sort" else listing.fields
        schema["items"] = {"type": "string", "enum": list(words)}
        schema["examples"] = [[words[1]]]
    about: dict[str, Any] = {"name": card.name, "in": "query", "description": card.description, "schema": schema}
    if card.required:
        about["required"] = True
    return {**about, **style}


def _card_schema(card: FieldCard) -> dict[str, Any]:
    """The JSON Schema of a plain field."""
    if card.type == "list":
        assert card.item, "a list has items"
        limit = {"maxItems": card.max_length} if card.max_length is not None else {}
        return {"type": "array", "items": _card_schema(card.item), **limit}
    schema = {
        "type": "string" if card.type == "enum" else card.type,
        "enum": card.enum,
        "minimum": card.minimum,
        "maximum": card.maximum,
        "minLength": card.min_length,
        "maxLength": card.max_length,
        "pattern": card.pattern,
        "default": card.default,
        "examples": [card.example] if card.example is not None else None,
    }
    return {name: value for name, value in schema.items() if value is not None}


def _body(spec: CommandSpec, schemas: _Schemas) -> dict[str, Any] | None:
    schema = schemas.of(spec.struct)
    component = schemas.components[spec.struct.__name__]
    if not component["properties"]:
        return None
    in_path = _in_path(spec.path)
    example = {name: value for name, value in spec.example.items() if name not in in_path}
    return {
        "required": bool(component.get("required")),
        "content": {
            "application/json": {"schema": schema, "example": example},
            "application/x-www-form-urlencoded": {"schema": schema},
            "multipart/form-data": {"schema": schema},
        },
    }


def _success(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    content: dict[str, dict[str, Any]]
    if endpoint.reply is None:
        content = {endpoint.media_type: {"schema": _OTHER_SCHEMAS[endpoint.media_type]}}
    else:
        content = {"application/json": {"schema": _reply_schema(endpoint, schemas)}}
        told = endpoint.reply_example
        content["application/json"]["example"] = dict(told) if told is not None else example_of_reply(endpoint)
    for media_type, (items, example) in endpoint.streams.items():
        # What comes is a text without an end; OpenAPI 3.1 has no word for a sequence of documents.
        schema: dict[str, Any] = {"type": "string"}
        if items:
            each = {"anyOf": [schemas.of(item) for item in items]}
            schema |= {"contentMediaType": "application/json", "contentSchema": each}
        content[media_type] = {"schema": schema, "example": example}
    headers = {**position_header(), **(tag_header() if _is_tagged(endpoint) else {})}
    return {"description": endpoint.summary, "headers": headers, "content": content}


def _is_tagged(endpoint: Endpoint) -> bool:
    """Whether its replies have an entity tag."""
    return endpoint.method == "GET" and (endpoint.reply is not None or endpoint.media_type == "application/json")


def _is_held(endpoint: Endpoint) -> bool:
    """Whether it can be held to what its sender has seen."""
    return endpoint.command is not None and subject_kind(endpoint.command) is not None


def _reply_schema(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    """The schema of a JSON reply; in a list each item may have come with some fields only."""
    if endpoint.listing is None:
        return schemas.of(endpoint.reply)
    item = schemas.components[endpoint.listing.item.__name__]
    some = {"type": "object", "properties": item["properties"], "additionalProperties": False}
    page = schemas.components[endpoint.reply.__name__]
    rows = page["properties"][endpoint.listing.rows]
    cut_down = {**rows, "items": {"anyOf": [rows["items"], some]}}
    return {**page, "properties": {**page["properties"], endpoint.listing.rows: cut_down}}


def _console_operation() -> dict[str, Any]:
    return {
        "operationId": "vm.console",
        "tags": ["vms"],
        "summary": "The live serial console, as a WebSocket.",
        "description": f"Binary frames both ways.\n\n{told_action(CONSOLE_ACTION)}.",
        "x-action": CONSOLE_ACTION.value,
        "x-roles": [role.value for role in roles_for(CONSOLE_ACTION)],
        "parameters": [{"name": "vm", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "101": {"description": "The socket is open."},
            **{status: {"$ref": f"#/components/responses/{status}"} for status in _FOR_QUERIES},
        },
    }


def _health_operation(schemas: _Schemas) -> dict[str, Any]:
    content = {"application/json": {"schema": schemas.of(Health)}}
    return {
        "operationId": "health",
        "tags": ["health"],
        "summary": "Whether this gateway can do its work.",
        "description": "Needs no token. Also at /health.",
        "security": [],
        "responses": {
            "200": {"description": "It can.", "headers": position_header(), "content": content},
            "503": {"description": "It cannot take commands.", "headers": position_header(), "content": content},
        },
    }


def _in_path(path: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", path)


def _cards(struct: type[msgspec.Struct]) -> dict[str, FieldCard]:
    info = types.type_info(struct)
    assert isinstance(info, types.StructType), "fields are those of a struct"
    return {field.name: field_card(field) for field in info.fields}


def openapi_endpoint(others: Sequence[Endpoint]) -> Endpoint:
    """The endpoint that serves the document of all the others and of itself; it is made when it is first asked for."""

    @functools.cache
    def document() -> bytes:
        return msgspec.json.encode(openapi_document([*others, itself]))

    async def serve(services: GatewayServices, call: Call) -> Response:
        return Response(document(), media_type="application/json")

    itself = Endpoint(
        name=_OWN_NAME,
        action=Action.SELF_READ,
        method="GET",
        path="/openapi.json",
        handle=serve,
        summary="This document.",
        media_type="application/json",
        before_init=True,
    )
    return itself
