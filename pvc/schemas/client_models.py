"""Writes the client library's models: a struct for each type of the gateway's replies, and one for each input object.

A model says less than the type it is made from, so that a client and a gateway of different versions understand each
other: enumerations are plain strings, fields that are not there have an empty value, and unknown ones are ignored.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import inspect as types

from pvc.gateway.cards import FieldCard, docstring

WIDTH = 120

LONG = 70
"""Characters of an enumeration that is not written out in a signature."""

_HEAD = '''\
"""What the gateway's replies hold, and the objects that its commands take. Generated: see pvc/schemas."""

from __future__ import annotations

from typing import Any, Literal, Required, TypedDict

import msgspec


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What all models are: values that compare and print, and that no one changes.

    A field that the gateway does not send, because it is older than this library, has an empty value.
    """
'''


class Models:
    """Collects the types that the methods speak of, and writes a class for each."""

    def __init__(self) -> None:
        self._structs: dict[str, types.StructType] = {}
        self._inputs: dict[str, Sequence[FieldCard]] = {}
        self._choices: dict[str, list[str]] = {}

    def annotation(self, of: Any) -> str:
        """How the type of a reply is spelt; all that it is made of is written, too."""
        return self._spelt(of if isinstance(of, types.Type) else types.type_info(of))

    def input_annotation(self, card: FieldCard, called: str = "") -> str:
        """How the type of an argument is spelt. A long enumeration gets a name of its own: what it is `called`."""
        match card.type:
            case "enum":
                values = [_quoted(value) for value in card.enum or ()]
                spelt = f"Literal[{', '.join(values)}]"
                if len(spelt) <= LONG or not called:
                    return spelt
                assert self._choices.setdefault(called, values) == values, f"two enumerations are called {called}"
                return called
            case "list":
                assert card.item is not None, "a list has items"
                return f"Sequence[{self.input_annotation(card.item, called)}]"
            case "object-list":
                name = f"{card.name.removesuffix('s').title().replace('_', '')}Input"
                assert self._inputs.setdefault(name, card.fields or ()) == (card.fields or ()), f"two kinds of {name}"
                return f"Sequence[{name}]"
            case "mappings":
                return "Sequence[Mapping[str, Any]]"
        return {"string": "str", "integer": "int", "boolean": "bool"}[card.type]

    @property
    def inputs(self) -> list[str]:
        """Names of the input objects and of the enumerations that have one."""
        return sorted([*self._inputs, *self._choices])

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return sorted(self._structs)

    def module(self) -> str:
        """The module's text."""
        classes = [_struct_text(self, name, struct) for name, struct in sorted(self._structs.items())]
        classes += [self._input_text(name) for name in sorted(self._inputs)]
        choices = [self._choice_text(name) for name in sorted(self._choices)]
        return "\n\n".join([_HEAD, *classes, "\n" + "\n\n".join(choices) + "\n"]).replace("\n\n\n\n", "\n\n\n")

    def _choice_text(self, name: str) -> str:
        values = (f"    {value}," for value in self._choices[name])
        return "\n".join([f"{name} = Literal[", *values, "]", '"""What can be asked for."""'])

    def _input_text(self, name: str) -> str:
        lines = [f"class {name}(TypedDict, total=False):", '    """What a command takes as an object in a list."""', ""]
        for field in self._inputs[name]:
            spelt = self.input_annotation(field)
            lines.append(f"    {field.name}: {f'Required[{spelt}]' if field.required else spelt}")
            lines += described(field.description)
        return "\n".join(lines) + "\n"

    def _spelt(self, of: types.Type) -> str:
        match of:
            case types.Metadata():
                return self._spelt(of.type)
            case types.BoolType():
                return "bool"
            case types.IntType():
                return "int"
            case types.FloatType():
                return "float"
            case types.StrType() | types.EnumType():
                return "str"
            case types.LiteralType(values=values) if all(isinstance(value, str) for value in values):
                return "str"
            case types.NoneType():
                return "None"
            case types.ListType() | types.VarTupleType() | types.SetType() | types.FrozenSetType():
                return f"list[{self._spelt(of.item_type)}]"
            case types.DictType():
                return f"dict[{self._spelt(of.key_type)}, {self._spelt(of.value_type)}]"
            case types.StructType() if of.tag_field is None:
                name = of.cls.__name__
                known = self._structs.setdefault(name, of)
                assert known.cls is of.cls, f"two types are called {name}"
                if known is of:
                    for field in of.fields:
                        self._spelt(field.type)
                return name
            case types.UnionType() if sum(not isinstance(one, types.NoneType) for one in of.types) == 1:
                one = next(one for one in of.types if not isinstance(one, types.NoneType))
                return f"{self._spelt(one)} | None"
        return "Any"


def _struct_text(models: Models, name: str, struct: types.StructType) -> str:
    summary, rest = docstring(struct.cls)
    lines = [f"class {name}(Model, frozen=True, kw_only=True):", *quoted_docstring(summary, rest, indent=4), ""]
    for field in struct.fields:
        spelt = models.annotation(field.type)
        assert field.name == field.encode_name, "renamed fields have not been thought of"
        lines.append(f"    {field.name}: {spelt} = {_empty(spelt)}")
        lines += described(_description(field.type))
    return "\n".join(lines) + "\n"


def _empty(spelt: str) -> str:
    if spelt.endswith("| None") or spelt in ("Any", "None"):
        return "None"
    plain = {"bool": "False", "int": "0", "float": "0.0", "str": '""'}
    if spelt in plain:
        return plain[spelt]
    if spelt.startswith("list["):
        return "[]"
    return "{}" if spelt.startswith("dict[") else f"msgspec.field(default_factory=lambda: {spelt}())"


def _description(of: types.Type) -> str:
    found = ""
    while isinstance(of, types.Metadata):
        found = (of.extra_json_schema or {}).get("description", "") or found
        of = of.type
    return found


def described(text: str, indent: int = 4) -> list[str]:
    """A field's docstring, below it."""
    return quoted_docstring(text, "", indent=indent) if text else []


def quoted_docstring(summary: str, rest: str, *, indent: int, items: Sequence[tuple[str, str]] = ()) -> list[str]:
    """The lines of a docstring: a summary, paragraphs, and what is to be said of each of some names."""
    margin = " " * indent
    paragraphs = [*textwrap.wrap(_escaped(summary), WIDTH - indent - 6)]
    for paragraph in rest.split("\n\n") if rest else ():
        paragraphs += ["", *textwrap.wrap(_escaped(" ".join(paragraph.split())), WIDTH - indent)]
    if items:
        paragraphs.append("")
    for name, text in items:
        paragraphs += textwrap.wrap(_escaped(f"{name}: {text}"), WIDTH - indent, subsequent_indent="    ")
    if len(paragraphs) == 1:
        return [f'{margin}"""{paragraphs[0]}"""']
    return [f'{margin}"""{paragraphs[0]}', *(f"{margin}{line}".rstrip() for line in paragraphs[1:]), f'{margin}"""']


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")


def _quoted(value: str) -> str:
    return msgspec.json.encode(value).decode()
