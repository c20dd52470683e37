"""What `pvc doctor` finds out about a cluster: each of its gateways, step by step, then what they say together."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

from pvc import __version__
from pvc.cli.session import SOURCE
from pvc.cli.times import took
from pvc.client.connections import UNIX_SCHEME, Connection
from pvc.client.errors import ClientError

TIMEOUT_S = 5.0
"""For each step: far gateways answer well within this."""

SKEW_WARN_S, SKEW_FAIL_S = 2.0, 60.0
"""A gateway tells its time in whole seconds. By a minute, `--since` and the expiry of tokens are plainly wrong."""

EXPIRES_SOON_S = 14 * 86_400

BEHIND = 100
"""Records that one gateway may have less than another: a busy cluster writes as many between two answers."""

Told = tuple[str, str, str, str, str]
"""Check, status, message, remedy, and what it is about."""


class Probed(NamedTuple):
    """What one gateway has shown of itself."""

    told: list[Told]
    version: str = ""
    position: int = 0


class _Step(Exception):
    """A step that failed, and with it all that come after."""

    def __init__(self, told: Told) -> None:
        super().__init__(told[2])
        self.told = told


def check_cluster(connection: Connection) -> list[Told]:
    """All of a connection: its gateways side by side, then whom they take us for, and how the cluster is."""
    each = connection.each()
    probed: dict[int, Probed] = {}

    def run(i: int) -> None:
        probed[i] = probe(each[i])

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(each))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [one for i in range(len(each)) for one in probed[i].told]
    answering = [probed[i] for i in range(len(each)) if probed[i].version]
    if not answering:
        return told
    told += _versions(connection.name, answering)
    newest = max(one.position for one in answering)
    late = [each[i].url for i in range(len(each)) if probed[i].version and newest - probed[i].position > BEHIND]
    for url in late:
        remedy = "see its log: `journalctl -u pvcd`; ZooKeeper may be slow or cut off there"
        told.append(("position", "warn", "is behind the other gateways", remedy, where(url)))
    return [*told, *_standing(connection)]


def probe(connection: Connection) -> Probed:
    """One gateway: its name, its address, its certificate, its health and its clock."""
    about = where(connection.url)
    told: list[Told] = []
    try:
        began = time.monotonic()
        with _connected(connection, told, about) as plain:
            sock = _secured(connection, plain, told, about)
            millis = took(round((time.monotonic() - began) * 1e6))
            http = HTTPConnection("localhost" if connection.is_unix else where(connection.url), timeout=TIMEOUT_S)
            http.sock = sock
            asked_s = time.time()
            http.request("GET", f"{urlsplit(connection.url).path.rstrip('/') if not connection.is_unix else ''}/health")
            response = http.getresponse()
            document = json.loads(response.read(1 << 16))
            status, version = str(document["status"]), str(document["version"])
            position = int(document["position"])
            date = response.headers.get("Date", "")
    except _Step as failed:
        return Probed([*told, failed.told])
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        what = f"something answers there, but no gateway of PVC ({error or type(error).__name__})"
        return Probed([*told, ("gateway", "fail", what, "check the port: `pvc connection info` shows it", about)])
    if status == "ok":
        told.append(
            ("gateway", "ok", f"answers ({millis} to connect), PVC {version}, position {position:,}", "", about)
        )
    else:
        reasons = "; ".join(map(str, document.get("reasons", []))) or status
        level = "fail" if response.status >= 500 else "warn"
        told.append(("gateway", level, reasons, "see that node's log: `journalctl -u pvcd`", about))
    if not connection.is_unix:
        told += _clock(date, asked_s, about)
    return Probed(told, version, position)


def where(url: str) -> str:
    """A gateway as one says it: host and port, or the socket's path."""
    return url.removeprefix(UNIX_SCHEME) if url.startswith(UNIX_SCHEME) else urlsplit(url).netloc


