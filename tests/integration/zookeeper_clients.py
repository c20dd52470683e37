"""Clients of a test's ZooKeeper: logs that are closed again, and a client that is not PVC's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

from kazoo.client import KazooClient

from pvc.log.zookeeper import ZookeeperLog

SESSION_S = 2.0
"""Short, so that a lost reply is noticed after 1.3 s and a session expires in a test's patience."""


@contextlib.asynccontextmanager
async def opened(hosts: str, cluster: str, **options: object) -> AsyncIterator[ZookeeperLog]:
    log = await ZookeeperLog.open(hosts, cluster, **({"session_timeout_s": SESSION_S} | options))  # type: ignore[arg-type]
    try:
        yield log
    finally:
        await log.close()


@contextlib.contextmanager
def zk_client(hosts: str, **options: object) -> Iterator[KazooClient]:
    """A client that is not PVC's."""
    client = KazooClient(hosts, timeout=SESSION_S, **options)
    client.start()
    try:
        yield client
    finally:
        client.stop()
        client.close()
