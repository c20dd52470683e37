"""A guest's memory goes encrypted from node to node; without trust between them it does not go at all, and runs on."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import pytest

from pvc.drivers.hypervisor import DomainState, OffReason
from pvc.errors import DriverError
from pvc.lab.guest import GuestImage
from pvc.lab.libvirt_host import LibvirtHost
from tests.contract.hypervisor_contract import wait_for_text, wait_until
from tests.contract.migration_contract import migrate, running, state_at, under_way, wait_until_gone
from tests.integration.libvirt_fixtures import CACHE, without_libvirt
from tests.integration.test_migration_libvirt import ADDRESS, LibvirtPair, free_port

pytestmark = pytest.mark.libvirt

STREAM_PORTS = ((49460, 49479), (49480, 49499))
PKI = Path("/etc/pki")
"""Where libvirt and QEMU look; each host has a directory of its own there."""
MIN_STREAM_BYTES = 10 * 1024 * 1024
"""Less cannot have been the guest."""

_LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 1
listen_tcp = {tcp}
tcp_port = "{port}"
tls_port = "{port}"
auth_tcp = "none"
ca_file = "{home}/ca.pem"
cert_file = "{home}/node.pem"
key_file = "{home}/node.key"
"""


class Authority:
    """Certificates, made as docs/cluster.md has it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.make_authority("ca")
        self.make_authority("qemu-ca")
        self.make_authority("strangers-ca")
        self.issue("node", by="ca", names=f"DNS:localhost,IP:{ADDRESS}")
        self.issue("memory", by="qemu-ca", names=f"IP:{ADDRESS}")
        self.issue("misnamed", by="qemu-ca", names="DNS:elsewhere")
        self.issue("stranger", by="strangers-ca", names=f"IP:{ADDRESS}")

    def make_authority(self, name: str) -> None:
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-days", "2", "-out", f"{name}.pem")
        self._openssl("req", "-x509", *self._key(name), *usage)

    def issue(self, name: str, *, by: str, names: str) -> None:
        self._openssl("req", *self._key(name), "-addext", f"subjectAltName={names}", "-out", f"{name}.csr")
        signed_by = ("-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial", "-copy_extensions", "copy")
        self._openssl("x509", "-req", "-in", f"{name}.csr", *signed_by, "-days", "2", "-out", f"{name}.pem")

    def install(
        self, pki: Path, *, libvirt: bool = True, qemu: str | None = "memory", qemu_ca: str = "qemu-ca"
    ) -> None:
        """What a node has: libvirt's, if it is to, and QEMU's, where it is not None."""
        for old in pki.iterdir():
            shutil.rmtree(old)
        if libvirt:
            self._put("ca.pem", pki / "CA/cacert.pem")
            self._put("node.pem", pki / "libvirt/clientcert.pem")
            self._put("node.key", pki / "libvirt/private/clientkey.pem")
        if qemu is not None:
            self._put(f"{qemu_ca}.pem", pki / "qemu/ca-cert.pem")
            for end in ("server", "client"):
                self._put(f"{qemu}.pem", pki / f"qemu/{end}-cert.pem")
                self._put(f"{qemu}.key", pki / f"qemu/{end}-key.pem")

    def _key(self, name: str) -> tuple[str, ...]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        return (*curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key")

    def _put(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.home / name, target)

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.home, check=True, capture_output=True)


class Eavesdropper:
    """Everything that is sent to the target's migration ports on the loopback device, while the block lasts."""

    def __init__(self) -> None:
        self.heard: dict[tuple[int, int], bytearray] = {}
        """By the stream's two ports."""
        self._stopped = False
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        so_rcvbufforce = 33
        self._socket.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, 256 * 1024 * 1024)
        self._socket.bind(("lo", 0x0800))
        self._socket.settimeout(0.2)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()
        self._socket.close()

    @property
    def memory(self) -> bytes:
        """The one stream that is large."""
        [stream] = [bytes(heard) for heard in self.heard.values() if len(heard) > MIN_STREAM_BYTES]
        return stream

    def _listen(self) -> None:
        while True:
            try:
                packet, (_, _, direction, *_) = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                if self._stopped:
                    return
                continue
            if direction == socket.PACKET_OUTGOING or packet[9] != socket.IPPROTO_TCP:
                continue  # on this device each comes by twice
            tcp = packet[(packet[0] & 15) * 4 :]
            source, target = struct.unpack_from("!HH", tcp)
            if STREAM_PORTS[1][0] <= target <= STREAM_PORTS[1][1]:
                self.heard.setdefault((source, target), bytearray()).extend(tcp[(tcp[12] >> 4) * 4 :])


