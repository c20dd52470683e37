"""Makes the ports of webhooks: where cursors and key are, and the guard that knows what belongs to the cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from pvc.clock import Clock, Rng
from pvc.daemon.config import Config, split_listen
from pvc.gateway.services import WebhookPorts
from pvc.runtime.world import World
from pvc.webhooks.guard import Guard, Own
from pvc.webhooks.post import HttpPost
from pvc.webhooks.sender import Sender
from pvc.webhooks.store import FileStore, MemoryStore, WebhookStore

OUR_PORTS = (
    (22, "SSH"),
    (2181, "ZooKeeper"),
    (2888, "ZooKeeper"),
    (3888, "ZooKeeper"),
    (7370, "the gateway"),
    (16509, "libvirt"),
    (16514, "libvirt"),
)
"""What listens on a node, whatever its configuration says."""

_PLACES = ("ip", "addr", "host")
"""What the names of fence agents' options have in them where a value is the device's address."""


async def open_webhooks(
    config: Config, world: World, readable: Callable[[bytes], Awaitable[bytes]], clock: Clock, rng: Rng
) -> tuple[WebhookPorts, HttpPost]:
    """The ports, and what has to be closed after them."""
    store = await _open_store(config, rng)
    post = HttpPost(Guard(lambda: list(own_places(config, world))))
    return WebhookPorts(store=store, sender=Sender(store, post, readable, clock, rng)), post


async def _open_store(config: Config, rng: Rng) -> WebhookStore:
    match config.log.kind:
        case "sqlite":
            return FileStore(config.data_dir / "webhooks", rng)
        case "zookeeper":
            from pvc.daemon.zookeeper_access import zookeeper_access, zookeeper_hosts
            from pvc.webhooks.store_zookeeper import ZookeeperStore

            access = zookeeper_access(config.log)
            return await ZookeeperStore.open(
                zookeeper_hosts(config), config.log.cluster, rng, credentials=access.credentials, tls=access.tls
            )
        case "memory":
            return MemoryStore(rng)


def own_places(config: Config, world: World) -> Iterator[Own]:
    """What the cluster consists of: no webhook goes there, whatever is allowed to it."""
    for ours, what in OUR_PORTS:
        yield Own("127.0.0.1", ours, what)
    if config.gateway.listen:
        yield Own("127.0.0.1", split_listen(config.gateway.listen)[1], "the gateway")
    if config.node.address:
        yield Own(config.node.address, what="this node")
    if config.log.kind == "zookeeper":
        from pvc.daemon.zookeeper_access import CLIENT_PORT, zookeeper_hosts

        for server in zookeeper_hosts(config).partition("/")[0].split(","):
            host, _, number = server.strip().rpartition(":")
            port = int(number) if number.isdigit() else CLIENT_PORT
            yield Own(host.strip("[]") or server, port, "a ZooKeeper server")
    for member in config.zookeeper.members:
        yield Own(member.partition("=")[2], 2181, "a ZooKeeper server")
    for node in world.state.nodes.values():
        yield Own(node.address or node.name, what=f"the node {node.name}")
        for name, value in (node.fence.options if node.fence is not None else {}).items():
            if any(part in name for part in _PLACES) and value:
                yield Own(value, what=f"what switches the power of {node.name}")
