"""Gateways that are known by their certificate's hash, because no authority vouches for them.

The hash is compared when the TLS handshake is done and before a byte is sent, so that a token never goes to somebody in
between.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import ssl
from urllib.parse import urlsplit

from pvc.client.connections import Connection
from pvc.client.errors import ConfigError

_HEX = re.compile(r"[0-9a-f]{64}")


def check_fingerprint(text: str) -> str:
    """64 hex digits of a SHA-256, written with colons or without. Raises ConfigError."""
    plain = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if not _HEX.fullmatch(plain):
        raise ConfigError(
            f"{text[:80]!r} is not the fingerprint of a certificate",
            code="client.fingerprint_malformed",
            hint="it is a SHA-256 of 64 hex digits: `pvcd --fingerprint` on the node shows it",
        )
    return plain


def unverified_context() -> ssl.SSLContext:
    """TLS to whoever it is: to be followed by `check_pinned`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_pinned(sock: ssl.SSLSocket | ssl.SSLObject, connection: Connection) -> None:
    """Raise ConfigError unless the other side has one of the certificates that the connection knows."""
    shown = fingerprint_of(sock)
    if not any(hmac.compare_digest(shown, pinned) for pinned in connection.fingerprints):
        raise ConfigError(
            f"whoever answers at {connection.url} has another certificate than the connection "
            f"{connection.name!r} knows: {shown}",
            code="client.wrong_certificate",
            hint="if it was renewed, compare with `pvcd --fingerprint` on the node and add the connection again; "
            "else somebody is in between",
        )


def fingerprint_of(sock: ssl.SSLSocket | ssl.SSLObject) -> str:
    """The SHA-256 of the other side's certificate, in hex."""
    return hashlib.sha256(sock.getpeercert(binary_form=True) or b"").hexdigest()


def connect_pinned(connection: Connection, timeout_s: float) -> ssl.SSLSocket:
    """A TLS connection to a gateway that is the right one. Raises OSError, ConfigError."""
    parts = urlsplit(connection.url)
    plain = socket.create_connection((parts.hostname or "", parts.port or 443), timeout=timeout_s)
    try:
        secured = unverified_context().wrap_socket(plain, server_hostname=parts.hostname)
    except BaseException:
        plain.close()
        raise
    try:
        check_pinned(secured, connection)
    except ConfigError:
        secured.close()
        raise
    return secured


def unvouched_fingerprint(url: str, timeout_s: float) -> str:
    """The fingerprint of a gateway that no authority of this machine vouches for; empty where one does.

    Raises OSError where nobody answers.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 443)
    try:
        with (
            socket.create_connection(address, timeout=timeout_s) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return ""
    except ssl.SSLCertVerificationError:
        pass
    with (
        socket.create_connection(address, timeout=timeout_s) as plain,
        unverified_context().wrap_socket(plain, server_hostname=parts.hostname) as secured,
    ):
        return fingerprint_of(secured)
