"""`pvcd --examine`: what `pvc doctor` shows of a node: configuration, secrets, disks, libvirt, KVM, ZooKeeper and time.

It is a program of its own beside the daemon, which may be running, stopped or unable to start. It changes nothing,
but that it runs the tiny guest which tells whether KVM works.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from pvc.daemon.config import Config, load_config, serves_others
from pvc.daemon.own_certificate import certificate_path
from pvc.errors import PvcError
from pvc.thread_pool import DaemonPool

LIBVIRT_TIMEOUT_S = 20.0
"""As long as the daemon itself waits for an answer; a libvirtd that has just started asks QEMU first."""

ZOOKEEPER_TIMEOUT_S = 5.0
ACCELERATOR_TIMEOUT_S = 20.0

FULL_PER_CENT, NEARLY_PER_CENT = 5, 15
"""Of a disk's space that is left: the first leaves no room for a replica that is built anew."""

LEAST_BYTES = 1 << 30

EXPIRES_SOON_DAYS = 14

UNSYNCHRONISED = 5
"""What adjtimex answers when nobody keeps this machine's time (TIME_ERROR)."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check came to."""

    check: str
    status: Literal["ok", "warn", "fail"]
    message: str
    remedy: str = ""


Found = Iterator[Finding]


async def examine(path: Path) -> list[Finding]:
    """Look at the node that this configuration makes."""
    try:
        config = load_config(path)
    except PvcError as error:
        return [_trouble("config", error)]
    found = [Finding(check="config", status="ok", message=f"{path} is valid")]
    for look in (_disks, _certificate, _address, _gateway, _watchdog):
        found += look(config)
    slow: list[Callable[[Config], Awaitable[list[Finding]]]] = [_libvirt, _accelerator, _zookeeper]
    for some in await asyncio.gather(*(look(config) for look in slow)):
        found += some
    return [*found, *_secrets(config, path), *_time()]


def _secrets(config: Config, path: Path) -> Found:
    """Files that others must not change, and those that they must not even read."""
    if path.stat().st_mode & 0o022:
        told = f"others than its owner may change {path}"
        yield Finding(check="secrets", status="fail", message=told, remedy=f"chmod go-w {path}")
    log, gateway = config.log, config.gateway
    named = [log.password_file, log.archivist_password_file, log.tls_key, gateway.tls_key]
    named += [config.anchor.webhook_token_file, config.oidc.client_secret_file, config.tracing.token_file]
    named += [str(config.data_dir / "webhooks" / "key"), str(certificate_path(config) or "")]
    count = 0
    for name in dict.fromkeys(named):
        secret = Path(name)
        if not name or not secret.exists() or (name == gateway.tls_cert and name != gateway.tls_key):
            continue
        count += 1
        if secret.stat().st_mode & 0o077:
            told = f"others than its owner may read {secret}"
            yield Finding(check="secrets", status="fail", message=told, remedy=f"chmod 600 {secret}, and renew it")
            count -= 1
    if count:
        told = f"{count} of this node's secrets can be read by their owner alone"
        yield Finding(check="secrets", status="ok", message=told)


def _disks(config: Config) -> Found:
    """Room for the log's replica, snapshots and archive."""
    for name, place in {"data_dir": config.data_dir, "archive.dir": config.archive_dir}.items():
        if not place.exists():
            if name == "data_dir":
                told = f"there is no {place} yet"
                yield Finding(check="disk", status="warn", message=told, remedy="pvcd makes it when it first runs")
            continue
        if name == "archive.dir" and place.stat().st_dev == config.data_dir.stat().st_dev:
            continue
        if place.stat().st_mode & 0o002:
            told = f"everybody may put files into {place}"
            yield Finding(check="disk", status="fail", message=told, remedy=f"chmod 700 {place}")
        space = shutil.disk_usage(place)
        nodes = os.statvfs(place)
        left = [100 * space.free / space.total] + ([100 * nodes.f_favail / nodes.f_files] if nodes.f_files else [])
        told = f"{place}: {space.free / (1 << 30):.1f} GiB free ({min(left):.0f} %)"
        remedy = "free some space, or give it a larger disk"
        if min(left) < FULL_PER_CENT or space.free < LEAST_BYTES:
            yield Finding(check="disk", status="fail", message=told, remedy=remedy)
        elif min(left) < NEARLY_PER_CENT:
            yield Finding(check="disk", status="warn", message=told, remedy=remedy)
        else:
            yield Finding(check="disk", status="ok", message=told)


