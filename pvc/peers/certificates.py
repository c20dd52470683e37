"""How a node proves in the TLS handshake that it is one: a certificate by an authority that only the nodes can be.

The authority's key is derived from the secret that the nodes share in ZooKeeper. So there is nothing more to keep, to
copy or to restore, and it goes when the secret goes. Whoever could sign with it could append to the log as well.
Certificates are made in memory, for some weeks, and no node needs another's.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pvc.clock import Clock
from pvc.peers.secret import PeerSecret

AUTHORITY = "PVC nodes"
"""What the authority is called in its certificate; nobody looks at it."""

VALID_DAYS = 30
"""A node makes another one when half of it is over."""

BEHIND_DAYS = 2
"""Clocks of nodes may be behind, and a new machine's is until it is set."""

_USE = b"PVC authority of the nodes 1"
"""So that no other use of the secret can ever come to the same key."""

_BEGIN, _END = datetime.datetime(2020, 1, 1), datetime.datetime(2120, 1, 1)


class Authority(NamedTuple):
    """Who vouches for nodes."""

    key: ed25519.Ed25519PrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        """The certificate, for who is to trust it."""
        return self.certificate.public_bytes(Encoding.PEM).decode()


def authority_of(secret: bytes) -> Authority:
    """The same on all nodes that have this secret, to the last bit."""
    seed = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=_USE).derive(secret)
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    # The name tells authorities of different secrets apart, so that after a change the right one is looked at.
    number = int.from_bytes(_public_hash(seed)[:8], "big") or 1
    name = _name(f"{AUTHORITY} {number:016x}")
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, None)
    )
    return Authority(key, made)


def certificate_for(node: str, authority: Authority, now: datetime.datetime) -> bytes:
    """A new key, and a certificate that says whose it is: both as PEM. Good for asking other nodes, not for serving."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(node))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=BEHIND_DAYS))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(authority.key, None)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + made.public_bytes(Encoding.PEM)


class NodeCertificate:
    """This node's certificate, made when it is first needed and whenever it is half over or the secret is another."""

    def __init__(self, node: str, secret: PeerSecret, clock: Clock) -> None:
        self._node = node
        self._secret = secret
        self._clock = clock
        self._made: tuple[bytes, int, bytes] | None = None

    def show_in(self, context: ssl.SSLContext) -> None:
        """Have it shown to whoever asks for it in this context's handshakes. Without the secret there is none."""
        secret, now_s = self._secret.value, self._clock.wall_us() // 1_000_000
        if not secret:
            return
        half_s = VALID_DAYS * 86_400 // 2
        if self._made is None or self._made[0] != secret or not 0 <= now_s - self._made[1] < half_s:
            now = datetime.datetime.fromtimestamp(now_s, datetime.UTC).replace(tzinfo=None)
            self._made = (secret, now_s, certificate_for(self._node, authority_of(secret), now))
        with _file_of(self._made[2]) as path:
            context.load_cert_chain(path)


def ask_nodes(context: ssl.SSLContext, secret: PeerSecret) -> None:
    """Have a server ask its clients for a node's certificate; who has none is served all the same, as no node.

    An authority that was believed once is so until the process ends; the signature of each question is not.
    """
    context.verify_mode = ssl.CERT_OPTIONAL

    def believe() -> None:
        if secret.value:
            context.load_verify_locations(cadata=authority_of(secret.value).pem)

    secret.on_change(believe)
    believe()


def node_shown(ssl_object: ssl.SSLObject | None) -> str:
    """The node whose certificate was shown in a handshake of a context as above; empty where none was."""
    if ssl_object is None or ssl_object.context.verify_mode is ssl.CERT_NONE:
        return ""
    shown = ssl_object.getpeercert(binary_form=True)
    if not shown:
        return ""
    names = x509.load_der_x509_certificate(shown).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


@contextlib.contextmanager
def _file_of(data: bytes) -> Iterator[str]:
    """A path to these bytes that no other user can read, and that is gone afterwards: TLS here takes files alone."""
    number = os.memfd_create("pvc-node", os.MFD_CLOEXEC)
    try:
        os.write(number, data)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def _public_hash(seed: bytes) -> bytes:
    """Of no use for finding the seed."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(_USE + b" name" + seed)
    return digest.finalize()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
