"""What can be asked of the history index, and how it is looked up.

Every index of the file ends in the position, so "the newest n of this" is read backwards from the end of one range and
costs the same whatever the length of the log. A search is driven by the one condition that leaves the fewest records
(a chain of causes, else a subject, else a tag, else the rarer of actor and type); the others are checked on each record
that it yields. Several keys (all VMs that ever had a name, several types) are read one by one, n of each, and merged.
What had a tag may be thousands of VMs: their events are read span by span of the log, not VM by VM.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

SPAN = 1_024
"""Positions whose earliest and latest time are kept together: clocks of nodes differ, so times are not in the order of
the positions, but a million records have only a thousand spans to look through for a range of time."""

TAGGED_SPAN = 2_048
"""Positions that a search for a tag begins with, doubled as long as too little is found in them."""

FOR_EVER = 1 << 62
"""The last position of a tag that nobody has taken off."""

_BEGINNING = -(1 << 62)
_END = 1 << 62


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are wanted: those that match everything that is given."""

    subject: str = ""
    """`vm/<name or id>`, `node/<name>`, `cluster`, `access/<token id>`, `webhook/<id>`. A VM's name stands for every VM
    that ever had it, with the whole history of each."""
    among: tuple[str, ...] = ()
    """Exact subjects: only records about any of these, where some are given."""
    by_then: bool = False
    """A name stands only for what had had it by then: so what matches does not change when others get the name."""
    tag: str = ""
    """A tag that the VM had then; the record that took it off still counts."""
    actors: tuple[str, ...] = ()
    """Any of these, as records name them."""
    types: tuple[str, ...] = ()
    """Any of these event types; `vm.*` is every type that begins with `vm.`."""
    since_us: int | None = None
    until_us: int | None = None
    """The range of time, both ends in it, in microseconds since the Unix epoch."""
    correlation: str = ""
    """The id of any record of a chain of causes: the whole chain."""
    before: int | None = None
    after: int | None = None
    """The range of positions, both ends not in it."""
    limit: int = 50
    ascending: bool = False
    """Oldest first instead of newest first."""


def find_positions(db: sqlite3.Connection, query: HistoryQuery) -> list[int]:
    """The positions of the records that match, in the order and up to the limit asked for."""
    subjects = _subjects(db, query)
    types = _meant_types(db, query.types)
    first, last = _bounds(db, query)
    if first > last or ((query.subject or query.among) and not subjects) or (query.types and not types):
        return []
    driver = _driver(db, query, subjects, types)
    where = _Where()
    if query.actors and driver.by != "actor":
        where.add(f"r.actor IN ({_marks(query.actors)})", *query.actors)
    if query.since_us is not None or query.until_us is not None:
        where.add("r.time_us BETWEEN ? AND ?", *_times(query))
    if driver.by in ("subject", "tag") and types:
        where.add(f"e.type IN ({_marks(types)})", *types)
    if driver.by == "subject" and query.tag:
        where.add(_TAGGED.format("e"), query.tag)
    if driver.table == "r" and (subjects or types or query.tag):
        where.add_event(subjects, types, query.tag)
    if driver.by == "tag":
        return _read_tagged(db, query, where, (first, last))
    return _read(db, query, driver, where, (first, last))


def find_subjects(db: sqlite3.Connection, subject: str) -> tuple[str, ...]:
    """The exact subjects that `subject` stands for, and of which there is any history."""
    kind, _, ref = subject.partition("/")
    exact = [subject]
    if kind == "vm" and ref:
        exact += [f"vm/{vm}" for (vm,) in db.execute("SELECT vm FROM name WHERE name = ?", (ref,))]
    known = "SELECT 1 FROM event WHERE subject = ? LIMIT 1"
    return tuple(one for one in dict.fromkeys(exact) if db.execute(known, (one,)).fetchone())


def _subjects(db: sqlite3.Connection, query: HistoryQuery) -> list[tuple[str, int]]:
    """The exact subjects that are asked for, each with the position that it counts from."""
    if not query.subject:
        return [(subject, 0) for subject in query.among]
    subjects = find_subjects(db, query.subject)
    if query.among:
        subjects = tuple(one for one in subjects if one in query.among)
    since = dict.fromkeys(subjects, 0)
    if query.by_then:
        name = query.subject.partition("/")[2]
        named = db.execute("SELECT 'vm/' || vm, since FROM name WHERE name = ?", (name,))
        since |= {vm: position for vm, position in named if vm in since and vm != query.subject}
    return list(since.items())


class _Driver(NamedTuple):
    """The condition that the search goes along: its index gives positions in order, for each of its keys."""

    by: str
    table: str
    """`e` (event) or `r` (record)."""
    keys: list[tuple[str, tuple[object, ...]]]


def _driver(
    db: sqlite3.Connection, query: HistoryQuery, subjects: Sequence[tuple[str, int]], types: Sequence[str]
) -> _Driver:
    if query.correlation:
        root = db.execute("SELECT root FROM record WHERE id = ?", (query.correlation,)).fetchone()
        beginning_and_rest = ["r.position = ?", "r.root = ? AND r.root <> r.position"]
        return _Driver("chain", "r", [(condition, root) for condition in beginning_and_rest if root])
    if subjects:
        return _Driver("subject", "e", [("e.subject = ? AND e.position >= ?", subject) for subject in subjects])
    if query.tag:
        return _Driver("tag", "e", [])
    if query.actors and (not types or _count(db, "actor", query.actors) <= _count(db, "type", types)):
        return _Driver("actor", "r", [("r.actor = ?", (actor,)) for actor in query.actors])
    if types:
        return _Driver("type", "e", [("e.type = ?", (name,)) for name in types])
    return _Driver("position", "r", [("TRUE", ())])


