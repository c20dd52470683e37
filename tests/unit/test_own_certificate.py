"""The certificate that pvcd makes for its gateway, and what it is not made for."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from pvc.daemon.config import Config, GatewayConfig, NodeConfig
from pvc.daemon.contact import contact_of, fingerprint
from pvc.daemon.own_certificate import FILE, FOLDER, names_of, with_certificate
from pvc.errors import Unavailable


def configured(folder: Path, listen: str, **gateway: str) -> Config:
    node = NodeConfig(name="hv1", data_dir=str(folder), address="192.0.2.1")
    return Config(node=node, gateway=GatewayConfig(listen=listen, **gateway))


def test_one_is_made_where_other_machines_are_served_and_kept(tmp_path: Path) -> None:
    config = with_certificate(configured(tmp_path, "0.0.0.0:7370"))
    path = tmp_path / FOLDER / FILE
    assert config.gateway.tls_cert == config.gateway.tls_key == str(path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    made = path.read_bytes()
    assert with_certificate(configured(tmp_path, "0.0.0.0:7370")) == config and path.read_bytes() == made
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, path)
    assert contact_of(config).certificate == fingerprint(path)


def test_it_names_what_clients_may_call_the_gateway(tmp_path: Path) -> None:
    config = configured(tmp_path, "hv1.example.org:7370")
    with_certificate(config)
    made = x509.load_pem_x509_certificate((tmp_path / FOLDER / FILE).read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"hv1", "hv1.example.org", "localhost"} <= set(names.get_values_for_type(x509.DNSName))
    assert {str(one) for one in names.get_values_for_type(x509.IPAddress)} >= {"192.0.2.1", "127.0.0.1", "::1"}
    assert "0.0.0.0" not in names_of(configured(tmp_path, "0.0.0.0:7370"))
    assert "::" not in names_of(configured(tmp_path, "[::]:7370"))


@pytest.mark.parametrize("listen", ["", "127.0.0.1:7370", "localhost:7370"])
def test_none_is_made_for_this_machine_alone(tmp_path: Path, listen: str) -> None:
    config = configured(tmp_path, listen)
    assert with_certificate(config) == config and not list(tmp_path.iterdir())


def test_ones_own_is_used(tmp_path: Path) -> None:
    config = configured(tmp_path, "0.0.0.0:7370", tls_cert="/c.pem", tls_key="/k.pem")
    assert with_certificate(config) == config and not list(tmp_path.iterdir())


def test_where_it_cannot_be_written_that_is_said(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(Unavailable) as failed:
        with_certificate(configured(tmp_path, "0.0.0.0:7370"))
    assert failed.value.code == "gateway.tls_failed" and "tls_cert" in failed.value.hint
