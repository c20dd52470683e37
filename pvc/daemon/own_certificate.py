"""The gateway's own certificate, made where it is to serve other machines and none is configured.

Nobody vouches for it: clients know it by its SHA-256 (`pvc connection add --fingerprint`), other nodes by what this one
announces. It is made once and kept, for whoever has pinned it would take a new one for somebody in between.
"""

from __future__ import annotations

import datetime
import ipaddress
import logging
import socket
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pvc.daemon.config import Config, is_wildcard, serves_others, split_listen
from pvc.errors import Unavailable
from pvc.files import flush_directory, replace_file

logger = logging.getLogger(__name__)

FOLDER, FILE = "tls", "gateway.pem"
"""In the data directory: key and certificate in one file, so that a crash never leaves one without the other."""

VALID_DAYS = 3_650
"""Ten years: its end would come as a surprise, and what it is known by is its hash."""


def with_certificate(config: Config) -> Config:
    """The configuration with a certificate where one is needed, made if there is none yet. Raises Unavailable."""
    path = certificate_path(config)
    if path is None or config.gateway.tls_cert:
        return config
    try:
        if not path.exists():
            path.parent.mkdir(exist_ok=True, mode=0o700)
            replace_file(path, make_certificate(config.node_name, names_of(config)), mode=0o600)
            flush_directory(path.parent)
            logger.warning("gateway: made a certificate of its own path=%s", path)
    except OSError as error:
        raise Unavailable(
            f"the gateway's certificate {path} cannot be made: {error.strerror or error}",
            code="gateway.tls_failed",
            hint="mend the disk or its permissions, or set gateway.tls_cert and gateway.tls_key",
        ) from error
    gateway = msgspec.structs.replace(config.gateway, tls_cert=str(path), tls_key=str(path))
    return msgspec.structs.replace(config, gateway=gateway)


def certificate_path(config: Config) -> Path | None:
    """Where the certificate is that clients see; None where there is none. One of its own is made when pvcd starts."""
    if config.gateway.tls_cert:
        return Path(config.gateway.tls_cert)
    return config.data_dir / FOLDER / FILE if serves_others(config.gateway.listen) else None


def names_of(config: Config) -> list[str]:
    """What clients may call this gateway, as far as it is known here."""
    host, _ = split_listen(config.gateway.listen)
    given = [config.node_name, socket.gethostname(), host, config.node.address, "localhost", "127.0.0.1", "::1"]
    return [name for name in dict.fromkeys(given) if name and not is_wildcard(name)]


def make_certificate(name: str, names: list[str]) -> bytes:
    """A new key and a certificate signed with it, as PEM."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of clients may be behind.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(one) for one in names]), critical=False)
        .sign(private, hashes.SHA256())
    )
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key + made.public_bytes(Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
