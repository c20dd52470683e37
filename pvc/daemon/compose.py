"""The composition root: from a configuration to ports, World, Appender, node and gateway, and back down again."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pvc.clock import SystemClock, SystemRng
from pvc.daemon.config import Config
from pvc.daemon.contact import contact_of, load_peer_secret, make_peer_secret
from pvc.daemon.first_state import first_state
from pvc.daemon.log_care import DaemonLogCare
from pvc.daemon.login_parts import make_login
from pvc.daemon.logs import (
    OPERATIONS_FILE,
    LogCopies,
    archive_parts,
    await_whole_log,
    incarnation_of,
    make_copies,
    open_log,
    remove_replica,
)
from pvc.daemon.own_certificate import with_certificate
from pvc.daemon.serving import serve
from pvc.daemon.tracing import tracing
from pvc.daemon.webhooks import open_webhooks
from pvc.daemon.zookeeper_server import keep_running, mode_of, start_zookeeper
from pvc.drivers.anchors import Anchor, FileAnchor, SyslogAnchor, WebhookAnchor
from pvc.drivers.fence_agent import FenceAgents
from pvc.drivers.hypervisor import Hypervisor
from pvc.drivers.machine import boot_id, machine_id, missing_files
from pvc.drivers.watchdog import LinuxWatchdog
from pvc.errors import Unavailable
from pvc.gateway.services import GatewayServices, PeerParts, WebhookPorts
from pvc.handlers.vm_reconciler import nothing_missing
from pvc.handlers.what_if import foresee
from pvc.keyring.base import Keyring
from pvc.log.base import Log
from pvc.log.history import HistoryIndex
from pvc.log.inbox import Inbox
from pvc.node.delivering import DeliveryParts
from pvc.node.node import Node, Services
from pvc.node.signing import KeyFiles
from pvc.node.vouching import VouchingParts
from pvc.peers.client import Peers
from pvc.presence.base import Member, Presence
from pvc.runtime.append_watch import AppendWatch
from pvc.runtime.appender import Appender
from pvc.runtime.operations import Operations
from pvc.runtime.past_files import PastFiles
from pvc.runtime.people import People
from pvc.runtime.snapshots import SnapshotFile, store_snapshot
from pvc.runtime.telemetry import Telemetry
from pvc.runtime.world import World


async def run_daemon(config: Config, stop: asyncio.Event) -> None:
    """Run node and gateway until `stop` is set. Raises PvcError when something needed cannot be opened."""
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(config.data_dir):
        config = with_certificate(config)
        while not stop.is_set():
            await _run_once(config, stop)


async def _run_once(config: Config, stop: asyncio.Event) -> None:
    """Until `stop` is set, or a log that was damaged can be used again: then all begins anew, as after a start."""
    leave = asyncio.Event()
    async with _opened(config) as opened:
        services, history = opened.services, opened.history
        care = DaemonLogCare(config, services, history, opened.copies, leave.set)
        gateway = GatewayServices(
            world=services.world,
            appender=services.appender,
            log=services.log,
            history=history,
            operations=opened.operations,
            hypervisor=services.hypervisor,
            clock=services.clock,
            rng=services.rng,
            node=services.name,
            foresee=foresee,
            telemetry=opened.telemetry,
            presence=services.presence,
            past_files=services.past_files,
            people=opened.people,
            log_care=care,
            peers=opened.peers,
            watch=services.watch,
            places={"data": config.data_dir, "archive": config.archive_dir},
            webhooks=opened.webhooks,
            login=make_login(config.oidc, services.clock),
        )
        watching = [
            asyncio.create_task(_pass_on(stop, leave), name="stop"),
            asyncio.create_task(
                await_whole_log(config, opened.copies, services.world, history, leave), name="await a whole log"
            ),
        ]
        try:
            await serve(config, Node(services), gateway, leave)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await care.close()


async def _pass_on(event: asyncio.Event, to: asyncio.Event) -> None:
    await event.wait()
    to.set()


async def open_inbox(config: Config, log: Log) -> Inbox | None:
    """Where nodes forward reports to each other; None where this is the only node."""
    if config.log.kind != "zookeeper":
        return None
    from pvc.daemon.zookeeper_access import zookeeper_access, zookeeper_hosts
    from pvc.log.inbox_zookeeper import ZookeeperInbox
    from pvc.log.zookeeper import ZookeeperLog

    assert isinstance(log, ZookeeperLog), "opened above"

    access = zookeeper_access(config.log)
    return await ZookeeperInbox.open(
        zookeeper_hosts(config), config.log.cluster, log, credentials=access.credentials, tls=access.tls
    )


async def open_presence(config: Config) -> Presence:
    """Presence where the log is: with the others, or alone."""
    if config.log.kind != "zookeeper":
        from pvc.presence.alone import AlonePresence

        return AlonePresence()
    from pvc.daemon.zookeeper_access import zookeeper_access, zookeeper_hosts
    from pvc.presence.zookeeper import ZookeeperPresence

    access = zookeeper_access(config.log)
    return await ZookeeperPresence.open(
        zookeeper_hosts(config),
        config.log.cluster,
        machine=machine_id(config.data_dir),
        credentials=access.credentials,
        tls=access.tls,
        session_timeout_s=config.node.session_timeout_s,
    )


async def open_keyring(config: Config) -> Keyring:
    """The keys of people's names: beside the log, where all gateways find them, and not in it."""
    match config.log.kind:
        case "sqlite":
            from pvc.keyring.file import FileKeyring

            return FileKeyring(config.data_dir / "keyring")
        case "zookeeper":
            from pvc.daemon.zookeeper_access import zookeeper_access, zookeeper_hosts
            from pvc.keyring.zookeeper import ZookeeperKeyring

            access = zookeeper_access(config.log)
            return await ZookeeperKeyring.open(
                zookeeper_hosts(config), config.log.cluster, credentials=access.credentials, tls=access.tls
            )
        case "memory":
            from pvc.keyring.memory import MemoryKeyring

            return MemoryKeyring()


