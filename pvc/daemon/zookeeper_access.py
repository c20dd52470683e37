"""Reads from the configuration how this node proves itself to ZooKeeper, and how the way there is protected."""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from pvc.daemon.config import Config, LogConfig
from pvc.drivers.zookeeper_config import ServerTls
from pvc.errors import InvalidInput
from pvc.zookeeper.types import Credentials, Tls

CLIENT_PORT, SECURE_PORT = 2181, 2281


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What `ZookeeperLog.open` takes besides the address."""

    credentials: Credentials | None
    tls: Tls | None
    archivist: Credentials | None
    """The identity that alone may delete archived records."""


def zookeeper_access(config: LogConfig) -> Access:
    """Credentials and TLS. Raises InvalidInput when a part is missing or the password cannot be read."""
    return Access(
        credentials=_credentials("log.user", config.user, "log.password_file", config.password_file),
        tls=_tls(config),
        archivist=_credentials(
            "log.archivist_user", config.archivist_user, "log.archivist_password_file", config.archivist_password_file
        ),
    )


def zookeeper_hosts(config: Config) -> str:
    """The servers to connect to: as configured, or those of the ensemble."""
    if config.log.hosts:
        return config.log.hosts
    members = config.zookeeper.members
    port = SECURE_PORT if config.log.tls_ca else CLIENT_PORT
    return ",".join(f"{member.partition('=')[2]}:{port}" for member in members) or f"127.0.0.1:{CLIENT_PORT}"


def server_tls(config: LogConfig) -> ServerTls | None:
    """What a server of our own proves itself with: the same certificate as its node. Raises InvalidInput."""
    tls = _tls(config)
    if tls is None:
        return None
    try:
        key = load_pem_private_key(Path(tls.key).read_bytes(), password=None)
        certificate, authority = Path(tls.certificate).read_bytes(), Path(tls.ca).read_bytes()
    except (OSError, ValueError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise _bad(f"log.tls_ca, log.tls_cert or log.tls_key cannot be read: {why}", "give PEM files") from error
    # Java reads keys in PKCS #8 alone.
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ServerTls(identity=plain + certificate, authority=authority)


def _credentials(user_field: str, user: str, file_field: str, file: str) -> Credentials | None:
    if bool(user) != bool(file):
        raise _bad(f"{user_field} and {file_field} go together", "give both, or neither")
    if not user:
        return None
    path = Path(file)
    try:
        password = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise _bad(f"{file_field} {path} cannot be read: {reason}", "mend the path or the file") from error
    if not password:
        raise _bad(f"{file_field} {path} is empty", "write the password into it")
    return Credentials(user=user, password=password)


def _tls(config: LogConfig) -> Tls | None:
    parts = (config.tls_ca, config.tls_cert, config.tls_key)
    if not any(parts):
        return None
    if not all(parts):
        raise _bad("log.tls_ca, log.tls_cert and log.tls_key go together", "give all three, or none")
    return Tls(ca=config.tls_ca, certificate=config.tls_cert, key=config.tls_key)


def _bad(message: str, hint: str) -> InvalidInput:
    return InvalidInput(message, code="config.invalid", hint=hint)
