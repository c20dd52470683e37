"""What a coordinator's ZooKeeper server is told: its files, made from the members alone, so the same on every start."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

JARS = Path("/usr/share/java")
CLASSPATH = (JARS / "zookeeper.jar", JARS / "slf4j-jdk14.jar")
"""Debian's libzookeeper-java names all it needs but a logger; this one writes by Java's own means, and so rotates."""

TLS_CLASSPATH = tuple(JARS / f"netty-{part}.jar" for part in ("codec", "resolver", "transport-native-unix-common"))
"""What Netty needs and the jar of Debian's 3.8.0 does not name; without it a server by TLS answers nobody."""

MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_SERVER_LINE = re.compile(r"^server\.(\d+)=", re.MULTILINE)

PREALLOCATED_MIB = 8
"""By which the transaction log's file grows. It counts as full of transactions from the beginning: with ZooKeeper's own
64 the next limit would be reached by an empty file, and a snapshot written after each transaction."""

LOG_PER_SNAPSHOT_MIB = 128
"""Transaction log, at most, until the server writes a snapshot; between half of it and all, so that not all servers do
at once. A start replays that much. ZooKeeper counts to 100,000 transactions or 4 GB otherwise, and one of ours may have
200 records: a start took 28 s after a million of them."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One server of the ensemble."""

    id: int
    """1 to 255, its own for good."""
    address: str
    """Where the others and the clients reach it; it listens nowhere else."""
    client_port: int = 2181
    secure_port: int = 2281
    """Of clients, where there is TLS; the other one is then for this machine alone."""
    peer_port: int = 2888
    election_port: int = 3888


class ServerTls(msgspec.Struct, frozen=True, kw_only=True):
    """What the server proves itself with, to clients and to the other servers, and what it asks of them."""

    identity: bytes
    """PEM: a key (PKCS #8), its certificate, and those between it and the authority."""
    authority: bytes
    """PEM: who vouches for clients and servers. Nobody else may connect."""


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The server on this machine."""

    home: Path
    """Configuration, data, logs and the pid file are kept here."""
    id: int
    members: tuple[Member, ...]
    """All of the ensemble, this server among them. One alone runs without a quorum (standalone)."""
    heap_mib: int = 256
    """The log's quota (`log.quota_records`, `log.quota_mib`) lets the log take half of it."""
    tick_ms: int = 2000
    """Sessions last 2 to 20 ticks; 1000 to 2000 on real machines."""
    init_limit: int = 5
    """Ticks a follower may take to fetch the leader's state, or an election gone astray (ZOOKEEPER-4685) may last."""
    sync_limit: int = 5
    """Ticks a follower may lag behind."""
    tls: ServerTls | None = None
    """With it clients and servers connect by TLS, and show certificates of their own; all servers must have it."""

    @property
    def own(self) -> Member:
        """This server."""
        return next(member for member in self.members if member.id == self.id)

    @property
    def asked_at(self) -> tuple[str, int]:
        """Where it is asked how it is."""
        return ("127.0.0.1" if self.tls else self.own.address, self.own.client_port)

    @property
    def identity(self) -> Path:
        """Key and certificate, of its own user alone."""
        return self.home / "identity.pem"

    @property
    def authority(self) -> Path:
        """The authority's certificate."""
        return self.home / "authority.pem"

    @property
    def data(self) -> Path:
        """Where its snapshots and transaction logs are."""
        return self.home / "data"

    @property
    def zoo_cfg(self) -> Path:
        """Its main file."""
        return self.home / "zoo.cfg"

    @property
    def hold(self) -> Path:
        """While somebody keeps this file here, the server is not started: it is being worked on."""
        return self.home / "hold"

    @property
    def java_options(self) -> Path:
        """An argument file for `java`, which a systemd unit may use as well."""
        return self.home / "java.options"


def files_of(config: ServerConfig) -> dict[Path, bytes]:
    """Every file of the configuration and its content."""
    texts = {
        config.zoo_cfg: _zoo_cfg(config),
        config.data / "myid": f"{config.id}\n",
        config.home / "logging.properties": _logging(config),
        config.java_options: _java_options(config),
    }
    files = {path: text.encode() for path, text in texts.items()}
    if config.tls is not None:
        files |= {config.identity: config.tls.identity, config.authority: config.tls.authority}
    return files


