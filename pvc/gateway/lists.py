"""Lists: one way to sort, page and cut down all of them, whatever they are of.

A page begins after the last item of the page before: after its place in the order, not after a count, so that nothing
is passed over or told twice when other items come and go meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, cast

import msgspec
from msgspec import Meta

from pvc.errors import InvalidInput

T = TypeVar("T")
Row = TypeVar("Row")

DEFAULT_ITEMS = 1_000
"""Items of a list when no limit is given: most clusters in one page, some 250 kB."""

MAX_ITEMS = 10_000
"""Items of a list at most: some 2.5 MB, made in a few tens of milliseconds while the event loop waits."""

MAX_SORTS = 4
MAX_FIELDS = 50

Limit = Annotated[int, Meta(ge=1, le=MAX_ITEMS, description=f"Items at most, {DEFAULT_ITEMS:,} if not given.")]
Cursor = Annotated[
    str, Meta(max_length=2_000, description="Begin after this: `next` of the page before, with the same `sort`.")
]
Sort = Annotated[
    tuple[Annotated[str, Meta(max_length=64)], ...],
    Meta(max_length=MAX_SORTS, description="By these, one after the other; `-` before a name: the greatest first."),
]
FieldNames = Annotated[
    tuple[Annotated[str, Meta(max_length=64)], ...],
    Meta(max_length=MAX_FIELDS, description="Only these fields of each item."),
]


Next = Annotated[str | None, Meta(description="Where more follow: give it as `after`; else null.")]


class ListArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every list takes."""

    limit: Limit = DEFAULT_ITEMS
    after: Cursor = ""
    sort: Sort = ()
    fields: FieldNames = ()


@dataclass(frozen=True, kw_only=True)
class ListOf(Generic[T]):
    """What can be asked of one list."""

    item: type[msgspec.Struct]
    """What its items are told as."""
    sorts: Mapping[str, Callable[[T], Any]]
    """Names of fields by which it can be sorted -> the value of a thing. None comes first."""
    order: str
    """How it is sorted if nothing is said: as `sort` would say it."""
    key: Callable[[T], str] = str
    """What tells things apart whose values are the same."""
    rows: str = "items"
    """The field of the reply that has them."""

    @property
    def sortable(self) -> tuple[str, ...]:
        """What `sort` may name."""
        return tuple(name for field in self.sorts for name in (field, f"-{field}"))

    @property
    def fields(self) -> tuple[str, ...]:
        """What `fields` may name."""
        return self.item.__struct_encode_fields__

    def order_of(self, sort: Sequence[str]) -> list[tuple[str, bool]]:
        """Names to sort by, and whether the greatest comes first. Raises InvalidInput."""
        chosen: dict[str, bool] = {}
        for told in sort or self.order.split(","):
            name = told.removeprefix("-")
            if name not in self.sorts:
                raise _unknown("sort", name, self.sorts)
            chosen.setdefault(name, told.startswith("-"))  # a second time it would decide nothing
        return list(chosen.items())

    def ascending(self, sort: Sequence[str]) -> bool:
        """Whether the least comes first: for lists that an index gives in one order, either way. Raises
        InvalidInput."""
        return not self.order_of(sort)[0][1]

    def page(self, things: Iterable[T], arguments: ListArguments) -> tuple[list[T], str | None]:
        """The things of one page, and the cursor of the next; None: that was all. Raises InvalidInput."""
        chosen = self.order_of(arguments.sort)
        ordered = sorted(things, key=self.key)
        for name, descending in reversed(chosen):
            value_of = self.sorts[name]
            # Python sorts stably in either direction, so the key decides among equals.
            ordered.sort(key=lambda thing, value_of=value_of: _rank(value_of(thing)), reverse=descending)  # type: ignore[misc]
        if arguments.after:
            place = _read_cursor(arguments.after, chosen)
            ordered = [thing for thing in ordered if self._comes_after(thing, place, chosen)]
        found = ordered[: arguments.limit]
        if len(ordered) <= arguments.limit:
            return found, None
        last = found[-1]
        values = [self.sorts[name](last) for name, _ in chosen]
        return found, _write_cursor(chosen, values, self.key(last))

    def _comes_after(self, thing: T, place: tuple[list[Any], str], chosen: Sequence[tuple[str, bool]]) -> bool:
        values, key = place
        for (name, descending), value in zip(chosen, values, strict=True):
            mine, other = _rank(self.sorts[name](thing)), _rank(value)
            if mine == other:
                continue
            # What has no value comes before all that has one, of whatever kind that is.
            if mine[0] and other[0] and isinstance(mine[1], str) is not isinstance(other[1], str):
                raise _bad_cursor()
            return bool(mine > other) is not descending
        return self.key(thing) > key

    def cut(self, rows: Sequence[Row], fields: Sequence[str]) -> list[Row]:
        """The items with the fields asked for. Raises InvalidInput.

        What comes back stands for rows: where fields were left out it is encoded already.
        """
        self.check_fields(fields)
        if not fields:
            return list(rows)
        return [cast("Row", _cut(row, fields)) for row in rows]

    def check_fields(self, fields: Sequence[str]) -> None:
        """Raise InvalidInput where the items have no such field."""
        for name in fields:
            if name not in self.fields:
                raise _unknown("fields", name, self.fields)


def by_attributes(*names: str) -> dict[str, Callable[[Any], Any]]:
    """To sort rows by fields that they have themselves."""
    return {name: _getter(name) for name in names}


def _getter(name: str) -> Callable[[Any], Any]:
    return lambda row: getattr(row, name)


def _cut(row: Any, fields: Sequence[str]) -> msgspec.Raw:
    whole = msgspec.json.decode(row) if isinstance(row, msgspec.Raw) else msgspec.to_builtins(row)
    return msgspec.Raw(msgspec.json.encode({name: whole[name] for name in fields if name in whole}))


def _rank(value: Any) -> tuple[bool, Any]:
    if value is None:
        return False, 0
    return True, int(value) if isinstance(value, bool) else str(value) if isinstance(value, str) else value


def _write_cursor(chosen: Sequence[tuple[str, bool]], values: Sequence[Any], key: str) -> str:
    data = json.dumps([[name, descending] for name, descending in chosen] + [list(values), key])
    return base64.urlsafe_b64encode(data.encode()).decode().rstrip("=")


def _read_cursor(text: str, chosen: Sequence[tuple[str, bool]]) -> tuple[list[Any], str]:
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        *order, values, key = json.loads(data)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise _bad_cursor() from None
    same = order == [[name, descending] for name, descending in chosen]
    if not same or not isinstance(key, str) or not isinstance(values, list) or len(values) != len(chosen):
        raise _bad_cursor()
    if not all(value is None or isinstance(value, str | int | float) for value in values):
        raise _bad_cursor()
    return values, key


def _bad_cursor() -> InvalidInput:
    return InvalidInput(
        "`after` is no place in this list, in this order",
        code="list.cursor_invalid",
        hint="give `next` of the page before, and the same `sort` on all pages",
        field="after",
    )


def _unknown(argument: str, name: str, known: Iterable[str]) -> InvalidInput:
    return InvalidInput(
        f"`{argument}` cannot be {name[:64]!r}", hint=f"it is one of {', '.join(known)}", field=argument
    )
