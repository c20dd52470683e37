"""`pvcd` that tells what it fetches: a line `WHAT BYTES` in the file PVC_BENCH_FETCHED for each answer of another node,
and for each read of records from ZooKeeper.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pvc.daemon.main import main
from pvc.peers import client
from pvc.peers.http import Answer
from pvc.zookeeper.bridge import Bridge

told = Path(os.environ["PVC_BENCH_FETCHED"]).open("a", buffering=1)  # noqa: SIM115
real_fetch, real_get_many = client.fetch, Bridge.get_many


async def fetch(url: str, certificate: str, *, target: str, **options: Any) -> Answer:
    answer = await real_fetch(url, certificate, target=target, **options)
    told.write(f"{'snapshot' if target.endswith('/snapshot') else 'records'} {len(answer.body)}\n")
    return answer


async def get_many(bridge: Bridge, paths: Sequence[str]) -> list[bytes]:
    found = await real_get_many(bridge, paths)
    told.write(f"zookeeper {sum(map(len, found))}\n")
    return found


if __name__ == "__main__":
    client.fetch = fetch
    Bridge.get_many = get_many  # type: ignore[method-assign]
    main()
