"""The ZooKeeper log keeps the contract of all logs, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pvc.log.zookeeper import ZookeeperLog
from pvc.log.zookeeper_layout import SegmentLimits
from tests.contract.log_contract import LogContract, OpenLog
from tests.integration.zookeeper_server import ZookeeperServer, cluster, zookeeper

__all__ = ["cluster", "zookeeper"]
pytestmark = pytest.mark.zookeeper


class TestZookeeperLog(LogContract):
    @pytest.fixture
    async def open_log(self, zookeeper: ZookeeperServer, cluster: str) -> AsyncIterator[OpenLog]:
        opened: list[ZookeeperLog] = []

        async def open_log() -> ZookeeperLog:
            opened.append(await ZookeeperLog.open(zookeeper.hosts, cluster))
            return opened[-1]

        yield open_log
        for log in opened:
            await log.close()


class TestZookeeperLogOfSmallSegments(LogContract):
    """Whatever is asked of a log crosses the border of a segment."""

    @pytest.fixture
    async def open_log(self, zookeeper: ZookeeperServer, cluster: str) -> AsyncIterator[OpenLog]:
        opened: list[ZookeeperLog] = []

        async def open_log() -> ZookeeperLog:
            opened.append(await ZookeeperLog.open(zookeeper.hosts, cluster, limits=SegmentLimits(records=2)))
            return opened[-1]

        yield open_log
        for log in opened:
            await log.close()