async def open_hypervisor(config: Config) -> Hypervisor:
    """The configured hypervisor."""
    console_dir = config.data_dir / "console"
    console_dir.mkdir(exist_ok=True)
    if config.hypervisor.kind == "simulated":
        from pvc.drivers.simulated import SimulatedHypervisor

        return SimulatedHypervisor(console_dir=console_dir, state_file=config.data_dir / "simulated.json")
    from pvc.drivers.accelerator import resolve_accelerator
    from pvc.drivers.libvirt import LibvirtHypervisor

    accelerator = await resolve_accelerator(config.hypervisor.accelerator, config.data_dir)
    return LibvirtHypervisor(
        config.hypervisor.uri,
        accelerator=accelerator,
        console_dir=console_dir,
        qemu_log_dir=Path(config.hypervisor.qemu_log_dir) if config.hypervisor.qemu_log_dir else None,
        migration_uri=config.hypervisor.migration_uri,
        migration_tls=None if config.hypervisor.migration_tls == "auto" else config.hypervisor.migration_tls,
    )


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """All that is open while the daemon runs."""

    services: Services
    history: HistoryIndex
    operations: Operations
    telemetry: Telemetry
    copies: LogCopies
    people: People
    peers: PeerParts
    webhooks: WebhookPorts


@contextlib.asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[_Opened]:
    clock, rng = SystemClock(), SystemRng()
    async with contextlib.AsyncExitStack() as stack:
        server = await start_zookeeper(config)
        if config.log.kind == "memory":
            remove_replica(config)  # of a log that is no more
        history = await HistoryIndex.open(config.data_dir / "history.db")
        stack.push_async_callback(history.close)
        operations = await Operations.open(config.data_dir / OPERATIONS_FILE)
        stack.push_async_callback(operations.close)
        presence: Presence | None = None

        async def members() -> Mapping[str, Member]:
            return await presence.members() if presence is not None else {}

        secret = make_peer_secret(config, clock, rng)
        peers = Peers(config.node_name, members, secret, clock=clock, rng=rng) if secret is not None else None
        copies = make_copies(config, peers)
        for archive in copies.archives:
            stack.push_async_callback(archive.close)
        log = await open_log(config, copies, may_found=history.position == 0)
        stack.push_async_callback(log.close)
        inbox = await open_inbox(config, log)
        if inbox is not None:
            stack.push_async_callback(inbox.close)
        if secret is not None:
            await load_peer_secret(secret)
            stack.push_async_callback(secret.close)
        hypervisor = await open_hypervisor(config)
        stack.push_async_callback(hypervisor.close)
        presence = await open_presence(config)
        stack.push_async_callback(presence.close)
        telemetry = Telemetry(presence, clock)
        keyring = await open_keyring(config)
        stack.push_async_callback(keyring.close)
        snapshots = SnapshotFile(config.data_dir / "snapshot")
        parts = PeerParts(
            secret=secret,
            archive=copies.archives[0],
            snapshots=snapshots,
            incarnation=lambda: incarnation_of(log),
        )
        # With the log in memory nothing is left of what the state was folded from.
        state = None if config.log.kind == "memory" else await first_state(snapshots, log, peers)
        world = World(state, behind=True)
        people = People(keyring, world, clock, rng)
        watch = AppendWatch(
            clock,
            node=config.node_name,
            tracer=await stack.enter_async_context(tracing(config)),
            caught_up=lambda: world.caught_up,
        )
        stack.enter_context(world.listening(watch.folded))
        webhooks, post = await open_webhooks(config, world, people.readable, clock, rng)
        stack.push_async_callback(webhooks.store.close)
        stack.push_async_callback(post.close)
        services = Services(
            name=config.node_name,
            boot=boot_id(),
            world=world,
            log=log,
            appender=Appender(
                world,
                log,
                origin=config.node_name,
                clock=clock,
                rng=rng,
                usage=telemetry.usage,
                inbox=inbox,
                watch=watch,
            ),
            watch=watch,
            hypervisor=hypervisor,
            clock=clock,
            rng=rng,
            snapshots=snapshots,
            past_files=None if config.log.kind == "memory" else PastFiles(config.data_dir / "snapshots"),
            presence=presence,
            fence=FenceAgents() if config.log.kind == "zookeeper" else None,
            watchdog=LinuxWatchdog(Path(config.node.watchdog)) if config.node.watchdog else None,
            watchdog_timeout_s=config.node.watchdog_timeout_s,
            address=config.node.address or socket.gethostname(),
            contact=contact_of(config),
            obstacle=missing_files if config.hypervisor.kind == "libvirt" else nothing_missing,
            vouching=VouchingParts(history=history, keys=KeyFiles(config.data_dir / "log-signing.key")),
            anchors=tuple(_anchors(config)),
            people=people,
            zookeeper=mode_of(server) if server is not None else None,
            archive=archive_parts(config, log, history, copies),
            webhooks=DeliveryParts(
                history=history,
                store=webhooks.store,
                sender=webhooks.sender,
                clock=clock,
                rng=rng,
                meters=watch.meters,
                tracer=watch.tracer,
            ),
        )
        if server is not None:
            keeper = asyncio.create_task(keep_running(server), name="zookeeper")
            stack.callback(keeper.cancel)
        yield _Opened(
            services=services,
            history=history,
            operations=operations,
            telemetry=telemetry,
            copies=copies,
            people=people,
            peers=parts,
            webhooks=webhooks,
        )
        if world.fault is None:
            await store_snapshot(world, snapshots)


def _anchors(config: Config) -> Iterator[Anchor]:
    """The configured places for checkpoints."""
    anchor = config.anchor
    if anchor.file:
        yield FileAnchor(Path(anchor.file))
    if anchor.syslog:
        yield SyslogAnchor(anchor.syslog, config.node_name)
    if anchor.webhook:
        yield WebhookAnchor(anchor.webhook, ca_file=anchor.webhook_ca, token_file=anchor.webhook_token_file)


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory: two daemons on one would each believe to be the node."""
    # "a": opening it must not wipe the other daemon's process id.
    with (data_dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Unavailable(
                f"another daemon uses {data_dir}", code="node.data_dir_taken", hint="stop it, or set node.data_dir"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
