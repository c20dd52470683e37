"""The parts of the OpenAPI document that all endpoints share: parameters, headers, and replies that are no success."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pvc.gateway.problems import CONTENT_TYPE, Problem
from pvc.peers.credentials import SCHEME

REF = "#/components/schemas/{name}"
INTRODUCTION = """\
Every command is a record in one log, and every reply tells the log's position (`PVC-Position`). A read with
`min_position` waits until the answering node has folded that position, so you read your own writes anywhere.

Fields of a command come as JSON, as a form, or as query arguments. Errors are problems (RFC 9457) with a stable `code`
and a `hint`.
"""
PROBLEMS = {
    "400": "The body cannot be read.",
    "401": "There is no valid token.",
    "403": "The token's role does not allow it, or not for this VM.",
    "404": "Something named does not exist.",
    "409": "The present state does not allow it; or there is no cluster yet.",
    "412": "What it is about has changed since the read that `If-Match` names.",
    "413": "The body, or the record it would make, is too large.",
    "415": "The body is neither JSON nor a form.",
    "422": "A field's value cannot be accepted.",
    "429": "Too many wrong tokens came from this address.",
    "503": "The log or the node cannot answer now. Nothing was changed.",
    "504": "The outcome is not known. Ask again with the same key.",
}
"""Statuses of refusals, and what each means."""

TAG_EXAMPLE = '"1043.5f2d8c01e97a4b36"'


def security_schemes() -> dict[str, Any]:
    """How one may prove who one is."""
    return {
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
    }


def problem(status: str, text: str, codes: Sequence[str] = ()) -> dict[str, Any]:
    """The reply that tells of an error, with the codes that it may have, and one of them as an example."""
    schema: dict[str, Any] = {"$ref": REF.format(name=Problem.__name__)}
    told = f"{text} Codes: {', '.join(f'`{code}`' for code in codes)}." if codes else text
    code = next((code for code in codes if "*" not in code), _CODES.get(status, "internal"))
    example = {
        "type": "about:blank",
        "title": HTTPStatus(int(status)).phrase,
        "status": int(status),
        "detail": text.rstrip("."),
        "code": code,
        "hint": f"docs/errors.md says what to do about {code}",
        "field": "",
        "position": 1043,
    }
    content = {CONTENT_TYPE: {"schema": schema, "example": example}}
    extra = {"x-codes": list(codes)} if codes else {}
    return {"description": told, "headers": position_header(), "content": content, **extra}


_CODES = {
    "400": "input.malformed",
    "401": "access.token_invalid",
    "403": "access.forbidden",
    "404": "vm.not_found",
    "409": "cluster.not_initialised",
    "412": "precondition.changed",
    "413": "input.too_large",
    "415": "http.wrong_content_type",
    "422": "input.invalid",
    "429": "access.too_many_requests",
    "503": "log.unreachable",
    "504": "log.outcome_unknown",
}
"""For the examples of those that are the same everywhere."""


def position_header() -> dict[str, Any]:
    """The log's position, with every reply."""
    return {"PVC-Position": {"$ref": "#/components/headers/position"}}


def min_position() -> dict[str, Any]:
    """Read what was written."""
    text = "Wait until this position is folded, at most 10 s."
    return {"name": "min_position", "in": "query", "description": text, "schema": {"type": "integer", "minimum": 0}}


def dry_run() -> dict[str, Any]:
    """Try a command out."""
    text = "Say what would happen, and change nothing."
    return {"name": "dry_run", "in": "query", "description": text, "schema": {"type": "boolean", "default": False}}


def key() -> dict[str, Any]:
    """Send a command again."""
    text = "Makes the command safe to send again: with the same key it is not done twice."
    schema = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"}
    return {"name": "Idempotency-Key", "in": "header", "description": text, "schema": schema}


def source() -> dict[str, Any]:
    """Where a command comes from."""
    text = "Through what the command comes, for the history: 64 letters at most, or it is taken for nothing said."
    schema = {"type": "string", "examples": ["cli/0.1.0"]}
    return {"name": "PVC-Source", "in": "header", "description": text, "schema": schema}


def if_match() -> dict[str, Any]:
    """Hold a command to what was seen."""
    text = "The ETag of a read of what it is about: refused with 412 where a record has touched that since."
    tag = '"[!#-~]{0,200}"'
    schema = {**tags_schema(), "pattern": rf"^(\*|{tag}(, ?{tag}){{0,9}})$"}
    return {"name": "If-Match", "in": "header", "description": text, "schema": schema}


def if_none_match() -> dict[str, Any]:
    """Read only what is new."""
    text = "The ETag of an earlier reply: 304 without a body where nothing has changed."
    return {"name": "If-None-Match", "in": "header", "description": text, "schema": tags_schema()}


def tags_schema() -> dict[str, Any]:
    """Entity tags in a header."""
    return {"type": "string", "examples": [TAG_EXAMPLE]}


def tag_header() -> dict[str, Any]:
    """The entity tag of a reply."""
    return {"ETag": {"$ref": "#/components/headers/tag"}}


def not_modified() -> dict[str, Any]:
    """The reply to who has it already."""
    headers = {**position_header(), **tag_header()}
    return {"description": "The reader has it already, by its `If-None-Match`.", "headers": headers}
