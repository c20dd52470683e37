"""Tells how other nodes reach this node's gateway: from where it listens, where this node is, and its certificate."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import ssl
from pathlib import Path

from pvc.daemon.config import Config, split_listen
from pvc.errors import Unavailable
from pvc.presence.hello import Contact

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def contact_of(config: Config) -> Contact:
    """Where this gateway is for other nodes; empty where it serves this machine alone, or without TLS.

    Raises Unavailable (`gateway.tls_failed`) when the certificate cannot be read.
    """
    if not config.gateway.listen or not config.gateway.tls_cert:
        return Contact()
    host, port = split_listen(config.gateway.listen)
    if _is_loopback(host):
        return Contact()
    if _is_wildcard(host):
        host = config.node.address or socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return Contact(gateway=f"https://{shown}:{port}", certificate=_fingerprint(Path(config.gateway.tls_cert)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _fingerprint(path: Path) -> str:
    """Of the first certificate in the file: the server's own; its authorities follow."""
    try:
        text = path.read_text()
        first = text[text.index(_BEGIN) : text.index(_END) + len(_END)]
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"gateway.tls_cert {path} cannot be read: {error}",
            code="gateway.tls_failed",
            hint="give a certificate and its key, both PEM files that pvcd may read",
        ) from error
