"""Where a cluster lives in ZooKeeper, for all parts of PVC that keep something there. No I/O."""

from __future__ import annotations

import re

from pvc.errors import InvalidInput
from pvc.zookeeper.types import CREATE, READ, Create

_CLUSTER_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


def place_of(cluster: str) -> str:
    """The cluster's znode. Raises InvalidInput."""
    if not _CLUSTER_NAME.fullmatch(cluster):
        raise InvalidInput(
            f"{cluster!r} cannot be a cluster's name",
            code="cluster.bad_name",
            hint="use 1 to 63 lower-case letters, digits, dots and hyphens",
            field="cluster",
        )
    return f"/pvc/{cluster}"


def ancestors(cluster: str) -> list[Create]:
    """The cluster's znode and those above it, which other clusters and other parts of PVC use too."""
    return [Create(path, b"", READ | CREATE) for path in ("/pvc", place_of(cluster))]
