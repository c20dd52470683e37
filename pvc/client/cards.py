"""The command cards: what there is to ask for, with fields, path and outcomes; made from the commands themselves.

`commands.json` is generated from the command structs (never edit it), so that neither this library nor the CLI holds a
second copy of them by hand.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

FieldType = Literal["string", "integer", "boolean", "enum", "list", "object-list"]


class Field(TypedDict):
    """A field of a command. Keys that say nothing are left out; without a `default`, what is not given stays unset."""

    name: str
    type: FieldType
    description: str
    required: NotRequired[bool]
    positional: NotRequired[bool]
    default: NotRequired[Any]
    enum: NotRequired[list[str]]
    minimum: NotRequired[int]
    maximum: NotRequired[int]
    min_length: NotRequired[int]
    max_length: NotRequired[int]
    pattern: NotRequired[str]
    example: NotRequired[Any]
    item: NotRequired[Field]
    """Of a `list`: what one item is."""
    fields: NotRequired[list[Field]]
    """Of an `object-list`: what one object has."""


class Card(TypedDict):
    """All that is to be known of a command to call it, from anywhere."""

    name: str
    cli: list[str]
    args: list[str]
    method: str
    path: str
    summary: str
    help: str
    role: str
    action: str
    confirm: str
    outcomes: dict[str, bool]
    begins: list[str]
    """Event types with one of which it begins what the outcomes end, else it is done at once; none: with any."""
    example: dict[str, Any]
    fields: list[Field]


@functools.cache
def load_cards() -> dict[str, Card]:
    """All commands by name (`vm.start`), in the order in which the manual shows them."""
    cards: list[Card] = json.loads(Path(__file__).with_name("commands.json").read_bytes())
    return {card["name"]: card for card in cards}
