"""kazoo's values in PVC's words, and what is done to a kazoo client that it has no public way for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from kazoo import exceptions as kx
from kazoo.client import KazooClient
from kazoo.handlers.threading import AsyncResult, SequentialThreadingHandler
from kazoo.protocol.states import ZnodeStat
from kazoo.security import make_digest_acl_credential

from pvc.clock import Clock
from pvc.zookeeper.types import (
    BadVersion,
    Credentials,
    Handshake,
    Lost,
    NodeExists,
    NoNode,
    NotAllowed,
    OverQuota,
    Znode,
)

_log = logging.getLogger(__name__)

CONNECTS_PER_SESSION = 8
"""Tries of servers that fit into a session's time-out, with time to spare for the one that answers."""

MIN_CONNECT_S = 0.5

HINT = "see that the coordinators run and can be reached; `pvc node list` shows them"


class PromptResult(AsyncResult):  # type: ignore[misc]  # kazoo is untyped
    """A result whose callbacks run at once in kazoo's I/O thread: ours and kazoo's own only hand it on."""

    def _do_callbacks(self) -> None:
        for callback in self._callbacks:
            callback(self)


class PromptHandler(SequentialThreadingHandler):  # type: ignore[misc]
    """Without the hop through kazoo's completion thread, which costs a tenth of an append."""

    def async_result(self) -> PromptResult:
        """Where kazoo puts the result of an operation."""
        return PromptResult(self)

    def create_connection(self, *args: Any, **options: Any) -> Any:
        """A socket to one server. kazoo would wait for it as long as the session lives: one server that is cut off
        would so cost the session, however well the others can be reached."""
        options["timeout"] = max(options["timeout"] / CONNECTS_PER_SESSION, MIN_CONNECT_S)
        return super().create_connection(*args, **options)


class Watcher:
    """A watch callback that equals any other for the same function."""

    def __init__(self, post: Callable[..., None], watch: Callable[[], None]) -> None:
        self._post = post
        self._watch = watch

    def __call__(self, event: object) -> None:
        """Called in kazoo's threads."""
        self._post(self._watch)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Watcher) and other._watch == self._watch

    def __hash__(self) -> int:
        return hash(self._watch)


def settle(future: asyncio.Future[Any], timer: asyncio.TimerHandle, result: Any) -> None:
    """Hand a kazoo result on to the future that somebody awaits."""
    timer.cancel()
    if future.done():
        return  # the caller was cancelled or lost patience
    error = result.exception
    if error is None:
        future.set_result(result.value)
    else:
        future.set_exception(translate(error))


def value_of(read: Any) -> Any:
    """One of several things that were read together, or what is wrong with it."""
    if isinstance(read, Exception):
        raise translate(read)
    return read


def found(data: bytes, stat: ZnodeStat) -> Znode:
    """What kazoo's get returns."""
    return Znode(
        data=data, version=int(stat.version), owner=int(stat.ephemeralOwner), created=int(stat.creation_transaction_id)
    )


def translate(error: BaseException) -> Exception:
    """kazoo's error in the words of `pvc.errors`; what is not foreseen here passes and is a fault."""
    if isinstance(
        error, kx.ConnectionLoss | kx.SessionExpiredError | kx.ConnectionClosedError | kx.OperationTimeoutError
    ):
        return Lost(f"the connection to ZooKeeper was lost: {type(error).__name__}", code="log.lost", hint=HINT)
    if isinstance(error, kx.NoNodeError):
        return NoNode("there is no such znode", code="log.no_node")
    if isinstance(error, kx.NodeExistsError):
        return NodeExists("the znode exists", code="log.node_exists")
    if isinstance(error, kx.BadVersionError):
        return BadVersion("the znode has another version")
    if isinstance(error, kx.NoAuthError | kx.AuthFailedError | kx.InvalidACLError):
        return NotAllowed(
            f"ZooKeeper refuses this identity: {type(error).__name__}",
            code="log.not_allowed",
            hint="see that the credentials are those the cluster was initialised with",
        )
    if isinstance(error, kx.QuotaExceededError):
        return OverQuota(
            "ZooKeeper has no room for more records: the log's quota is reached",
            code="log.quota",
            hint="find what writes so much, and see that the archive works: sealed segments leave ZooKeeper when they "
            "are archived. log.quota_records and log.quota_mib raise the quota",
        )
    assert isinstance(error, Exception)
    return error


def plain(result: object) -> int | str:
    """The result of one part of a transaction: its new version, the path created, 0 where there is nothing to tell."""
    if isinstance(result, ZnodeStat):
        return int(result.version)
    if isinstance(result, bool):
        return 0
    assert isinstance(result, str), f"unforeseen result {result!r}"
    return result


def cut(client: KazooClient) -> None:
    """Break the socket under kazoo, which then fails everything in flight and reconnects; there is no public way."""
    broken: socket.socket | None = client._connection._socket
    if broken is not None:
        with contextlib.suppress(OSError):  # it broke by itself meanwhile
            broken.shutdown(socket.SHUT_RDWR)


def tell_handshakes(client: KazooClient, clock: Clock, tell: Callable[[Handshake], None]) -> None:
    """Call `tell` in kazoo's I/O thread after each handshake. kazoo keeps the granted time-out to itself."""
    connection = client._connection
    connect = connection._connect

    def connect_and_tell(*where: Any) -> Any:
        began = clock.monotonic()
        read_timeout_ms, connect_timeout_ms = connect(*where)
        granted_s = read_timeout_ms * 1.5 / 1000  # kazoo waits two thirds of it for a reply
        tell(Handshake(session=client._session_id, timeout_s=granted_s, began=began))
        return read_timeout_ms, connect_timeout_ms

    connection._connect = connect_and_tell


def stop_in_background(client: KazooClient, done: Callable[[], None], *, end_session: bool = True) -> None:
    """kazoo's stop may block for as long as a dead server does not answer, so it gets a thread nobody waits for.

    Without `end_session` the server is not told, and keeps the session until it expires.
    """

    def stop() -> None:
        try:
            if end_session:
                client.stop()
            else:
                client._stopped.set()
                cut(client)
                client._safe_close()
            client.close()
        except Exception:  # noqa: BLE001 - nothing depends on it: the server expires the session anyway
            _log.debug("zookeeper session not closed in good order", exc_info=True)
        finally:
            done()

    threading.Thread(target=stop, name="kazoo-stop", daemon=True).start()


def digest_of(credentials: Credentials) -> str:
    """How an identity is named in an ACL: user and a hash."""
    return str(make_digest_acl_credential(credentials.user, credentials.password))
