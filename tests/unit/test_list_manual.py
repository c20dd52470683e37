"""The manual tells which lists take what, and is right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import inspect as types

from pvc.gateway.app import all_endpoints
from pvc.gateway.lists import MAX_ITEMS

MANUAL = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_manual_says_of_each_list_without_these_arguments_why_it_has_none() -> None:
    without = {
        f"GET {endpoint.path}"
        for endpoint in all_endpoints()
        if endpoint.method == "GET" and endpoint.listing is None and has_a_list(endpoint.reply)
    }
    assert told_in_table("reply") == without != set()


def test_the_manual_tells_of_each_list_that_has_something_of_its_own() -> None:
    own = set()
    for endpoint in (endpoint for endpoint in all_endpoints() if endpoint.listing is not None):
        fields = {field.name: field.type for field in types.type_info(endpoint.arguments).fields}  # type: ignore[union-attr]
        assert {"limit", "after", "fields"} <= fields.keys(), endpoint.name
        if "sort" not in fields or most(fields["limit"]) != MAX_ITEMS or "next" not in endpoint.reply.__struct_fields__:
            own.add(f"GET {endpoint.path}")
    assert told_in_table("list") == own != set()


def told_in_table(head: str) -> set[str]:
    """What the manual's table under this head is about; what it says of each is not empty."""
    _, found, rest = MANUAL.read_text().partition(f"\n| {head} | ")
    assert found, f"the manual has a table of each {head}"
    rows = re.findall(r"^\| `(GET /[^`]*)` \| (\S.*) \|$", rest.partition("\n\n")[0], re.MULTILINE)
    names = [name for name, _ in rows]
    assert len(set(names)) == len(names)
    return set(names)


def has_a_list(reply: Any) -> bool:
    """Whether a reply is a list, or has a field that is one."""
    of = types.type_info(reply)
    inner = [field.type for field in of.fields] if isinstance(of, types.StructType) else [of]
    return any(isinstance(one, types.ListType | types.VarTupleType) for kind in inner for one in bare(kind))


def bare(of: types.Type) -> Iterator[types.Type]:
    """A type, or those that it is one of, without what is said of them."""
    if isinstance(of, types.Metadata):
        yield from bare(of.type)
    elif isinstance(of, types.UnionType):
        for one in of.types:
            yield from bare(one)
    else:
        yield of


def most(of: types.Type) -> int | None:
    """The greatest number that may be given."""
    [number] = bare(of)
    assert isinstance(number, types.IntType)
    return number.le
