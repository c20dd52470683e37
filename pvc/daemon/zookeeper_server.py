"""The coordinator's own ZooKeeper server: configured and started before the log is opened, and kept running after that.

It is a process of its own that outlives pvcd: a restart of the daemon, or its end, does not touch it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pvc.daemon.config import Config
from pvc.daemon.zookeeper_access import server_tls
from pvc.drivers.zookeeper_config import Member, ServerConfig
from pvc.drivers.zookeeper_server import ZookeeperServer
from pvc.errors import InvalidInput, PvcError

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks whether the server runs: the others have a majority meanwhile."""


async def start_zookeeper(config: Config) -> ZookeeperServer | None:
    """Configure and start this node's server; None where it runs none. Raises InvalidInput, DriverError."""
    own = config.zookeeper.id
    if not own or config.log.kind != "zookeeper":
        return None
    members = tuple(
        Member(id=int(number), address=address)
        for number, _, address in (member.partition("=") for member in config.zookeeper.members)
    )
    if own not in (member.id for member in members):
        raise InvalidInput(
            f"zookeeper.id is {own}, which is not among zookeeper.members",
            code="config.invalid",
            hint=f'add "{own}=ADDRESS" to the members',
        )
    server = ZookeeperServer(
        ServerConfig(
            home=config.data_dir / "zookeeper",
            id=own,
            members=members,
            heap_mib=config.zookeeper.heap_mib,
            tls=server_tls(config.log),
        )
    )
    await asyncio.to_thread(server.ensure_config)
    if await server.ensure_running():
        logger.info("zookeeper: started id=%d", own)
    if server.held:
        logger.warning("zookeeper: not kept running while this file is there path=%s", server.config.hold)
    return server


async def keep_running(server: ZookeeperServer) -> None:
    """Start the server again whenever it has ended and is not held, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            if await server.ensure_running():
                logger.warning("zookeeper: had ended, started again id=%d", server.config.id)
        except (PvcError, OSError) as error:  # a disk that is full will have room again
            logger.error("zookeeper: cannot be started error=%s", error)


def mode_of(server: ZookeeperServer) -> Callable[[], Awaitable[str]]:
    """What the server says it is, for the telemetry."""

    async def mode() -> str:
        return str((await server.health()).mode)

    return mode
