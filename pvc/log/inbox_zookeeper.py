"""The inbox in ZooKeeper: a znode for each report, with its exact name, so that what may have been lost is sent again.

    /pvc/<cluster>/inbox/<node>-<command id>   one forwarded report, JSON; never changed

It has a session of its own: a burst of reports is not to hold up the appends. What is read here may be older than what
the log's session has seen, and the other way round; nothing depends on that, since an append names what it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Self, TypeVar

from pvc.errors import OutcomeUnknown
from pvc.events.record import Entry, Head
from pvc.log.base import closed
from pvc.log.inbox import MAX_PUT, MAX_WAITING, Forwarded, Found, decode, encode, unreachable
from pvc.log.zookeeper import ZookeeperLog
from pvc.zookeeper.bridge import SESSION_TIMEOUT_S, Bridge
from pvc.zookeeper.insist import insist, lay
from pvc.zookeeper.place import ancestors, place_of
from pvc.zookeeper.port import OpenSession, ZookeeperSession
from pvc.zookeeper.types import (
    CREATE,
    DELETE,
    READ,
    Create,
    Credentials,
    Delete,
    NodeExists,
    NoNode,
    Tls,
)

REMOVE_AT_ONCE = 200
"""Reports taken out in one request: far below its limit, and no more than an append takes."""

ANY_VERSION = -1

T = TypeVar("T")


class ZookeeperInbox:
    """One process's client. Make it with `await ZookeeperInbox.open(hosts, cluster, log)`."""

    def __init__(self, bridge: ZookeeperSession, cluster: str, log: ZookeeperLog, deadline_s: float) -> None:
        self._bridge = bridge
        self._log = log
        self._deadline_s = deadline_s
        self._foundation = [*ancestors(cluster), Create(f"{place_of(cluster)}/inbox", b"", READ | CREATE | DELETE)]
        self._path = self._foundation[-1].path
        self._changed = asyncio.Event()
        self._closed = False

    @classmethod
    async def open(
        cls,
        hosts: str,
        cluster: str,
        log: ZookeeperLog,
        *,
        credentials: Credentials | None = None,
        tls: Tls | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        bridge: OpenSession = Bridge,
    ) -> Self:
        """Connect to `hosts`; `log` is the log of the same cluster, which `append` writes to.
        `bridge`: what makes sessions; the simulator has its own.

        Raises Unavailable after `session_timeout_s` without a server, InvalidInput (the cluster's name).
        """
        session = bridge(hosts, credentials=credentials, tls=tls, session_timeout_s=session_timeout_s)
        inbox = cls(session, cluster, log, session_timeout_s)
        try:
            session.start()
            await inbox._insist(inbox._found)
        except BaseException:
            await inbox.close()
            raise
        return inbox

    async def put(self, reports: Sequence[Forwarded]) -> None:
        """Lay reports in; after a lost reply those that are missing once more."""
        assert len(reports) <= MAX_PUT, "too many for one request"
        creates = [Create(self._of(report.key), encode(report), READ) for report in reports]
        maybe_sent = False

        async def put() -> None:
            nonlocal maybe_sent
            missing = creates
            if maybe_sent:
                left = await self._left([report.key for report in reports])
                missing = [create for create, there in zip(creates, left, strict=True) if not there]
            if missing:
                maybe_sent = True
                await self._bridge.multi(missing)

        await self._insist(put, changing=lambda: maybe_sent)

    async def left(self, keys: Sequence[str]) -> list[bool]:
        """Whether they are still there, for everybody."""
        return await self._insist(lambda: self._left(keys))

    async def remove(self, keys: Sequence[str]) -> None:
        """Take them out; whoever else does so at the same time is as welcome."""
        for start in range(0, len(keys), REMOVE_AT_ONCE):
            part = keys[start : start + REMOVE_AT_ONCE]
            await self._insist(partial(self._remove, part), changing=lambda: True)

    async def keys(self) -> list[str]:
        """All keys, in no order."""

        async def keys() -> list[str]:
            await self._bridge.sync(self._path)
            return await self._bridge.children(self._path)

        return await self._insist(keys)

    async def waiting(self) -> list[Found]:
        """What is in it, by the transaction that laid it in; from here on `changed` looks out for more."""

        async def waiting() -> list[Found]:
            self._changed.clear()
            keys = await self._bridge.children(self._path, self._changed.set)
            # Where there are more, by the time in their ids.
            keys = sorted(keys, key=lambda key: key.rpartition("-")[2])[:MAX_WAITING]
            znodes = await self._bridge.find_many([self._of(key) for key in keys])
            there = [(znode.created, key, znode.data) for key, znode in zip(keys, znodes, strict=True) if znode]
            return [decode(key, data) for _, key, data in sorted(there)]

        return await self._insist(waiting)

    async def changed(self, timeout_s: float) -> None:
        """Wait for the watch that `waiting` has set."""
        self._check_open()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    async def append(self, entries: Sequence[Entry], *, after: Head, taking: Sequence[Forwarded]) -> Head:
        """Append, and delete the reports' znodes in the same transaction."""
        along = [Delete(self._of(report.key), ANY_VERSION) for report in taking]
        return await self._log.append(entries, after=after, along=along)

    async def close(self) -> None:
        """End the session."""
        self._closed = True
        self._changed.set()
        await self._bridge.close()

    async def _left(self, keys: Sequence[str]) -> list[bool]:
        await self._bridge.sync(self._path)
        return [znode is not None for znode in await self._bridge.find_many([self._of(key) for key in keys])]

    async def _remove(self, keys: Sequence[str]) -> None:
        left = await self._left(keys)
        deletes = [Delete(self._of(key), ANY_VERSION) for key, there in zip(keys, left, strict=True) if there]
        if deletes:
            await self._bridge.multi(deletes)

    async def _found(self) -> None:
        await lay(self._bridge, self._foundation)

    async def _insist(self, act: Callable[[], Awaitable[T]], *, changing: Callable[[], bool] = lambda: False) -> T:
        """Do `act`, which may be repeated, again after every outage or lost race, until the deadline; `changing` tells
        then whether something may have been changed."""
        try:
            return await insist(
                self._bridge,
                act,
                deadline_s=self._deadline_s,
                check_open=self._check_open,
                found=self._found,
                lost_race=(NoNode, NodeExists),
            )
        except TimeoutError:
            if changing():
                raise OutcomeUnknown(
                    f"ZooKeeper did not say within {self._deadline_s:g} s what became of forwarded reports",
                    hint="the log tells, once ZooKeeper can be reached",
                ) from None
            raise unreachable(self._deadline_s) from None

    def _of(self, key: str) -> str:
        return f"{self._path}/{key}"

    def _check_open(self) -> None:
        if self._closed:
            raise closed()