def member_ids(zoo_cfg: str) -> set[int]:
    """The servers that a configuration names."""
    return {int(number) for number in _SERVER_LINE.findall(zoo_cfg)}


def _zoo_cfg(config: ServerConfig) -> str:
    lines = [
        "# Written by PVC. Changes are overwritten.",
        f"tickTime={config.tick_ms}",
        f"initLimit={config.init_limit}",
        f"syncLimit={config.sync_limit}",
        f"dataDir={config.data}",
        # Snapshots and logs pile up otherwise; three is the least that ZooKeeper accepts.
        "autopurge.snapRetainCount=5",
        "autopurge.purgeInterval=1",
        f"preAllocSize={PREALLOCATED_MIB * 1024}",
        f"snapSizeLimitInKb={LOG_PER_SNAPSHOT_MIB * 1024}",
        "4lw.commands.whitelist=srvr,ruok,mntr,stat",
        "admin.enableServer=false",
        "quorumListenOnAllIPs=false",
        # Else the log's quota (pvc/log/quota.py) is only told in this server's own log when it is passed.
        "enforceQuota=true",
        # Per address: it would only ever be met by the daemons and tools of one of our own nodes.
        "maxClientCnxns=0",
    ]
    lines += _tls(config) if config.tls is not None else []
    for one in sorted(config.members, key=lambda member: member.id):
        host = f"[{one.address}]" if ":" in one.address else one.address
        # By TLS the plain port stays, on this machine: `srvr` is answered there, without a certificate.
        plain = "127.0.0.1" if config.tls is not None else host
        lines.append(f"server.{one.id}={host}:{one.peer_port}:{one.election_port};{plain}:{one.client_port}")
    return "\n".join(lines) + "\n"


def _tls(config: ServerConfig) -> list[str]:
    """Clients and servers show certificates of the one authority. Servers are also known by the address in theirs;
    a client's address may be any."""
    lines = [
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",  # the other one knows no TLS
        f"secureClientPort={config.own.secure_port}",
        f"secureClientPortAddress={config.own.address}",
        "ssl.clientAuth=need",
        "sslQuorum=true",
        "ssl.quorum.clientAuth=need",
    ]
    for prefix in ("ssl", "ssl.quorum"):
        lines += [
            f"{prefix}.keyStore.location={config.identity}",
            f"{prefix}.keyStore.type=PEM",
            f"{prefix}.trustStore.location={config.authority}",
            f"{prefix}.trustStore.type=PEM",
        ]
    return lines


def _java_options(config: ServerConfig) -> str:
    classpath = ":".join(map(str, (*CLASSPATH, *(TLS_CLASSPATH if config.tls is not None else ()))))
    return "\n".join(
        [
            f"-Xms64m -Xmx{config.heap_mib}m -XX:+UseSerialGC",
            # Half a server is worse than none: whoever keeps it starts a new one.
            "-XX:+ExitOnOutOfMemoryError",
            f"-Djava.util.logging.config.file={config.home / 'logging.properties'}",
            "-Dzookeeper.jmx.log4j.disable=true",
            f"-cp {classpath}",
            f"{MAIN} {config.zoo_cfg}",
            "",
        ]
    )


def _logging(config: ServerConfig) -> str:
    return (
        "handlers=java.util.logging.FileHandler\n"
        ".level=INFO\n"
        f"java.util.logging.FileHandler.pattern={config.home}/zookeeper.%g.log\n"
        "java.util.logging.FileHandler.limit=10000000\n"
        "java.util.logging.FileHandler.count=5\n"
        "java.util.logging.FileHandler.append=true\n"
        "java.util.logging.FileHandler.formatter=java.util.logging.SimpleFormatter\n"
        "java.util.logging.SimpleFormatter.format=%1$tFT%1$tT.%1$tL %4$s %3$s: %5$s%6$s%n\n"
    )
