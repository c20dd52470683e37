"""The other process of `tests.bench.follow`: folds the log and watches a znode; prints when it had what.

Usage: python -m tests.bench.follow_peer HOSTS CLUSTER RAW-ZNODE
"""

from __future__ import annotations

import asyncio
import sys
import time

from kazoo.client import KazooClient

from pvc.log.zookeeper import ZookeeperLog
from pvc.runtime.world import World, follow


async def main(hosts: str, cluster: str, raw: str) -> None:
    log = await ZookeeperLog.open(hosts, cluster)
    world = World()
    client = KazooClient(hosts=hosts)
    client.start(timeout=10)
    _watch(client, raw)
    with world.listening(lambda entry, events: _tell(f"fold {entry.position}")):
        print("ready", flush=True)
        await follow(world, log)


def _watch(client: KazooClient, path: str) -> None:
    """Raw watch and get: what was set is read as soon as the watch says that it is there, and watched again."""

    def got(result: object) -> None:
        data, _ = result.get()  # type: ignore[attr-defined]
        number = data.rstrip(b"\0").decode()
        if number != "0":
            _tell(f"raw {number}")

    def ask(event: object = None) -> None:
        client.get_async(path, watch=ask).rawlink(got)

    ask()


def _tell(what: str) -> None:
    print(what, time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
