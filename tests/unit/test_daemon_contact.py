"""Where other nodes are told that this one's gateway is."""

from __future__ import annotations

import hashlib
import socket
import ssl
from pathlib import Path

import pytest

from pvc.daemon.config import Config, GatewayConfig, NodeConfig
from pvc.daemon.contact import contact_of
from pvc.errors import Unavailable
from pvc.presence.hello import Contact
from tests.support.certificates import Certificate, a_certificate


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return a_certificate(tmp_path, "hv1")


def configured(certificate: Certificate, listen: str, address: str = "") -> Config:
    gateway = GatewayConfig(listen=listen, tls_cert=str(certificate.cert), tls_key=str(certificate.key))
    return Config(node=NodeConfig(name="hv1", address=address), gateway=gateway)


@pytest.mark.parametrize(
    ("listen", "address", "url"),
    [
        ("10.0.0.1:7370", "", "https://10.0.0.1:7370"),
        ("10.0.0.1:7370", "192.0.2.1", "https://10.0.0.1:7370"),
        ("0.0.0.0:7370", "10.0.0.1", "https://10.0.0.1:7370"),
        ("0.0.0.0:443", "", "https://hv1.example.org:443"),
        ("[::]:7370", "fd00::1", "https://[fd00::1]:7370"),
        ("[fd00::1]:7370", "", "https://[fd00::1]:7370"),
        ("hv1.example.org:7370", "", "https://hv1.example.org:7370"),
    ],
)
def test_it_is_where_it_listens_or_where_the_node_is(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, listen: str, address: str, url: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "hv1.example.org")
    assert contact_of(configured(certificate, listen, address)) == Contact(
        gateway=url, certificate=certificate.fingerprint
    )


@pytest.mark.parametrize("listen", ["", "127.0.0.1:7370", "[::1]:7370", "localhost:7370"])
def test_a_gateway_for_this_machine_alone_is_nowhere(certificate: Certificate, listen: str) -> None:
    assert contact_of(configured(certificate, listen, "10.0.0.1")) == Contact()


def test_without_tls_it_is_nowhere() -> None:
    assert contact_of(Config(gateway=GatewayConfig(listen="127.0.0.1:7370"))) == Contact()


def test_of_a_chain_the_first_certificate_counts(certificate: Certificate, tmp_path: Path) -> None:
    authority = a_certificate(tmp_path, "authority")
    certificate.cert.write_text("hv1\n" + certificate.cert.read_text() + authority.cert.read_text())
    found = contact_of(configured(certificate, "10.0.0.1:7370")).certificate
    assert found == certificate.fingerprint != authority.fingerprint


def test_the_fingerprint_is_that_of_what_a_client_is_shown(certificate: Certificate) -> None:
    der = ssl.PEM_cert_to_DER_cert(certificate.cert.read_text())
    assert contact_of(configured(certificate, "10.0.0.1:7370")).certificate == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\n", "no certificate"])
def test_a_certificate_that_cannot_be_read_is_told(certificate: Certificate, content: str | None) -> None:
    certificate.cert.unlink()
    if content is not None:
        certificate.cert.write_text(content)
    with pytest.raises(Unavailable) as failure:
        contact_of(configured(certificate, "10.0.0.1:7370"))
    assert failure.value.code == "gateway.tls_failed"
    assert str(certificate.cert) in failure.value.message
