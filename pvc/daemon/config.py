"""The daemon's configuration file (TOML): its fields, their defaults, and errors that name the line of remedy."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pvc.drivers.anchors import check_syslog_target, check_webhook_url
from pvc.errors import InvalidInput
from pvc.events.types import NodeName
from pvc.oidc.people import GroupRole, grant_of
from pvc.oidc.web import check_url

MAX_PORT = 65_535


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[node]`: who this is."""

    name: NodeName | None = None
    """The short host name if not given."""
    data_dir: str = "/var/lib/pvc"
    address: str = ""
    """Where other nodes reach this one: for migrations. Empty: the address of its host name."""
    session_timeout_s: Annotated[float, Meta(ge=4, le=120)] = 10.0
    """A node that is silent for so long is lost. The same on all nodes; shorter takes busy machines for dead ones."""
    watchdog: str = ""
    """Watchdog device, such as /dev/watchdog, for a node without a fence agent: it then fences itself."""
    watchdog_timeout_s: Annotated[int, Meta(ge=5, le=120)] = 10


class HypervisorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[hypervisor]`: what runs the VMs."""

    kind: Literal["libvirt", "simulated"] = "libvirt"
    uri: str = "qemu:///system"
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    """`auto` uses KVM only after a tiny guest has run under it."""
    migration_uri: str = "qemu+tls://{address}/system"
    """How the hypervisor of another node is reached, with `{address}` for its address."""
    migration_tls: bool | Literal["auto"] = "auto"
    """Whether a guest's memory is encrypted on its way; `auto`: unless `migration_uri` is qemu+tcp."""
    qemu_log_dir: str = ""
    """Where libvirtd keeps QEMU's logs; empty: the usual place. They tell how a VM ended while nobody watched."""


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: where records live."""

    kind: Literal["sqlite", "zookeeper", "memory"] = "sqlite"
    hosts: str = ""
    """ZooKeeper's servers, HOST:PORT,HOST:PORT,...; empty: those of `[zookeeper]`, or the one on this machine."""
    cluster: str = "main"
    """Name of the log in ZooKeeper: its place is /pvc/<cluster>."""
    user: str = ""
    """Digest identity for ZooKeeper; empty: none, and whoever reaches ZooKeeper can read and append."""
    password_file: str = ""
    """File with that identity's password."""
    archivist_user: str = ""
    """Second identity, for coordinators: it alone may delete records that are archived. Set before the log is made."""
    archivist_password_file: str = ""
    """File with the second identity's password."""
    segment_records: Annotated[int, Meta(ge=2, le=4_096)] = 4_096
    """A segment of the log is full at so many records, at 2 MB or after a day."""
    hot_segments: Annotated[int, Meta(ge=1, le=1_000)] = 16
    """So many full segments stay in ZooKeeper; what is older is in the archive alone. The same on all coordinators."""
    tls_ca: str = ""
    """PEM file of the authority of ZooKeeper's certificates; empty: no TLS."""
    tls_cert: str = ""
    tls_key: str = ""
    quota_records: Annotated[int, Meta(ge=1_000, le=100_000_000)] = 200_000
    """Records in ZooKeeper, at most: three times the hot window of 16 segments of 4,096. At least twice that window."""
    quota_mib: Annotated[int, Meta(ge=1, le=65_536)] = 64
    """Their bytes, at most: twice the hot window of 16 segments of 2 MB. With the records' own 350 bytes each that is
    a quarter of the heap; a server with half of that was out of memory at 291,000 records of 335 bytes."""


class ZookeeperConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[zookeeper]`: the ensemble's servers, and which of them this node runs, if any."""

    id: Annotated[int, Meta(ge=0, le=255)] = 0
    """This node's server, which pvcd configures and keeps running; 0: it runs none, or somebody else sees to it."""
    members: tuple[Annotated[str, Meta(pattern=r"^\d{1,3}=[^\s=:]+$")], ...] = ()
    """All servers as ID=ADDRESS, the same list on every node."""
    heap_mib: Annotated[int, Meta(ge=64, le=65_536)] = 512


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway]`: where the API is served."""

    socket: str = "/run/pvc/pvc.sock"
    """Root's way in, without a token."""
    listen: Annotated[str, Meta(pattern=r"^$|^.+:\d{1,5}$")] = "127.0.0.1:7370"
    """Address and port for everybody else, with a token; empty: none."""
    tls_cert: str = ""
    """PEM file with a certificate of one's own; empty: pvcd makes one where other machines are served."""
    tls_key: str = ""


class AnchorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[anchor]`: where the log's signed checkpoints are kept outside of the cluster; the same on all coordinators."""

    file: str = ""
    """File that they are appended to, such as one on another machine or on storage that is written once."""
    syslog: str = ""
    """System log that they are sent to: /dev/log, udp://HOST:PORT or tcp://HOST:PORT."""
    webhook: str = ""
    """URL that they are posted to: https, or http on this very machine."""
    webhook_ca: str = ""
    """PEM file of the authority of that server's certificate; empty: the system's."""
    webhook_token_file: str = ""
    """File with a token that is sent along."""


class LoggingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[logging]`: how the daemon writes its own log."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    """What is below it is not written; `--debug` goes before."""


class TracingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tracing]`: where spans go. Needs the extra `otel`."""

    endpoint: str = ""
    """URL of an OTLP receiver over HTTP, such as http://127.0.0.1:4318/v1/traces; empty: nothing is traced."""
    ca: str = ""
    """PEM file of the authority of its certificate; empty: the system's."""
    token_file: str = ""
    """File with a token that is sent along."""
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the chains of causes that are traced; each is whole, on every node, or not at all."""


class ArchiveConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[archive]`: where sealed segments of the log are kept; what is no longer in ZooKeeper is only there."""

    dir: str = ""
    """Directory on this node; empty: `archive` in the data directory."""
    rados_pool: str = ""
    """Pool of Ceph, besides the directory; the same on all nodes. Empty: none."""
    rados_conf: str = ""
    """Ceph's configuration file; empty: where Ceph looks for it."""
    rados_user: str = ""
    """Name of the Ceph client, without `client.`; empty: admin."""
    rados_namespace: str = ""
    """Namespace in the pool, one for each cluster that shares it."""
    pause_s: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """Between two looks at what is to be archived, each with a check of one segment's copies."""


class OidcConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[oidc]`: the issuer that people log in at; the same on all nodes."""

    issuer: str = ""
    """Its URL, exactly as it writes it itself; empty: people come with tokens alone."""
    client_id: str = ""
    """What this cluster is registered as there."""
    client_secret_file: str = ""
    """File with the client's secret; empty: a public client, which PKCE alone protects."""
    ca_file: str = ""
    """PEM file of the authority that vouches for the issuer; empty: the system's."""
    scopes: tuple[str, ...] = ("openid", "profile")
    """What is asked for; `offline_access` or so for `pvc login` without a browser later, as the issuer has it."""
    name_claim: str = "preferred_username"
    """The claim that is the person's name here."""
    groups_claim: str = "groups"
    """The claim with the groups; with dots for one inside of others: `realm_access.roles`."""
    roles: tuple[GroupRole, ...] = ()
    """What each group may do: `[[oidc.roles]]` with `group` and `grant`. Who has none of them may not come in."""
    lifetime_s: Annotated[int, Meta(ge=300, le=86_400)] = 28_800
    """How long the token of a login opens: a working day."""
    device: bool = True
    """Whether one may log in by another device, where the issuer offers it."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file; every part has defaults."""

    node: NodeConfig = NodeConfig()
    hypervisor: HypervisorConfig = HypervisorConfig()
    log: LogConfig = LogConfig()
    zookeeper: ZookeeperConfig = ZookeeperConfig()
    gateway: GatewayConfig = GatewayConfig()
    archive: ArchiveConfig = ArchiveConfig()
    anchor: AnchorConfig = AnchorConfig()
    logging: LoggingConfig = LoggingConfig()
    tracing: TracingConfig = TracingConfig()
    oidc: OidcConfig = OidcConfig()

    @property
    def node_name(self) -> str:
        """The configured name, or the short host name. Raises InvalidInput when that is no name for a node."""
        if self.node.name is not None:
            return self.node.name
        name = socket.gethostname().partition(".")[0].lower()
        try:
            return msgspec.convert(name, NodeName)
        except msgspec.ValidationError as error:
            raise InvalidInput(
                f"the host name {name!r} is no name for a node: {error}",
                code="config.invalid",
                hint="set node.name in the configuration: a-z, 0-9 and inner hyphens, at most 63 characters",
            ) from error

    @property
    def archive_dir(self) -> Path:
        """Where this node keeps sealed segments."""
        return Path(self.archive.dir) if self.archive.dir else self.data_dir / "archive"

    @property
    def data_dir(self) -> Path:
        """Where this node keeps its files."""
        return Path(self.node.data_dir)


def load_config(path: Path) -> Config:
    """Read the file. Raises InvalidInput that names file, field and value."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror}", "give the right path with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _bad(path, f"is not TOML: {error}", "mend that line") from error
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        raise _bad(path, f"is not valid: {error}", "docs/configuration.md lists the fields") from error
    _check_gateway(path, config.gateway)
    _check_anchor(path, config.anchor)
    _check_archive(path, config.archive)
    _check_quota(path, config.log)
    _check_tracing(path, config.tracing)
    _check_oidc(path, config.oidc)
    _ = config.node_name  # a host name that is no node name is to be told now, not when it is first needed
    return config


def split_listen(listen: str) -> tuple[str, int]:
    """Host and port of a `host:port`; an IPv6 host stands in brackets."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def _check_gateway(path: Path, gateway: GatewayConfig) -> None:
    if bool(gateway.tls_cert) != bool(gateway.tls_key):
        raise _bad(path, "has only one of gateway.tls_cert and gateway.tls_key", "give both")
    if not gateway.listen:
        return
    _, port = split_listen(gateway.listen)
    if port > MAX_PORT:
        raise _bad(path, f"has port {port} in gateway.listen; the last one is {MAX_PORT}", "choose another port")


def serves_others(listen: str) -> bool:
    """Whether other machines than this one are served: then only with TLS."""
    if not listen:
        return False
    host, _ = split_listen(listen)
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _check_anchor(path: Path, anchor: AnchorConfig) -> None:
    try:
        if anchor.syslog:
            check_syslog_target(anchor.syslog)
        if anchor.webhook:
            check_webhook_url(anchor.webhook)
    except InvalidInput as error:
        raise _bad(path, f"has an anchor that cannot be used: {error.message}", error.hint) from error
    if anchor.file and not anchor.file.startswith("/"):
        raise _bad(path, f"has the anchor.file {anchor.file!r}", "give its full path")


def is_wildcard(host: str) -> bool:
    """Whether it stands for every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _check_archive(path: Path, archive: ArchiveConfig) -> None:
    if archive.dir and not archive.dir.startswith("/"):
        raise _bad(path, f"has the archive.dir {archive.dir!r}", "give its full path")
    lonely = [name for name in ("rados_conf", "rados_user", "rados_namespace") if getattr(archive, name)]
    if lonely and not archive.rados_pool:
        raise _bad(path, f"has archive.{lonely[0]}, but no archive.rados_pool", "name the pool, or leave both out")


def _check_tracing(path: Path, tracing: TracingConfig) -> None:
    if tracing.endpoint and not tracing.endpoint.startswith(("http://", "https://")):
        hint = "give the whole URL: http://127.0.0.1:4318/v1/traces"
        raise _bad(path, f"has the tracing.endpoint {tracing.endpoint!r}", hint=hint)
    if tracing.endpoint and not importlib.util.find_spec("opentelemetry"):
        raise _bad(
            path,
            "has a tracing.endpoint, and OpenTelemetry is not installed",
            "`pip install 'pvc[otel]'`, or leave it out",
        )


def _check_quota(path: Path, log: LogConfig) -> None:
    """The fuse must not blow in good order: the full segments that stay, and as many that wait for the archive."""
    records, mib = 2 * log.hot_segments * log.segment_records, 3 * log.hot_segments
    if log.quota_records < records or log.quota_mib < mib:
        hint = (
            f"set log.quota_records to {records} and log.quota_mib to {mib}, or more, and zookeeper.heap_mib to match"
        )
        raise _bad(path, f"has too small a quota for log.hot_segments = {log.hot_segments}", hint=hint)


def _check_oidc(path: Path, oidc: OidcConfig) -> None:
    if not oidc.issuer:
        return
    try:
        check_url(oidc.issuer)
    except InvalidInput as error:
        raise _bad(path, f"has an oidc.issuer that cannot be used: {error.message}", error.hint) from error
    if not oidc.client_id:
        raise _bad(path, "has oidc.issuer, but no oidc.client_id", "register this cluster at the issuer")
    if "openid" not in oidc.scopes:
        raise _bad(path, "has oidc.scopes without openid", "without it the issuer gives no ID token")
    if not oidc.roles:
        raise _bad(path, "has oidc.issuer, but no [[oidc.roles]]", "nobody could come in; name a group and its grant")
    for one in oidc.roles:
        try:
            grant_of(one.grant)
        except ValueError as error:
            hint = "write it as for `pvc access add --grant`: operator,tag=shop"
            raise _bad(path, f"has a grant {one.grant!r} in [[oidc.roles]] that is none: {error}", hint) from error


def _bad(path: Path, what: str, hint: str) -> InvalidInput:
    return InvalidInput(f"the configuration {path} {what}", code="config.invalid", hint=hint)
