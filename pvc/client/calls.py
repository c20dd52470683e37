"""What the generated methods do: a request by the core, and its reply as a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from pvc.client.core import Core, each_page, new_key, placed
from pvc.client.errors import ClientError
from pvc.client.generated.models import CommandReply
from pvc.client.operations import AsyncOperation, Operation
from pvc.client.ports import finish
from pvc.client.transport import Answer

T = TypeVar("T")

PAGE = 1000
"""Items asked for at once: as many as every list of the gateway gives."""


class Calls:
    """Typed requests. Each raises ApiError, Unreachable, ConfigError."""

    def __init__(self, core: Core) -> None:
        self.core = core

    async def get(self, path: str, fields: Mapping[str, Any], model: type[T]) -> T:
        """A query."""
        path, query = placed(path, fields)
        wait_s = float(query.get("wait") or query.get("wait_s") or 0)
        return self.decoded(await self.core.query(path, query, wait_s=wait_s), model)

    async def post(
        self, path: str, fields: Mapping[str, Any], model: type[T], *, dry_run: bool = False, key: str | None = None
    ) -> T:
        """Anything else that is no command. It may be sent twice: under one key where that matters."""
        path, body = placed(path, fields)
        query = {"dry_run": "true"} if dry_run else {"min_position": self.core.position or ""} if key is None else {}
        data = json.dumps(body).encode() if body else None
        made = "" if key is None else key or new_key()
        return self.decoded(await self.core.call("POST", path, query, body=data, key=made), model)

    async def items(self, path: str, fields: Mapping[str, Any], item: type[T], *, items: str) -> list[T]:
        """A list that comes in one piece."""
        path, query = placed(path, fields)
        page = self.decoded(await self.core.query(path, query), _page_of(item, items, "next"))
        found: list[T] = page.items_
        return found

    async def pages(
        self,
        path: str,
        fields: Mapping[str, Any],
        item: type[T],
        *,
        items: str,
        cursor: tuple[str, str],
        limit: int | None,
    ) -> list[T]:
        """A list in pages, all of the same moment. `cursor`: the argument and the field that lead on."""
        path, query = placed(path, fields)
        argument, following = cursor
        if limit is not None and limit < 1:
            return []

        async def fetch(query: Mapping[str, Any]) -> tuple[Answer, list[T], Any]:
            answer = await self.core.query(path, query)
            page = self.decoded(answer, _page_of(item, items, following))
            return answer, page.items_, page.next_

        return await each_page(fetch, query, argument, limit, PAGE)

    async def command(
        self, name: str, fields: Mapping[str, Any], *, dry_run: bool, key: str, if_match: int | None = None
    ) -> CommandReply:
        """A command."""
        tag = "" if if_match is None else f'"{if_match}"'
        answer = await self.core.command(name, fields, dry_run=dry_run, key=key, if_match=tag)
        return self.decoded(answer, CommandReply)

    def decoded(self, answer: Answer, model: type[T]) -> T:
        """The model that an answer holds."""
        try:
            found = msgspec.json.decode(answer.body, type=model)
        except msgspec.DecodeError as error:
            raise self.core.not_a_gateway(answer) from error
        self.core.saw(getattr(found, "position", 0))
        return found


class Group:
    """Methods that block."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def _get(self, path: str, fields: Mapping[str, Any], model: type[T]) -> T:
        return finish(self._calls.get(path, fields, model))

    def _post(
        self, path: str, fields: Mapping[str, Any], model: type[T], *, dry_run: bool = False, key: str | None = None
    ) -> T:
        return finish(self._calls.post(path, fields, model, dry_run=dry_run, key=key))

    def _items(self, path: str, fields: Mapping[str, Any], item: type[T], *, items: str) -> list[T]:
        return finish(self._calls.items(path, fields, item, items=items))

    def _pages(
        self,
        path: str,
        fields: Mapping[str, Any],
        item: type[T],
        *,
        items: str,
        cursor: tuple[str, str],
        limit: int | None,
    ) -> list[T]:
        return finish(self._calls.pages(path, fields, item, items=items, cursor=cursor, limit=limit))

    def _command(
        self,
        name: str,
        fields: Mapping[str, Any],
        *,
        dry_run: bool,
        wait: float | None,
        key: str,
        if_match: int | None = None,
    ) -> Operation:
        reply = finish(self._calls.command(name, fields, dry_run=dry_run, key=key, if_match=if_match))
        operation = Operation(self._calls.core, reply)
        if wait is not None:
            try:
                operation.wait(wait)
            except ClientError as error:
                error.begun = operation
                raise
        return operation


class AsyncGroup:
    """Methods that suspend."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._get = calls.get
        self._post = calls.post
        self._items = calls.items
        self._pages = calls.pages

    async def _command(
        self,
        name: str,
        fields: Mapping[str, Any],
        *,
        dry_run: bool,
        wait: float | None,
        key: str,
        if_match: int | None = None,
    ) -> AsyncOperation:
        reply = await self._calls.command(name, fields, dry_run=dry_run, key=key, if_match=if_match)
        operation = AsyncOperation(self._calls.core, reply)
        if wait is not None:
            try:
                await operation.wait(wait)
            except ClientError as error:
                error.begun = operation
                raise
        return operation


_PAGES: dict[tuple[Any, str, str], Any] = {}


def _page_of(item: Any, items: str, following: str) -> Any:
    """The type of a page, of which only this is of interest."""
    known = _PAGES.get((item, items, following))
    if known is None:
        fields: list[Any] = [
            ("items_", list[item], msgspec.field(default_factory=list)),
            ("next_", int | str | None, None),
            ("position", int, 0),
        ]
        known = msgspec.defstruct("Page", fields, rename={"items_": items, "next_": following}, kw_only=True)
        _PAGES[item, items, following] = known
    return known