class Trust:
    """Two hosts and what certificates they have."""

    def __init__(self, home: Path, *, tcp: bool) -> None:
        self.authority = Authority(home)
        self.pki = (home / "pki-a", home / "pki-b")
        self.hosts = (self._host("a", 0, tcp=tcp), self._host("b", 1, tcp=tcp))
        for pki in self.pki:
            pki.mkdir()
            self.authority.install(pki)

    def start(self) -> None:
        for host, pki in zip(self.hosts, self.pki, strict=True):
            host.start()
            inside = next(pid for pid, name in host.processes().items() if name == "pvc-lab-host")
            bind = ["nsenter", "--mount", f"--target={inside}", "mount", "--bind", str(pki), str(PKI)]
            subprocess.run(bind, check=True)

    def _host(self, name: str, index: int, *, tcp: bool) -> LibvirtHost:
        home = self.authority.home
        port = free_port()
        (home / name / "etc").mkdir(parents=True)
        conf = _LIBVIRTD_CONF.format(uuid=uuid.uuid4(), port=port, home=home, tcp=int(tcp))
        if tcp:
            conf = conf.replace("listen_tls = 1", "listen_tls = 0")
        # A configuration that is there is left alone.
        (home / name / "etc/libvirtd.conf").write_text(conf)
        cache = CACHE / "qemu-cache"
        return LibvirtHost(home / name, cache=cache, listen_tcp=port, migration_ports=STREAM_PORTS[index])


def trusting(*, tcp: bool) -> Iterator[Trust]:
    home = Path(tempfile.mkdtemp(prefix="pvc-lt-", dir="/tmp"))
    made = not PKI.exists()
    PKI.mkdir(exist_ok=True)
    trust = Trust(home, tcp=tcp)
    try:
        try:
            trust.start()
        except DriverError as error:
            without_libvirt(error)
        yield trust
    finally:
        for host in trust.hosts:
            host.stop()
        shutil.rmtree(home)
        if made:
            PKI.rmdir()


@pytest.fixture(scope="module")
def trust() -> Iterator[Trust]:
    """Two libvirtds that speak TLS."""
    yield from trusting(tcp=False)


@pytest.fixture(scope="module")
def open_trust() -> Iterator[Trust]:
    """Two libvirtds that speak plain TCP; certificates are there."""
    yield from trusting(tcp=True)


@pytest.fixture
async def pair(trust: Trust, guest_image: GuestImage, tmp_path: Path) -> AsyncIterator[LibvirtPair]:
    for pki in trust.pki:
        trust.authority.install(pki)
    pair = LibvirtPair(trust.hosts, guest_image, console_dir(tmp_path), transport="tls")
    yield pair
    await pair.clean()


@pytest.fixture(params=[None, True])
async def open_pair(
    request: pytest.FixtureRequest, open_trust: Trust, guest_image: GuestImage, tmp_path: Path
) -> AsyncIterator[LibvirtPair]:
    pair = LibvirtPair(open_trust.hosts, guest_image, console_dir(tmp_path), migration_tls=request.param)
    yield pair
    await pair.clean()


def console_dir(tmp_path: Path) -> Path:
    (tmp_path / "console").mkdir()
    return tmp_path / "console"


