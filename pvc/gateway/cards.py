"""Cards of the commands: what the API tells of itself, and what the CLI and the manual are made from.

A card is flat JSON, so that a client needs neither this package nor a JSON Schema library to build its options.
"""

from __future__ import annotations

import inspect
import re
from enum import Enum
from typing import Any

import msgspec
from msgspec import inspect as types

from pvc.commands.access_table import Action, least_role
from pvc.commands.base import CommandSpec
from pvc.events.types import Role

BASE_PATH = "/api/v1"
"""What every path in a card is below."""


class FieldCard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field of a command, or of the objects in a list."""

    name: str
    description: str
    type: str
    """`string`, `integer`, `boolean`, `enum`, `list` (of what `item` says) or `object-list` (of what `fields` say)."""
    required: bool | None = None
    default: Any = None
    """The value when the field is not given; absent where that is "nothing" or "as it was"."""
    enum: list[str] | None = None
    minimum: int | None = None
    maximum: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    example: Any = None
    positional: bool | None = None
    item: FieldCard | None = None
    fields: list[FieldCard] | None = None


class CommandCard(msgspec.Struct, frozen=True, kw_only=True):
    """All that a client or a manual needs to know of a command."""

    name: str
    cli: list[str]
    args: list[str]
    method: str
    path: str
    """Below /api/v1."""
    summary: str
    help: str
    role: Role
    """The least that suffices on the whole cluster; `action` says what of the table it is."""
    action: Action
    confirm: str
    outcomes: dict[str, bool]
    begins: list[str]
    """Event types with one of which it begins what the outcomes end, else it is done at once; none: with any."""
    example: dict[str, Any]
    fields: list[FieldCard]


def command_card(spec: CommandSpec) -> CommandCard:
    """The card of one command."""
    summary, help_text = docstring(spec.struct)
    info = types.type_info(spec.struct)
    assert isinstance(info, types.StructType), "a command is a struct"
    shown = [field for field in info.fields if field.name not in spec.internal]
    return CommandCard(
        name=spec.name,
        cli=list(spec.cli),
        args=list(spec.args),
        method=spec.method,
        path=spec.path,
        summary=summary,
        help=help_text,
        role=least_role(spec.action),
        action=spec.action,
        confirm=spec.confirm,
        outcomes=dict(spec.outcomes),
        begins=sorted(spec.begins),
        example=dict(spec.example),
        fields=[field_card(field, positional=field.name in spec.args) for field in shown],
    )


def field_card(field: types.Field, *, positional: bool = False) -> FieldCard:
    """The card of one field of a struct."""
    card = _type_card(field.name, field.type)
    default = None if field.default is msgspec.NODEFAULT else msgspec.to_builtins(field.default)
    return msgspec.structs.replace(card, required=field.required, default=default, positional=positional)


def docstring(of: type) -> tuple[str, str]:
    """The first line of a docstring, and the rest with each paragraph on one line."""
    first, _, rest = inspect.cleandoc(of.__doc__ or "").partition("\n")
    paragraphs = (" ".join(paragraph.split()) for paragraph in rest.strip().split("\n\n"))
    return first, "\n\n".join(paragraphs)


_PLAIN_CHOICE = re.compile(r"^\^\(([a-z0-9_-]+(?:\|[a-z0-9_-]+)+)\)\$$")
"""A pattern that is only a list of words reads better as an enumeration."""


def _type_card(name: str, of: types.Type) -> FieldCard:
    of, described = _unwrapped(of)
    about: dict[str, Any] = {
        "name": name,
        "description": described.get("description", ""),
        "example": next(iter(described.get("examples", ())), None),
    }
    match of:
        case types.StrType(pattern=words) if words and (choice := _PLAIN_CHOICE.match(words)):
            return FieldCard(type="enum", enum=choice[1].split("|"), **about)
        case types.StrType():
            about |= {
                "min_length": of.min_length,
                "max_length": of.max_length,
                "pattern": of.pattern or described.get("pattern"),
            }
            return FieldCard(type="string", **about)
        case types.IntType():
            return FieldCard(type="integer", minimum=of.ge, maximum=of.le, **about)
        case types.BoolType():
            return FieldCard(type="boolean", **about)
        case types.EnumType():
            return FieldCard(type="enum", enum=_values(of.cls), **about)
        case types.LiteralType(values=values):
            return FieldCard(type="enum", enum=[str(value) for value in values], **about)
        case types.VarTupleType(item_type=types.StructType() as item):
            fields = [field_card(field) for field in item.fields]
            about |= {"min_length": of.min_length, "max_length": of.max_length}
            return FieldCard(type="object-list", fields=fields, **about)
        case types.VarTupleType():
            return FieldCard(type="list", max_length=of.max_length, item=_type_card("", of.item_type), **about)
    raise AssertionError(f"field {name!r} has a type that has no card yet: {of}")


def _unwrapped(of: types.Type) -> tuple[types.Type, dict[str, Any]]:
    """The type beneath `| None` and Annotated, and what the annotations say."""
    described: dict[str, Any] = {}
    while True:
        if isinstance(of, types.Metadata):
            described = {**(of.extra_json_schema or {}), **described}
            of = of.type
        elif isinstance(of, types.UnionType):
            of = next(member for member in of.types if not isinstance(member, types.NoneType))
        else:
            return of, described


def _values(enum: type[Enum]) -> list[str]:
    return [str(member.value) for member in enum]