def _read(
    db: sqlite3.Connection, query: HistoryQuery, driver: _Driver, where: _Where, bounds: tuple[int, int]
) -> list[int]:
    position = f"{driver.table}.position"
    source = "record r"
    if driver.table == "e":
        # CROSS JOIN: SQLite must not turn the order of the two around.
        source = "event e CROSS JOIN record r ON r.position = e.position" if "r." in where.sql else "event e"
    found = []
    for condition, key in driver.keys:
        # Put together from this module's own words alone; every value is bound.
        sql = (
            f"SELECT DISTINCT {position} FROM {source} "  # noqa: S608
            f"WHERE {condition} AND {position} BETWEEN ? AND ?{where.sql} "
            f"ORDER BY {position} {'ASC' if query.ascending else 'DESC'} LIMIT ?"
        )
        rows = db.execute(sql, (*key, *bounds, *where.values, query.limit))
        found.append([row[0] for row in rows])
    merged = heapq.merge(*found, reverse=not query.ascending)
    return list(islice(_without_repeats(merged), query.limit))


def _read_tagged(db: sqlite3.Connection, query: HistoryQuery, where: _Where, bounds: tuple[int, int]) -> list[int]:
    (newest,) = db.execute("SELECT max(position) FROM record").fetchone()
    first, last = bounds[0], min(bounds[1], newest or 0)
    sql = (
        "SELECT DISTINCT e.position FROM tag t CROSS JOIN event e "  # noqa: S608 - as below
        "ON e.subject = t.subject AND e.position BETWEEN max(t.first, ?) AND min(t.last, ?) "
        "CROSS JOIN record r ON r.position = e.position "
        f"WHERE t.tag = ? AND t.last >= ? AND t.first <= ?{where.sql} "
        f"ORDER BY e.position {'ASC' if query.ascending else 'DESC'} LIMIT ?"
    )
    found: list[int] = []
    span = TAGGED_SPAN
    while first <= last and len(found) < query.limit:
        low, high = (first, min(first + span - 1, last)) if query.ascending else (max(last - span + 1, first), last)
        left = query.limit - len(found)
        found += [row[0] for row in db.execute(sql, (low, high, query.tag, low, high, *where.values, left))]
        first, last = (high + 1, last) if query.ascending else (first, low - 1)
        span *= 2
    return found


def _bounds(db: sqlite3.Connection, query: HistoryQuery) -> tuple[int, int]:
    """The first and last position that may match; with a range of time, those of the spans that touch it."""
    first = (query.after or 0) + 1
    last = query.before - 1 if query.before is not None else _END
    if query.since_us is None and query.until_us is None:
        return first, last
    touched = "SELECT min(number), max(number) FROM span WHERE latest_us >= ? AND earliest_us <= ?"
    low, high = db.execute(touched, _times(query)).fetchone()
    if low is None:
        return 1, 0
    return max(first, low * SPAN), min(last, high * SPAN + SPAN - 1)


def _times(query: HistoryQuery) -> tuple[int, int]:
    since = _BEGINNING if query.since_us is None else query.since_us
    return since, _END if query.until_us is None else query.until_us


def occurring_types(db: sqlite3.Connection) -> list[str]:
    """The event types that occur in the log."""
    return [name for (name,) in db.execute("SELECT name FROM tally WHERE kind = 'type'")]


def _meant_types(db: sqlite3.Connection, asked: Sequence[str]) -> tuple[str, ...]:
    """The types that occur in the log and are meant by `asked`."""
    if not asked:
        return ()
    return tuple(name for name in occurring_types(db) if any(type_means(one, name) for one in asked))


def type_means(asked: str, name: str) -> bool:
    """Whether an event type is one of those that `asked` stands for."""
    return name.startswith(asked[:-1]) if asked.endswith("*") else name == asked


def _count(db: sqlite3.Connection, kind: str, names: Sequence[str]) -> int:
    """How many records or events there are of these actors or types."""
    rows = [db.execute("SELECT n FROM tally WHERE kind = ? AND name = ?", (kind, name)).fetchone() for name in names]
    return sum(row[0] for row in rows if row)


class _Where:
    """Further conditions and their values, in step."""

    def __init__(self) -> None:
        self.sql = ""
        self.values: tuple[object, ...] = ()

    def add(self, condition: str, *values: object) -> None:
        self.sql += f" AND {condition}"
        self.values += values

    def add_event(self, subjects: Sequence[tuple[str, int]], types: Sequence[str], tag: str) -> None:
        """The record has an event about one of the subjects, of one of the types and about what had the tag, as far
        as each is given."""
        inner, values = "x.position = r.position", list[object]()
        if subjects:
            inner += f" AND x.subject IN ({_marks(subjects)})"
            values += [subject for subject, _ in subjects]
            late = [one for one in subjects if one[1]]
            inner += " AND (x.subject <> ? OR x.position >= ?)" * len(late)
            values += [value for one in late for value in one]
        if types:
            inner += f" AND x.type IN ({_marks(types)})"
            values += types
        if tag:
            inner += f" AND {_TAGGED.format('x')}"
            values.append(tag)
        self.add(f"EXISTS (SELECT 1 FROM event x WHERE {inner})", *values)  # noqa: S608 - as above


_TAGGED = (
    "EXISTS (SELECT 1 FROM tag t WHERE t.tag = ? AND t.subject = {0}.subject "
    "AND t.first <= {0}.position AND t.last >= {0}.position)"
)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _without_repeats(ordered: Iterator[int]) -> Iterator[int]:
    previous = None
    for value in ordered:
        if value != previous:
            yield value
        previous = value
