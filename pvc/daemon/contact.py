"""How this node and the others reach each other: where its gateway is, its certificate, and the secret they share."""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
from pathlib import Path

from pvc.clock import Clock, Rng
from pvc.daemon.config import Config, is_wildcard, serves_others, split_listen
from pvc.errors import PvcError, Unavailable
from pvc.peers.secret import PeerSecret, read_secret
from pvc.presence.hello import Contact

logger = logging.getLogger(__name__)

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def contact_of(config: Config) -> Contact:
    """Where this gateway is for other nodes; empty where it serves this machine alone, or without TLS.

    Raises Unavailable (`gateway.tls_failed`) when the certificate cannot be read.
    """
    if not serves_others(config.gateway.listen) or not config.gateway.tls_cert:
        return Contact()
    host, port = split_listen(config.gateway.listen)
    if is_wildcard(host):
        host = config.node.address or socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return Contact(gateway=f"https://{shown}:{port}", certificate=fingerprint(Path(config.gateway.tls_cert)))


def make_peer_secret(config: Config, clock: Clock, rng: Rng) -> PeerSecret | None:
    """The secret of this cluster's nodes, not yet read; None where there is but one."""
    if config.log.kind != "zookeeper":
        return None
    from pvc.daemon.zookeeper_access import zookeeper_access, zookeeper_hosts

    access = zookeeper_access(config.log)
    hosts, cluster = zookeeper_hosts(config), config.log.cluster
    return PeerSecret(
        lambda: read_secret(hosts, cluster, rng=rng, credentials=access.credentials, tls=access.tls), clock
    )


async def load_peer_secret(secret: PeerSecret) -> None:
    """Read it. A node runs without it too, and is a peer to nobody until it has been read."""
    try:
        await secret.load()
    except PvcError as error:
        logger.warning("peers: the secret cannot be read code=%s error=%s", error.code, error.message)


def fingerprint(path: Path) -> str:
    """The SHA-256, in hex, of the first certificate in the file: the server's own; its authorities follow."""
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
