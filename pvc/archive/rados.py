"""An archive in a pool of Ceph: one RADOS object for each blob. Acknowledged is what all its replicas have on disk.

Ceph's library blocks, and a Ceph without enough OSDs or monitors lets it wait for ever. So it is told time-outs of its
own, its calls run in a few threads that may be left behind, and nobody waits for them beyond a deadline.

The names are kept in one more object. Ceph can list a pool's objects itself, but its Python binding takes a listing
that failed for one that has come to its end: an archive that cannot be reached would look empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from pvc.archive.base import (
    DAMAGED_SUFFIX,
    MAX_BLOB_BYTES,
    DamagedCopy,
    check_put,
    closed,
    damaged,
    is_content_of,
    not_found,
    parse_blob_name,
)
from pvc.errors import NotFound, Unavailable
from pvc.thread_pool import DaemonPool

T = TypeVar("T")

OPERATION_S = 10.0
"""Ceph's own time-out: an object is written in milliseconds, and an OSD that died is replaced by another within it."""

DEADLINE_S = 25.0
"""For any call: it needs a connection and one operation, or two."""

CLOSE_S = 3.0
"""A connection is ended in good order only if that is quick."""

THREADS = 2
"""As many calls run at once, and so many threads at most hang in a Ceph that does not answer."""

INDEX = "names"
"""The object that has the name of every blob as a key. A replicated pool is needed for it."""

PAGE = 1_000
"""Names that are read at once."""

_DEAD = {errno.ETIMEDOUT, errno.ESHUTDOWN, errno.ENOTCONN}
"""What a connection says that will never be one again: monitors that moved, a client that was fenced (`blocklist`)."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class RadosPool(msgspec.Struct, frozen=True, kw_only=True):
    """Which pool, and how it is reached."""

    pool: str
    namespace: str = ""
    """Clusters that share a pool have one each."""
    conf: str = ""
    """Ceph's configuration file; empty: where Ceph looks for it."""
    user: str = ""
    """The name behind `client.`; empty: the one Ceph takes, which is `admin`."""


