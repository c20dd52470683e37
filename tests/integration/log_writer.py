"""A process that appends to a log among others who do the same; prints each acknowledged record's id at once.

python -m tests.integration.log_writer zookeeper HOSTS CLUSTER COUNT
python -m tests.integration.log_writer sqlite PATH - COUNT
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable

from pvc.errors import Conflict, OutcomeUnknown, Unavailable
from pvc.events.record import Head, unseal
from pvc.log.base import Log
from pvc.log.sqlite import SqliteLog
from pvc.log.zookeeper import ZookeeperLog
from tests.contract.log_records import a_chain

MAX_BACKOFF_S = 0.05


async def main(kind: str, where: str, cluster: str, count: int) -> None:
    log: Log = (
        await ZookeeperLog.open(where, cluster, session_timeout_s=4)
        if kind == "zookeeper"
        else await SqliteLog.open(where)
    )
    try:
        await write(log, count, say=lambda id: print(id, flush=True))
    finally:
        await log.close()


async def write(log: Log, count: int, say: Callable[[str], None]) -> None:
    """Append `count` records, some as pairs; each is tried anew with full jitter until it is acknowledged."""
    head = await log.head()
    done = attempts = 0
    while done < count:
        entries = a_chain(head, min(2, count - done) if done % 5 == 0 else 1, size=200)
        try:
            head = await log.append(entries, after=head)
        except (Conflict, Unavailable):
            attempts += 1
            await asyncio.sleep(random.uniform(0, min(MAX_BACKOFF_S, 0.002 * 2**attempts)))
            head = await patiently_head(log)
            continue
        except OutcomeUnknown:
            head = await patiently_head(log)
            if not await is_there(log, entries[0].record.id, entries[0].position):
                continue
        attempts = 0
        done += len(entries)
        for entry in entries:
            say(entry.record.id)


async def patiently_head(log: Log) -> Head:
    while True:
        try:
            return await log.head()
        except Unavailable:
            await asyncio.sleep(0.1)


async def is_there(log: Log, record_id: str, position: int) -> bool:
    return any(unseal(data).record.id == record_id for data in await log.read(position, 1))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