async def test_the_guests_memory_goes_through_tls_where_libvirts_commands_do(pair: LibvirtPair) -> None:
    vm = await running(pair, "whisper")
    await wait_for_text(await pair.source.open_console(vm), b"whisper heartbeat 2 ")
    with Eavesdropper() as ear:
        await migrate(pair, vm)
    assert is_tls(ear.memory)
    assert b"pvc.name=whisper" not in ear.memory
    assert await state_at(pair.source, vm) == (DomainState.OFF, OffReason.MIGRATED)
    await pair.target.start(vm)
    await wait_for_text(await pair.target.open_console(vm), b"whisper heartbeat")


async def test_over_plain_tcp_it_is_read_by_whoever_listens_unless_tls_is_asked_for(
    open_pair: LibvirtPair, request: pytest.FixtureRequest
) -> None:
    asked_for = request.node.callspec.params["open_pair"] is True
    vm = await running(open_pair, "shout")
    await wait_for_text(await open_pair.source.open_console(vm), b"shout heartbeat 2 ")
    with Eavesdropper() as ear:
        await migrate(open_pair, vm)
    assert is_tls(ear.memory) is asked_for
    # That it is found in clear shows that the ear is a good one.
    assert (b"pvc.name=shout" in ear.memory) is not asked_for
    assert await state_at(open_pair.target, vm) == (DomainState.PAUSED, None)


@pytest.mark.parametrize(
    ("which", "has", "words"),
    [
        (0, {"qemu": None}, "ca-cert.pem: No such file"),
        (1, {"qemu": None}, "ca-cert.pem: No such file"),
        (1, {"qemu": "misnamed"}, "TLS channel|does not match the hostname"),  # which of its two errors QEMU tells last
        (0, {"qemu": "stranger"}, "known issuer"),
        (1, {"qemu": "stranger", "qemu_ca": "strangers-ca"}, "known issuer"),
        (0, {"libvirt": False}, "/etc/pki/CA/cacert.pem"),
    ],
    ids=["none here", "none there", "of another name", "own is not valid", "of a stranger", "none for libvirt"],
)
async def test_without_a_certificate_that_holds_the_guest_stays_and_we_are_told_why(
    pair: LibvirtPair, trust: Trust, which: int, has: dict[str, object], words: str
) -> None:
    vm = await running(pair, "stay")
    trust.authority.install(trust.pki[which], **has)  # type: ignore[arg-type]
    with Eavesdropper() as ear, pytest.raises(DriverError) as told:
        await migrate(pair, vm)
    # Not the code for a VM that cannot be moved live: such ones may be shut down instead.
    assert told.value.code == "hypervisor.migration_tls"
    assert re.search(words, told.value.message), told.value.message
    assert "/etc/pki/qemu" in told.value.hint
    assert all(b"QEVM" not in heard for heard in ear.heard.values()), "it was sent in clear"
    assert await state_at(pair.source, vm) == (DomainState.RUNNING, None)
    await wait_until_gone(pair.target, vm)
    before = pair.log(vm).count(b"heartbeat")
    await wait_until(lambda: pair.log(vm).count(b"heartbeat") > before, "the guest goes on")
    trust.authority.install(trust.pki[which])
    await migrate(pair, vm)
    assert await state_at(pair.target, vm) == (DomainState.PAUSED, None)


async def test_an_encrypted_migration_that_is_cut_off_is_not_blamed_on_certificates(pair: LibvirtPair) -> None:
    await pair.slow_down()
    vm = await running(pair, "cut")
    async with under_way(pair, vm) as moving:
        pair.kill_qemu(1, "cut")
        with pytest.raises(DriverError) as told:
            await moving
    assert told.value.code == "hypervisor.migration_failed"
    assert await state_at(pair.source, vm) == (DomainState.RUNNING, None)


def is_tls(stream: bytes) -> bool:
    """Whether it begins with a TLS handshake record (RFC 8446, 5.1), and not as QEMU's own format."""
    assert stream[:2] == b"\x16\x03" or stream[:4] == b"QEVM"
    return stream[0] == 0x16