class RadosArchive:
    """Objects in a pool. The connection is made with the first call, and anew after it failed."""

    def __init__(self, pool: RadosPool, *, operation_s: float = OPERATION_S, deadline_s: float = DEADLINE_S) -> None:
        self.title = f"RADOS pool {pool.pool}{'/' if pool.namespace else ''}{pool.namespace}"
        self._deadline_s = deadline_s
        self._link = _Link(self.title, pool, operation_s)
        self._threads = DaemonPool("archive-rados", THREADS)
        self._closed = False

    async def put(self, name: str, data: bytes) -> None:
        """Keep the blob."""
        check_put(name, data)
        await self._run(lambda: self._link.put(name, data))

    async def get(self, name: str) -> bytes:
        """The blob."""
        if parse_blob_name(name) is None:
            raise not_found(self.title, name)
        return await self._run(lambda: self._link.get(name))

    async def names(self) -> list[str]:
        """All names."""
        return await self._run(self._link.names)

    async def remove(self, name: str) -> None:
        """Take a damaged copy away."""
        if parse_blob_name(name) is not None:
            await self._run(lambda: self._link.remove(name))

    async def close(self) -> None:
        """End the connection, or leave that to the process's end."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._threads.run(self._link.close)
        self._threads.end()

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise closed(self.title)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._threads.run(work)
        except TimeoutError as error:
            raise _unreachable(self.title, f"no answer within {self._deadline_s:g} s") from error


class _Handle:
    """A connection, and how many calls are using it: to end it under them would end the process."""

    def __init__(self, cluster: Any, objects: Any) -> None:
        self.cluster = cluster
        self.objects = objects
        self.users = 0
        self.retired = False


class _Link:
    """The blocking half: Ceph's library, called from the threads."""

    def __init__(self, title: str, pool: RadosPool, operation_s: float) -> None:
        self._title = title
        self._pool = pool
        self._operation_s = operation_s
        self._lock = threading.Lock()
        self._handle: _Handle | None = None

    def put(self, name: str, data: bytes) -> None:
        with self._connected() as (rados, objects):
            try:
                with rados.WriteOpCtx() as operation:
                    operation.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
                    operation.write_full(data)
                    objects.operate_write_op(operation, name)
            except rados.ObjectExists:
                # Perhaps by this very call, if its answer was lost the last time.
                if self._read(rados, objects, name) != data:
                    raise damaged(self._title, name, "other bytes are kept under this name") from None
            with rados.WriteOpCtx() as operation:
                objects.set_omap(operation, (name,), (b"",))
                objects.operate_write_op(operation, INDEX)

    def get(self, name: str) -> bytes:
        with self._connected() as (rados, objects):
            data = self._read(rados, objects, name)
        if not is_content_of(name, data):
            raise damaged(self._title, name, "its bytes are not the ones that its name says")
        return data

    def names(self) -> list[str]:
        names: list[str] = []
        last = ""
        with self._connected() as (rados, objects):
            while True:
                try:
                    with rados.ReadOpCtx() as operation:
                        page, _ = objects.get_omap_vals(operation, last, "", PAGE)
                        objects.operate_read_op(operation, INDEX)
                        found = [key for key, _ in page]
                except rados.ObjectNotFound:
                    found = []
                if not found:
                    return sorted(name for name in names if parse_blob_name(name) is not None)
                names += found
                last = found[-1]

    def remove(self, name: str) -> None:
        with self._connected() as (rados, objects):
            # What Ceph itself finds damaged cannot be read, nor kept.
            with contextlib.suppress(DamagedCopy, NotFound):
                objects.write_full(f"{name}{DAMAGED_SUFFIX}", self._read(rados, objects, name))
            with contextlib.suppress(rados.ObjectNotFound):
                objects.remove_object(name)
            with contextlib.suppress(rados.ObjectNotFound), rados.WriteOpCtx() as operation:
                objects.remove_omap_keys(operation, (name,))
                objects.operate_write_op(operation, INDEX)

    def close(self) -> None:
        with self._lock:
            if self._handle is not None:
                self._retire(self._handle)

    def _read(self, rados: Any, objects: Any, name: str) -> bytes:
        try:
            size_bytes, _ = objects.stat(name)
            if size_bytes > MAX_BLOB_BYTES:
                raise damaged(self._title, name, f"it has {size_bytes:,} bytes")
            data: bytes = objects.read(name, size_bytes) if size_bytes else b""
        except rados.ObjectNotFound:
            raise not_found(self._title, name) from None
        except rados.Error as error:
            if _errno_of(error) == errno.EIO:
                raise damaged(self._title, name, "Ceph has no sound replica of it") from error
            raise
        return data

    @contextlib.contextmanager
    def _connected(self) -> Iterator[tuple[Any, Any]]:
        """Ceph's library, and the pool's objects. Its errors are translated, and a connection that is none is ended."""
        try:
            import rados
        except ImportError as error:
            raise Unavailable(
                f"the {self._title} cannot be used: Ceph's library for Python is missing",
                code="archive.no_rados",
                hint="apt-get install python3-rados; the environment of pvcd must see Debian's packages",
            ) from error
        try:
            with self._lock:
                if self._handle is None:
                    self._handle = self._connect(rados)
                handle = self._handle
                handle.users += 1
            try:
                yield rados, handle.objects
            except rados.Error as error:
                if _errno_of(error) in _DEAD:
                    with self._lock:
                        self._retire(handle)
                raise
            finally:
                with self._lock:
                    handle.users -= 1
                    self._end_if_unused(handle)
        except rados.Error as error:
            raise self._translated(error) from error

    def _connect(self, rados: Any) -> _Handle:
        whole_s = str(max(1, round(self._operation_s)))
        cluster = rados.Rados(
            conffile=self._pool.conf or rados.Rados.DEFAULT_CONF_FILES,
            rados_id=self._pool.user or None,
            conf={"rados_osd_op_timeout": whole_s, "rados_mon_op_timeout": whole_s, "client_mount_timeout": whole_s},
        )
        try:
            cluster.connect()
            objects = cluster.open_ioctx(self._pool.pool)
            objects.set_namespace(self._pool.namespace)
        except rados.Error:
            cluster.shutdown()
            raise
        return _Handle(cluster, objects)

    def _retire(self, handle: _Handle) -> None:
        """Let the next call connect anew, and this connection end with its last user. Holds the lock."""
        handle.retired = True
        if self._handle is handle:
            self._handle = None
        self._end_if_unused(handle)

    def _end_if_unused(self, handle: _Handle) -> None:
        if handle.retired and not handle.users and handle.cluster is not None:
            cluster, handle.cluster = handle.cluster, None
            cluster.shutdown()

    def _translated(self, error: Any) -> Unavailable:
        if _errno_of(error) in _NO_ROOM:
            return Unavailable(
                f"the {self._title} is full",
                code="archive.disk_full",
                hint="nothing was lost; see `ceph df`, and the pool's quota",
            )
        if _errno_of(error) in (errno.EACCES, errno.EPERM):
            return _unreachable(self._title, f"Ceph does not let client.{self._pool.user or 'admin'} do that")
        return _unreachable(self._title, str(error))


def _unreachable(title: str, why: str) -> Unavailable:
    return Unavailable(
        f"the {title} cannot be reached: {why}",
        code="archive.unreachable",
        hint="see that `ceph -s` is well and the pool exists, and mend archive.rados_conf and archive.rados_user",
    )


def _errno_of(error: Any) -> int:
    return int(getattr(error, "errno", None) or 0)
