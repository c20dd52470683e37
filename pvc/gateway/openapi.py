"""The OpenAPI 3.1 document, made from the same list of endpoints as the routes."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import inspect as types
from starlette.responses import Response

from pvc import __version__
from pvc.commands.access_table import Action, roles_for, told_action
from pvc.commands.base import CommandSpec
from pvc.gateway.cards import BASE_PATH, FieldCard, field_card
from pvc.gateway.console import CONSOLE_ACTION, CONSOLE_PATH
from pvc.gateway.endpoint import Call, Endpoint
from pvc.gateway.health import Health
from pvc.gateway.problems import CONTENT_TYPE, Problem
from pvc.gateway.services import GatewayServices
from pvc.peers.credentials import SCHEME

_OWN_NAME = "api.openapi"
_OR_PEER = ", or another node of the cluster"
_REF = "#/components/schemas/{name}"
_INTRODUCTION = """\
Every command is a record in one log, and every reply tells the log's position (`PVC-Position`). A read with
`min_position` waits until the answering node has folded that position, so you read your own writes anywhere.

Fields of a command come as JSON, as a form, or as query arguments. Errors are problems (RFC 9457) with a stable `code`
and a `hint`.
"""
_PROBLEMS = {
    "400": "The body cannot be read.",
    "401": "There is no valid token.",
    "403": "The token's role does not allow it, or not for this VM.",
    "404": "Something named does not exist.",
    "409": "The present state does not allow it; or there is no cluster yet.",
    "413": "The body, or the record it would make, is too large.",
    "415": "The body is neither JSON nor a form.",
    "422": "A field's value cannot be accepted.",
    "429": "Too many wrong tokens came from this address.",
    "503": "The log or the node cannot answer now. Nothing was changed.",
    "504": "The outcome is not known. Ask again with the same key.",
}
_OTHER_SCHEMAS: dict[str, dict[str, Any]] = {
    "text/plain": {"type": "string"},
    "application/json": {"type": "object"},
    "application/octet-stream": {},
}
_FOR_QUERIES = ("401", "403", "404", "409", "422", "429", "503")


def openapi_document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document as JSON-compatible values."""
    schemas = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(BASE_PATH + endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    paths[BASE_PATH + CONSOLE_PATH] = {"get": _console_operation()}
    paths[f"{BASE_PATH}/health"] = {"get": _health_operation(schemas)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PVC",
            "version": __version__,
            "description": _INTRODUCTION,
            "license": {"name": "GPL-3.0-only", "identifier": "GPL-3.0-only"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token `pvc_<id>_<secret>`. Over the Unix socket none is needed.",
                },
                "peer": {
                    "type": "http",
                    "scheme": SCHEME,
                    "description": "How another node proves that it is one: docs/decisions/0018-peers.md.",
                },
            },
            "parameters": {"min_position": _min_position(), "dry_run": _dry_run(), "key": _key(), "source": _source()},
            "headers": {
                "position": {"description": "The log's position at this reply.", "schema": {"type": "integer"}}
            },
            "responses": {status: _problem(text) for status, text in _PROBLEMS.items()},
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
        schemas, self.components = msgspec.json.schema_components(of, ref_template=_REF)
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


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    statuses = _PROBLEMS if endpoint.method != "GET" else _FOR_QUERIES
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
            **{status: {"$ref": f"#/components/responses/{status}"} for status in statuses},
        },
    }
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


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = ["min_position", *(["dry_run", "key", "source"] if endpoint.command or endpoint.controls else [])]
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
                "schema": _card_schema(card) if card else {"type": "string"},
            }
        )
    if endpoint.arguments is not None:
        parameters += [_query_parameter(card) for card in cards.values()]
    parameters += [
        {"name": header.name, "in": "header", "description": header.description, "schema": dict(header.schema)}
        for header in endpoint.headers
    ]
    return parameters


def _query_parameter(card: FieldCard) -> dict[str, Any]:
    style: dict[str, Any] = {"style": "form", "explode": False} if card.type == "list" else {}
    about = {"name": card.name, "in": "query", "description": card.description, "schema": _card_schema(card)}
    return {**about, **style}


def _card_schema(card: FieldCard) -> dict[str, Any]:
    """The JSON Schema of a plain field."""
    if card.type == "list":
        assert card.item, "a list has items"
        return {"type": "array", "items": _card_schema(card.item)}
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
        content = {"application/json": {"schema": schemas.of(endpoint.reply)}}
        if endpoint.reply_example is not None:
            content["application/json"]["example"] = dict(endpoint.reply_example)
    for media_type, (items, example) in endpoint.streams.items():
        # What comes is a text without an end; OpenAPI 3.1 has no word for a sequence of documents.
        schema: dict[str, Any] = {"type": "string"}
        if items:
            each = {"anyOf": [schemas.of(item) for item in items]}
            schema |= {"contentMediaType": "application/json", "contentSchema": each}
        content[media_type] = {"schema": schema, "example": example}
    return {"description": endpoint.summary, "headers": _position_header(), "content": content}


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
            "200": {"description": "It can.", "headers": _position_header(), "content": content},
            "503": {"description": "It cannot take commands.", "headers": _position_header(), "content": content},
        },
    }


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=Problem.__name__)}
    return {"description": text, "headers": _position_header(), "content": {CONTENT_TYPE: {"schema": schema}}}


def _position_header() -> dict[str, Any]:
    return {"PVC-Position": {"$ref": "#/components/headers/position"}}


def _min_position() -> dict[str, Any]:
    text = "Wait until this position is folded, at most 10 s."
    return {"name": "min_position", "in": "query", "description": text, "schema": {"type": "integer", "minimum": 0}}


def _dry_run() -> dict[str, Any]:
    text = "Say what would happen, and change nothing."
    return {"name": "dry_run", "in": "query", "description": text, "schema": {"type": "boolean", "default": False}}


def _key() -> dict[str, Any]:
    text = "Makes the command safe to send again: with the same key it is not done twice."
    schema = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"}
    return {"name": "Idempotency-Key", "in": "header", "description": text, "schema": schema}


def _source() -> dict[str, Any]:
    text = "Through what the command comes, for the history."
    schema = {"type": "string", "maxLength": 64, "examples": ["cli/0.1.0"]}
    return {"name": "PVC-Source", "in": "header", "description": text, "schema": schema}


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