def _certificate(config: Config) -> Found:
    path = certificate_path(config)
    if path is None:
        return
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        remedy = "pvcd makes one when it starts" if not config.gateway.tls_cert else "mend gateway.tls_cert"
        yield Finding(check="certificate", status="warn", message=f"there is no {path} yet", remedy=remedy)
        return
    except (OSError, ValueError) as error:
        told = f"{path} cannot be used: {error}"
        yield Finding(check="certificate", status="fail", message=told, remedy="put a PEM certificate there")
        return
    # The newer name for the same with a time zone came after the oldest version that we support.
    until = found.not_valid_after.replace(tzinfo=UTC)
    days = (until - datetime.now(UTC)).days
    told = f"{path} is valid until {until:%Y-%m-%d}"
    remedy = "renew it, restart pvcd, and give clients the new fingerprint"
    if days < 0:
        yield Finding(check="certificate", status="fail", message=f"{path} has expired", remedy=remedy)
    elif days < EXPIRES_SOON_DAYS:
        yield Finding(check="certificate", status="warn", message=f"{told}: that is soon", remedy=remedy)
    else:
        yield Finding(check="certificate", status="ok", message=told)


def _address(config: Config) -> Found:
    """Where other nodes reach this one."""
    if config.log.kind != "zookeeper":
        return
    name = config.node.address or socket.gethostname()
    try:
        found = sorted({str(one[4][0]) for one in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError as error:
        told = f"{name} has no address: {error.strerror}"
        yield Finding(check="address", status="fail", message=told, remedy="set node.address in the configuration")
        return
    if all(address.startswith("127.") or address == "::1" for address in found):
        told = f"{name} is {', '.join(found)}, where no other node reaches this one"
        remedy = "set node.address in the configuration, or mend /etc/hosts"
        yield Finding(check="address", status="warn", message=told, remedy=remedy)
    else:
        yield Finding(check="address", status="ok", message=f"other nodes reach this one at {', '.join(found)}")


def _gateway(config: Config) -> Found:
    """Whether pvcd serves."""
    path = config.gateway.socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(ZOOKEEPER_TIMEOUT_S)
            sock.connect(path)
    except OSError as error:
        told = f"pvcd does not serve at {path} ({error.strerror or error})"
        remedy = "systemctl status pvcd; journalctl -u pvcd"
        yield Finding(check="pvcd", status="fail", message=told, remedy=remedy)
        return
    others = "and other machines" if serves_others(config.gateway.listen) else "this machine alone"
    yield Finding(check="pvcd", status="ok", message=f"serves at {path}, {others}")


def _watchdog(config: Config) -> Found:
    device = config.node.watchdog
    if device and not Path(device).exists():
        told = f"there is no {device}"
        yield Finding(check="watchdog", status="fail", message=told, remedy="load its module, such as softdog")
    elif device:
        yield Finding(check="watchdog", status="ok", message=f"{device} is there")


async def _libvirt(config: Config) -> list[Finding]:
    if config.hypervisor.kind == "simulated":
        told = "the hypervisor is simulated: no VM really runs"
        return [Finding(check="libvirt", status="warn", message=told, remedy='set hypervisor.kind to "libvirt"')]
    try:
        from pvc.drivers.libvirt_probe import probe_libvirt

        pool = DaemonPool("probe", 1)  # whose thread a frozen libvirtd may keep
        async with asyncio.timeout(LIBVIRT_TIMEOUT_S):
            told = await pool.run(lambda: probe_libvirt(config.hypervisor.uri))
        return [Finding(check="libvirt", status="ok", message=told)]
    except ImportError as error:
        remedy = "apt-get install python3-libvirt"
        return [Finding(check="libvirt", status="fail", message=f"its library is not here: {error}", remedy=remedy)]
    except TimeoutError:
        told = f"libvirt has not answered within {LIBVIRT_TIMEOUT_S:g} s"
        return [Finding(check="libvirt", status="fail", message=told, remedy="systemctl restart libvirtd")]
    except PvcError as error:
        return [_trouble("libvirt", error)]


async def _accelerator(config: Config) -> list[Finding]:
    if config.hypervisor.kind == "simulated":
        return []
    from pvc.drivers.accelerator import qemu_version, runs_a_guest

    try:
        async with asyncio.timeout(ACCELERATOR_TIMEOUT_S):
            version = await qemu_version()
            works = config.hypervisor.accelerator != "tcg" and await runs_a_guest("kvm")
    except PvcError as error:
        return [_trouble("kvm", error)]
    except TimeoutError:
        told = f"QEMU has not answered within {ACCELERATOR_TIMEOUT_S:g} s"
        return [Finding(check="kvm", status="fail", message=told, remedy="look for hanging qemu processes")]
    if works:
        return [Finding(check="kvm", status="ok", message=f"a guest runs under KVM; {version}")]
    if config.hypervisor.accelerator == "tcg":
        return [Finding(check="kvm", status="ok", message=f"not used, as configured; {version}")]
    remedy = "switch virtualisation on in the firmware, and load kvm_intel or kvm_amd"
    status: Literal["warn", "fail"] = "fail" if config.hypervisor.accelerator == "kvm" else "warn"
    told = "no guest runs under KVM" + ("; they are emulated, which is many times slower" if status == "warn" else "")
    return [Finding(check="kvm", status=status, message=told, remedy=remedy)]


async def _zookeeper(config: Config) -> list[Finding]:
    if config.log.kind != "zookeeper":
        return []
    from pvc.daemon.zookeeper_access import zookeeper_access, zookeeper_hosts
    from pvc.drivers.zookeeper_server import Mode, parse_srvr

    try:
        tls = zookeeper_access(config.log).tls
        context = None
        if tls is not None:
            context = ssl.create_default_context(cafile=tls.ca)
            context.check_hostname = False  # as the log's own client: servers are known by their authority
            context.load_cert_chain(tls.certificate, tls.key)
    except PvcError as error:
        return [_trouble("zookeeper", error)]
    except OSError as error:
        told = f"its certificates cannot be used: {error.strerror or error}"
        return [Finding(check="zookeeper", status="fail", message=told, remedy="mend log.tls_ca, tls_cert, tls_key")]
    hosts = [host.strip() for host in zookeeper_hosts(config).partition("/")[0].split(",")]

    async def ask(host: str) -> str:
        try:
            async with asyncio.timeout(ZOOKEEPER_TIMEOUT_S):
                return parse_srvr(await _srvr(host, context)).mode.value
        except TimeoutError:
            return "silent (no answer in time)"
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            return f"silent ({os.strerror(number) if number else error})"

    modes = dict(zip(hosts, await asyncio.gather(*map(ask, hosts)), strict=True))
    told = ", ".join(f"{host} {mode}" for host, mode in modes.items())
    serving = sum(mode in (Mode.LEADER.value, Mode.FOLLOWER.value, Mode.STANDALONE.value) for mode in modes.values())
    if serving * 2 <= len(hosts):
        remedy = "most servers must run and reach each other, or nothing is decided: see them on their nodes"
        return [Finding(check="zookeeper", status="fail", message=told, remedy=remedy)]
    if serving < len(hosts):
        remedy = "look at the silent one on its node: one more that is lost may stop the cluster"
        return [Finding(check="zookeeper", status="warn", message=told, remedy=remedy)]
    return [Finding(check="zookeeper", status="ok", message=told)]


async def _srvr(host: str, context: ssl.SSLContext | None) -> str:
    address, _, port = host.rpartition(":")
    reader, writer = await asyncio.open_connection(address.strip("[]"), int(port), ssl=context)
    try:
        writer.write(b"srvr")
        return (await reader.read(1 << 16)).decode(errors="replace")
    finally:
        writer.close()


def _time() -> Found:
    """Whether somebody keeps this machine's time, as the kernel knows it."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return
    if state == UNSYNCHRONISED:
        told = "nobody keeps this machine's time; the history is told in it"
        yield Finding(check="time", status="warn", message=told, remedy="apt-get install chrony, or systemd-timesyncd")
    elif state >= 0:
        yield Finding(check="time", status="ok", message="is kept synchronised")


def _trouble(check: str, error: PvcError) -> Finding:
    return Finding(check=check, status="fail", message=error.message, remedy=error.hint)
