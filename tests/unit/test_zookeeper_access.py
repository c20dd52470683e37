"""How a node proves itself to ZooKeeper is all there or not there at all, and the password comes from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.daemon.config import LogConfig
from pvc.daemon.zookeeper_access import zookeeper_access
from pvc.errors import InvalidInput


def test_nothing_configured_is_nothing_used() -> None:
    access = zookeeper_access(LogConfig())
    assert access.credentials is None
    assert access.tls is None


def test_the_password_is_read_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    credentials = zookeeper_access(LogConfig(user="hv1", password_file=str(secret))).credentials
    assert credentials is not None
    assert (credentials.user, credentials.password) == ("hv1", "open sesame")


def test_tls_is_handed_on_whole() -> None:
    tls = zookeeper_access(LogConfig(tls_ca="/ca", tls_cert="/cert", tls_key="/key")).tls
    assert tls is not None
    assert (tls.ca, tls.certificate, tls.key) == ("/ca", "/cert", "/key")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (LogConfig(user="hv1"), "log.password_file"),
        (LogConfig(password_file="/somewhere"), "log.user"),
        (LogConfig(user="hv1", password_file="/nonexistent/secret"), "/nonexistent/secret"),
        (LogConfig(user="hv1", password_file="/dev/null"), "empty"),
        (LogConfig(tls_ca="/ca"), "log.tls_cert"),
    ],
)
def test_half_a_configuration_is_refused(config: LogConfig, named: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        zookeeper_access(config)
    assert named in refusal.value.message
    assert refusal.value.code == "config.invalid"
    assert refusal.value.hint
