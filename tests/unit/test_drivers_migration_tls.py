"""When a guest's memory is encrypted on its way, and how libvirt's words for TLS that does not come about are told."""

from __future__ import annotations

import libvirt
import pytest

from pvc.drivers.libvirt_migration import MigrationSettings, told_of


@pytest.mark.parametrize(
    ("uri", "tls", "encrypted"),
    [
        ("qemu+tls://{address}/system", None, True),
        ("qemu+tls://{address}/system", False, False),
        ("qemu+tcp://{address}/system", None, False),
        ("qemu+tcp://{address}/system", True, True),
        ("qemu://{address}/system", None, True),
        ("qemu+ssh://root@{address}/system", None, True),
    ],
)
def test_memory_is_encrypted_unless_nothing_else_is(uri: str, tls: bool | None, encrypted: bool) -> None:
    assert MigrationSettings(uri=uri, tls=tls).encrypted is encrypted


NO_TLS = "hypervisor.migration_tls"
BROKE_OFF = "hypervisor.migration_failed"


@pytest.mark.parametrize(
    ("code", "words", "told"),
    [
        # QEMU's, at either side.
        (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            "Unable to access credentials /etc/pki/qemu/ca-cert.pem: No such file",
            NO_TLS,
        ),
        (
            libvirt.VIR_ERR_OPERATION_FAILED,
            "job 'migration out' failed: The certificate hasn't got a known issuer",
            NO_TLS,
        ),
        (libvirt.VIR_ERR_OPERATION_FAILED, "Certificate does not match the hostname 10.0.0.2", NO_TLS),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "Cannot read from TLS channel: EIO qemu: Not a migration stream", NO_TLS),
        # libvirt's. The code of the first is one of those for VMs that cannot be moved live.
        (libvirt.VIR_ERR_OPERATION_INVALID, "host migration TLS directory not configured", NO_TLS),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Cannot read CA certificate '/etc/pki/CA/cacert.pem'", NO_TLS),
        (libvirt.VIR_ERR_AUTH_FAILED, "authentication failed: Failed to verify peer's certificate", NO_TLS),
        # What is cut off half-way has had its TLS.
        (
            libvirt.VIR_ERR_OPERATION_FAILED,
            "job 'migration out' failed: Unable to write to TLS channel: EPIPE",
            BROKE_OFF,
        ),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "Child quit during startup handshake: Input/output error", BROKE_OFF),
    ],
)
def test_a_missing_trust_is_told_apart_from_a_broken_connection(code: int, words: str, told: str) -> None:
    error = told_of("web01", "10.0.0.2", code, words)
    assert error.code == told
    assert words in error.message
    if told == NO_TLS:
        assert "/etc/pki/qemu" in error.hint