def _connected(connection: Connection, told: list[Told], about: str) -> socket.socket:
    if connection.is_unix:
        return _connected_here(connection.url.removeprefix(UNIX_SCHEME), about)
    parts = urlsplit(connection.url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        remedy = f"check the name and your resolver: getent hosts {host}"
        raise _Step(("dns", "fail", f"{host} has no address ({error.strerror})", remedy, about)) from error
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    if addresses != [host]:
        told.append(("dns", "ok", f"{host} is {', '.join(addresses)}", "", about))
    try:
        return socket.create_connection((host, port), timeout=TIMEOUT_S)
    except OSError as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        remedy = "see that pvcd runs there, that gateway.listen is not 127.0.0.1, and that no firewall is between"
        raise _Step(("connect", "fail", f"cannot be reached ({why})", remedy, about)) from error


def _connected_here(path: str, about: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(path)
        return sock
    except OSError as error:
        sock.close()
        if isinstance(error, PermissionError):
            remedy = "become root (sudo), or use a connection with a token"
        else:
            remedy = "see that pvcd runs on this node: systemctl status pvcd"
        raise _Step(("connect", "fail", f"cannot be used ({error.strerror})", remedy, about)) from error


def _secured(connection: Connection, plain: socket.socket, told: list[Told], about: str) -> socket.socket:
    parts = urlsplit(connection.url)
    if connection.is_unix:
        return plain
    if parts.scheme != "https":
        if parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            remedy = "use https: a gateway that serves other machines makes its own certificate"
            told.append(("tls", "warn", "is not encrypted: the token can be read on its way", remedy, about))
        return plain
    from pvc.client.pins import check_pinned, unverified_context
    from pvc.client.tls import tls_context

    try:
        context = unverified_context() if connection.fingerprints else tls_context(connection)
        secured = context.wrap_socket(plain, server_hostname=parts.hostname)
        if connection.fingerprints:
            check_pinned(secured, connection)
    except ClientError as error:
        raise _Step(("tls", "fail", error.message, error.hint, about)) from error
    except ssl.SSLCertVerificationError as error:
        remedy = "name its authority (--ca-file) or its fingerprint: `pvcd --fingerprint` on the node shows it"
        raise _Step(("tls", "fail", f"is not trusted: {error.verify_message}", remedy, about)) from error
    except OSError as error:
        remedy = "that port may serve http, or something else than PVC"
        raise _Step(("tls", "fail", f"no TLS ({error.strerror or error})", remedy, about)) from error
    told.append(_certificate(secured, pinned=bool(connection.fingerprints), about=about))
    return secured


def _certificate(secured: ssl.SSLSocket, *, pinned: bool, about: str) -> Told:
    from cryptography import x509

    how = "known by its fingerprint" if pinned else "vouched for by an authority"
    certificate = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    # The newer name for the same with a time zone came after the oldest version that we support.
    until = certificate.not_valid_after.replace(tzinfo=UTC)
    left_s = (until - datetime.now(UTC)).total_seconds()
    said = f"{secured.version()}, {how}, valid until {until:%Y-%m-%d}"
    remedy = "renew the certificate on that node, and restart pvcd"
    if left_s < EXPIRES_SOON_S:
        return ("tls", "warn", f"{said}: that is soon" if left_s > 0 else f"{said}: expired", remedy, about)
    return ("tls", "ok", said, "", about)


def _clock(date: str, asked_s: float, about: str) -> Iterator[Told]:
    try:
        there_s = parsedate_to_datetime(date).timestamp() + 0.5
    except ValueError:
        return
    off_s = there_s - (asked_s + time.time()) / 2
    if abs(off_s) <= SKEW_WARN_S:
        yield ("clock", "ok", "agrees with this machine's", "", about)
        return
    side = "ahead of" if off_s > 0 else "behind"
    remedy = "see that both keep time: timedatectl"
    level = "fail" if abs(off_s) > SKEW_FAIL_S else "warn"
    yield ("clock", level, f"is {took(round(abs(off_s) * 1e6))} {side} this machine's", remedy, about)


def _versions(name: str, answering: list[Probed]) -> Iterator[Told]:
    there = sorted({one.version for one in answering})
    if there == [__version__]:
        yield ("version", "ok", f"{__version__} here and there", "", name)
        return
    remedy = "bring all to one version; while nodes are being updated, this is in order"
    yield ("version", "warn", f"{__version__} here, {', '.join(there)} there", remedy, name)


def _standing(connection: Connection) -> Iterator[Told]:
    """Whom the cluster takes us for, for how long, and how it is."""
    from pvc.cli.login import is_of_login
    from pvc.client.json_client import JsonClient

    name = connection.name
    with JsonClient(connection, source=SOURCE, tries=1, timeout_s=TIMEOUT_S) as client:
        try:
            me = client.whoami()
        except ClientError as error:
            yield ("token", "fail", error.message, error.hint, name)
            return
        who = f"{me.get('principal', 'somebody')} ({me.get('role', 'no role')})"
        until = str(me.get("expires") or "")
        if until:
            left_s = datetime.fromisoformat(until).timestamp() - time.time()
            said = f"{who}, until {until[:10]}"
            remedy = f"pvc access token rotate {me.get('token', 'ID')}"
            # One of a login never lasts for long, and is renewed by another one.
            soon = left_s < EXPIRES_SOON_S and not is_of_login(connection)
            yield ("token", "warn" if soon else "ok", f"{said}: that is soon" if soon else said, remedy, name)
        else:
            yield (
                "token",
                "ok",
                f"{who}, by {me.get('method')}" + (", without expiry" if me.get("token") else ""),
                "",
                name,
            )
        try:
            info = client.cluster()
        except ClientError as error:
            yield ("cluster", "fail", error.message, error.hint, name)
            return
    if not info["initialised"]:
        yield ("cluster", "warn", "there is no cluster yet", "pvc cluster init NAME", name)
    elif info["health"] == "ok":
        yield ("cluster", "ok", f"{info['nodes_ready']} of {info['nodes']} nodes ready, {info['vms']} VMs", "", name)
    for reason in info["reasons"]:
        level = "fail" if info["health"] == "critical" else "warn"
        yield ("cluster", level, reason, info.get("hints", {}).get(reason, "pvc cluster status"), name)
