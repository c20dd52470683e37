"""The parts of the OpenAPI document that all endpoints share: parameters, headers, and replies that are no success."""

from __future__ import annotations

from typing import Any

from pvc.gateway.problems import CONTENT_TYPE, Problem

REF = "#/components/schemas/{name}"
TAG_EXAMPLE = '"1043.5f2d8c01e97a4b36"'


def problem(text: str) -> dict[str, Any]:
    """The reply that tells of an error."""
    schema = {"$ref": REF.format(name=Problem.__name__)}
    return {"description": text, "headers": position_header(), "content": {CONTENT_TYPE: {"schema": schema}}}


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
