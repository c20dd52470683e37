"""Lists of records: one way to page, order and cut down what the history index gives.

A position is a record's place for ever, so it is the cursor, in either direction; the index reads both alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from pvc.commands.access_rights import Rights
from pvc.gateway.lists import FieldNames, Sort
from pvc.gateway.records import RECORDS, RecordView
from pvc.gateway.services import GatewayServices
from pvc.gateway.sight import seen_page
from pvc.log.history import HistoryQuery

MAX_RECORDS = 1_000
"""Records of a page at most: some 500 kB."""

Position = Annotated[int, Meta(ge=0, le=1 << 62, description="A position of the log, itself not included.")]
Limit = Annotated[int, Meta(ge=1, le=MAX_RECORDS, description="Records at most.")]
NextBefore = Annotated[
    int | None, Meta(description="Give it as `before` for the next page; null: that was all, or `sort=position`.")
]
NextAfter = Annotated[
    int | None, Meta(description="With `sort=position`: give it as `after` for the next page; null: that was all.")
]


class RecordListArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every list of records takes."""

    before: Position | None = None
    after: Position | None = None
    limit: Limit = 50
    sort: Sort = ()
    fields: FieldNames = ()


@dataclass(frozen=True, kw_only=True)
class RecordPage:
    """Records of one page, and where the next begins: in one of two, by the order."""

    records: list[RecordView]
    next_before: int | None
    next_after: int | None
    any_found: bool
    """Whether there was anything at all, shown or not."""


async def record_page(
    services: GatewayServices, rights: Rights, query: HistoryQuery, arguments: RecordListArguments
) -> RecordPage:
    """The page that is asked for. Raises InvalidInput, Unavailable."""
    RECORDS.check_fields(arguments.fields)
    ascending = RECORDS.ascending(arguments.sort)
    records, following, any_found = await seen_page(
        services, rights, replace(query, ascending=ascending), arguments.limit
    )
    return RecordPage(
        records=RECORDS.cut(records, arguments.fields),
        next_before=None if ascending else following,
        next_after=following if ascending else None,
        any_found=any_found,
    )
