"""Says which methods the client library has: one for each endpoint that a program may want, in groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import inspect as types

from pvc.gateway.cards import FieldCard, field_card
from pvc.gateway.endpoint import Endpoint

GROUPS = {
    "vm": "vms",
    "node": "nodes",
    "fault": "faults",
    "webhook": "webhooks",
    "operation": "operations",
    "tag": "tags",
}
"""What is many; any other group is called like its endpoints."""

ELSEWHERE = {
    "history.list": ("log", "history"),
    "time.diff": ("log", "diff"),
    "time.undo": ("log", "undo"),
    "time.whatif": ("cluster", "what_if"),
}
"""What is looked for in another group, or under another name, than its endpoint has."""

LEFT_OUT = frozenset(
    {
        "api.commands",  # a program has the methods instead
        "api.openapi",
        "event.stream",  # client.events()
        "vm.log",  # client.vms.log(), written by hand: it does not end
        "cluster.restore",  # portions of a backup, which `pvc cluster restore` brings
    }
)

NOT_ASKED = frozenset({"fields"})
"""Arguments of queries that make no sense where the reply is a struct, which has all fields."""

NAMES = {"show": "get", "info": "get"}

BESIDE_ITEMS = frozenset({"subjects", "total", "next_after"})
"""What a list says beside its items, which those who page through it can do without."""

PATH_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of a group."""

    group: str
    name: str
    kind: str
    """`command`, `get`, `pages` (a list in pages), `items` (a list in one piece), or `post`."""
    endpoint: Endpoint
    positional: tuple[FieldCard, ...]
    keywords: tuple[FieldCard, ...]
    item: Any = None
    """The type of a list's items; of what else is replied the type is the endpoint's."""
    items: str = ""
    """The field of the reply that has the items."""
    cursor: tuple[str, str] = ("", "")
    """The argument that says where a page begins, and the field of the reply that has it for the next."""
    limit: int | None = None
    """Items at most where nothing is said; None: all."""


def methods(endpoints: Sequence[Endpoint]) -> list[Method]:
    """All methods, by group and then by name."""
    found = [_method(endpoint) for endpoint in endpoints if _is_wanted(endpoint)]
    names = [(method.group, method.name) for method in found]
    assert len(set(names)) == len(names), f"two methods have one name: {sorted(names)}"
    return sorted(found, key=lambda method: (method.group, method.name))


def _is_wanted(endpoint: Endpoint) -> bool:
    return endpoint.reply is not None and endpoint.name not in LEFT_OUT and not endpoint.peers


def _method(endpoint: Endpoint) -> Method:
    group, name = ELSEWHERE.get(endpoint.name) or _place(endpoint.name)
    struct = endpoint.command.struct if endpoint.command else (endpoint.body or endpoint.arguments)
    hidden = endpoint.command.internal if endpoint.command else ()
    cards = {card.name: card for card in _cards(struct) if card.name not in hidden}
    if endpoint.method == "GET":
        cards = {name: card for name, card in cards.items() if name not in NOT_ASKED}
    first = endpoint.command.args if endpoint.command else ()
    in_path = [field for field in PATH_FIELD.findall(endpoint.path) if field not in first]
    positional = [cards.pop(field) if field in cards else _named(field) for field in (*first, *in_path)]
    common: dict[str, Any] = {"group": group, "name": name, "endpoint": endpoint, "positional": tuple(positional)}
    if endpoint.command is not None:
        return Method(kind="command", keywords=tuple(cards.values()), **common)
    if endpoint.method != "GET":
        return Method(kind="post", keywords=tuple(cards.values()), **common)
    items, item = _items(endpoint.reply)
    for argument, field in (("after", "next"), ("before", "next_before")):
        beside = set(_reply_fields(endpoint.reply)) - {"position", items, field, *BESIDE_ITEMS}
        if item is not None and not beside and argument in cards and field in _reply_fields(endpoint.reply):
            limit = cards.pop("limit", None)
            kept = tuple(card for card in cards.values() if card.name != argument or argument == "before")
            if argument == "before":
                # The oldest first would be paged by `after`; who wants that has client.events().
                kept = tuple(card for card in kept if card.name != "sort")
            # Of what grows for ever all is too much, where it is not asked for.
            most = limit.default if limit is not None and argument == "before" else None
            paged: dict[str, Any] = {"item": item, "items": items, "cursor": (argument, field), "limit": most}
            return Method(kind="pages", keywords=kept, **paged, **common)
    if item is not None and set(_reply_fields(endpoint.reply)) <= {"position", items}:
        return Method(kind="items", keywords=tuple(cards.values()), item=item, items=items, **common)
    return Method(kind="get", keywords=tuple(cards.values()), **common)


def _place(name: str) -> tuple[str, str]:
    group, _, own = name.partition(".")
    return GROUPS.get(group, group), NAMES.get(own, own)


def _named(name: str) -> FieldCard:
    """A field of a path, of which the endpoint says no more than its name."""
    kind = "integer" if name == "position" else "string"
    return FieldCard(name=name, description=f"The {name}.", type=kind, required=True)


def _cards(struct: Any) -> Iterator[FieldCard]:
    if struct is not None:
        info = types.type_info(struct)
        assert isinstance(info, types.StructType), "fields are those of a struct"
        yield from (_card(field) for field in info.fields)


def _card(field: types.Field) -> FieldCard:
    of = field.type
    while isinstance(of, types.Metadata):
        of = of.type
    if isinstance(of, types.ListType) or (isinstance(of, types.VarTupleType) and _has_free_fields(of.item_type)):
        return FieldCard(name=field.name, description="", type="mappings", required=field.required)
    return field_card(field)


def _has_free_fields(of: types.Type) -> bool:
    """Whether it is a struct with a field that may hold anything."""
    return isinstance(of, types.StructType) and any("DictType" in repr(field.type) for field in of.fields)


def _reply_fields(reply: Any) -> dict[str, types.Type]:
    info = types.type_info(reply)
    return {field.name: field.type for field in info.fields} if isinstance(info, types.StructType) else {}


def _items(reply: Any) -> tuple[str, Any]:
    """The field of a reply that is a list of structs, where it is `items` or `records`; and the type of the items."""
    fields = _reply_fields(reply)
    for name in ("items", "records"):
        of = fields.get(name)
        while isinstance(of, types.Metadata):
            of = of.type
        if isinstance(of, types.ListType) and isinstance(of.item_type, types.StructType):
            return name, of.item_type
    return "", None
