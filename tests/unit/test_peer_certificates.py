"""The certificates by which nodes know each other: one authority for a secret, another for another."""

from __future__ import annotations

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pvc.clock import SystemClock
from pvc.peers import certificates
from pvc.peers.certificates import VALID_DAYS, NodeCertificate, authority_of, certificate_for
from pvc.peers.secret import PeerSecret

ONE, OTHER = b"1" * 32, b"2" * 32
NOW = datetime.datetime(2026, 11, 21)


class Hands(SystemClock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at_s = 1_800_000_000

    def wall_us(self) -> int:
        return self.at_s * 1_000_000


def test_all_nodes_come_to_the_same_authority_and_another_secret_to_another() -> None:
    assert authority_of(ONE).pem == authority_of(ONE).pem
    assert authority_of(ONE).pem != authority_of(OTHER).pem
    assert authority_of(ONE).certificate.subject != authority_of(OTHER).certificate.subject
    assert ONE.hex() not in authority_of(ONE).pem


def test_a_certificate_says_whose_it_is_for_some_weeks_and_is_the_authoritys() -> None:
    made = x509.load_pem_x509_certificate(certificate_for("hv1", authority_of(ONE), NOW))
    assert made.subject.rfc4514_string() == "CN=hv1"
    assert made.not_valid_after == NOW + datetime.timedelta(days=VALID_DAYS)
    authority_of(ONE).key.public_key().verify(made.signature, made.tbs_certificate_bytes)
    with pytest.raises(InvalidSignature):
        authority_of(OTHER).key.public_key().verify(made.signature, made.tbs_certificate_bytes)


async def test_another_one_is_made_when_half_of_it_is_over_or_the_secret_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def counted(node: str, authority: certificates.Authority, now: datetime.datetime) -> bytes:
        made.append(authority.pem)
        return certificate_for(node, authority, now)

    monkeypatch.setattr(certificates, "certificate_for", counted)
    value, clock = ONE, Hands()

    async def read() -> bytes:
        return value

    secret = PeerSecret(read, clock)
    own = NodeCertificate("hv1", secret, clock)
    own.show_in(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert made == [], "without a secret there is none"
    told: list[bytes] = []
    secret.on_change(lambda: told.append(secret.value))
    for _ in range(2):
        await secret.load()
        own.show_in(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert len(made) == 1 and told == [ONE]
    clock.at_s += VALID_DAYS * 86_400 // 2 + 1
    own.show_in(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    value = OTHER
    await secret.load()
    own.show_in(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert made == [authority_of(ONE).pem, authority_of(ONE).pem, authority_of(OTHER).pem]
    assert told == [ONE, OTHER]
