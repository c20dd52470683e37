"""Examples of replies, made from their types: every field with a value that it might well have."""

from __future__ import annotations

import base64
from typing import Any

from msgspec import NODEFAULT
from msgspec import inspect as types

from pvc.gateway.cards import BASE_PATH
from pvc.gateway.endpoint import Endpoint

MAX_DEPTH = 8
"""Of types within types; none of ours is as deep."""

_ID = "01JJXW6S00VTW2Z7Q4C9RTAH3N"
_TIME = "2025-01-31T12:00:00.000Z"
_TEXTS = {
    "name": "web01",
    "vm": "web01",
    "subject": "vm/4d7f0c52",
    "node": "hv1",
    "home": "hv1",
    "primary": "hv1",
    "origin": "hv1",
    "source": "hv1",
    "target": "hv2",
    "id": "4d7f0c52",
    "record": _ID,
    "correlation": _ID,
    "principal": "anna",
    "actor": "anna",
    "address": "192.0.2.7",
    "version": "0.1.0",
    "time": _TIME,
    "since": _TIME,
    "started": _TIME,
    "summary": "running on hv1",
    "url": "https://example.org/pvc",
    "path": "/var/lib/libvirt/images/web01.raw",
    "old": _TIME,
}
_NUMBERS = {"position": 1043, "memory_mib": 2048, "vcpus": 2, "status": 200, "level": 1}
_TIME_US = 1_738_324_800_000_000


def example_of_reply(endpoint: Endpoint) -> Any:
    """An example of an endpoint's JSON reply."""
    made = _example(types.type_info(endpoint.reply), "", 0)
    if endpoint.command is None or not isinstance(made, dict):
        return made
    spec = endpoint.command
    operation = {"id": _ID, "href": f"{BASE_PATH}/operations/{_ID}"} if spec.operation is not None else None
    made |= {"name": spec.name, "command": "9f2c61d0", "record": _ID, "changed": True, "dry_run": False}
    made |= {"repeated": False, "notes": [], "outcomes": dict(spec.outcomes), "operation": operation}
    return made


def _example(of: types.Type, name: str, depth: int) -> Any:
    told: list[Any] = []
    while isinstance(of, types.Metadata):
        told = told or list((of.extra_json_schema or {}).get("examples", ()))
        of = of.type
    if told:
        return told[0]
    match of:
        case types.UnionType():
            inner = [member for member in of.types if not isinstance(member, types.NoneType)]
            return _example(inner[0], name, depth)
        case types.StructType():
            shown = [field for field in of.fields if depth < MAX_DEPTH or field.default is NODEFAULT]
            return {field.encode_name: _example(field.type, field.name, depth + 1) for field in shown}
        case types.ListType() | types.VarTupleType() | types.SetType():
            return [_example(of.item_type, name, depth + 1)] if depth < MAX_DEPTH else []
        case types.DictType():
            return {}
        case types.StrType():
            return _TEXTS.get(name, "") if of.min_length is None else _TEXTS.get(name, "x" * of.min_length)
        case types.EnumType():
            return next(iter(of.cls)).value
        case types.LiteralType():
            return of.values[0]
        case types.BoolType():
            return False
        case types.IntType():
            return _TIME_US if name.endswith("_us") else max(_NUMBERS.get(name, 1), of.ge or 0)
        case types.FloatType():
            return 1.5
        case types.BytesType():
            return base64.b64encode(bytes(of.min_length or 0)).decode()
        case types.NoneType():
            return None
        case _:
            return {}
