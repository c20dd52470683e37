"""`pvcd --examine`: what is found on a node, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pvc.daemon import examine as examined
from pvc.daemon.examine import Finding, examine
from pvc.daemon.main import main


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A configuration of a node on which nothing real runs, but whose pvcd serves."""
    (tmp_path / "data").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "pvc.sock"))
        listener.listen(4)
        yield configured(tmp_path)


def configured(directory: Path, *more: str, listen: str = "127.0.0.1:7370") -> Path:
    path = directory / "pvc.toml"
    lines = [
        *("[node]", 'name = "hv1"', f'data_dir = "{directory}/data"', *[line for line in more if "watchdog" in line]),
        *("[hypervisor]", 'kind = "simulated"'),
        *("[gateway]", f'socket = "{directory}/pvc.sock"', f'listen = "{listen}"'),
        *[line for line in more if "watchdog" not in line],
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def found(path: Path, check: str) -> list[Finding]:
    return [finding for finding in asyncio.run(examine(path)) if finding.check == check]


def test_a_node_that_is_well_has_nothing_that_fails(here: Path) -> None:
    findings = asyncio.run(examine(here))
    assert {"config", "disk", "pvcd", "libvirt"} <= {finding.check for finding in findings}
    assert [finding for finding in findings if finding.status == "fail"] == []
    assert all(finding.remedy for finding in findings if finding.status != "ok")


def test_a_wrong_configuration_is_all_that_is_told(tmp_path: Path) -> None:
    (finding,) = asyncio.run(examine(tmp_path / "none.toml"))
    assert (finding.check, finding.status) == ("config", "fail")
    assert finding.remedy == "give the right path with --config"


def test_a_daemon_that_does_not_serve_fails(here: Path) -> None:
    (here.parent / "pvc.sock").unlink()
    (finding,) = found(here, "pvcd")
    assert finding.status == "fail" and "systemctl status pvcd" in finding.remedy


def test_a_full_disk_fails_and_one_that_is_nearly_full_warns(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"total": 100 << 30, "used": 0, "free": 0})
    for free, status in ((50, "ok"), (10, "warn"), (3, "fail")):
        usage.free = free << 30
        monkeypatch.setattr(examined.shutil, "disk_usage", lambda place: usage)
        assert [finding.status for finding in found(here, "disk")] == [status], free


def test_a_directory_that_everybody_may_write_to_fails(here: Path) -> None:
    (here.parent / "data").chmod(0o777)
    assert any(finding.status == "fail" and "chmod 700" in finding.remedy for finding in found(here, "disk"))


def test_secrets_that_others_may_read_fail(here: Path) -> None:
    password = here.parent / "password"
    password.write_text("secret")
    password.chmod(0o644)
    path = configured(here.parent, "[log]", 'user = "pvc"', f'password_file = "{password}"')
    (finding,) = found(path, "secrets")
    assert finding.status == "fail" and finding.remedy == f"chmod 600 {password}, and renew it"
    password.chmod(0o600)
    (finding,) = found(path, "secrets")
    assert finding.status == "ok"
    for section in ("oidc", "tracing"):
        field = "client_secret_file" if section == "oidc" else "token_file"
        other = configured(here.parent, f"[{section}]", f'{field} = "{password}"')
        password.chmod(0o644)
        (finding,) = found(other, "secrets")
        assert finding.status == "fail" and str(password) in finding.message, section
        password.chmod(0o600)
    path.chmod(0o666)
    assert found(path, "secrets")[0].remedy == f"chmod go-w {path}"


def test_a_watchdog_that_is_not_there_fails(here: Path) -> None:
    (finding,) = found(configured(here.parent, 'watchdog = "/dev/no-such-watchdog"'), "watchdog")
    assert finding.status == "fail"
    (finding,) = found(configured(here.parent, 'watchdog = "/dev/null"'), "watchdog")
    assert finding.status == "ok"


def test_a_certificate_that_is_not_made_yet_or_is_broken_is_told(here: Path) -> None:
    path = configured(here.parent, listen="0.0.0.0:7370")
    (finding,) = found(path, "certificate")
    assert finding.status == "warn" and "pvcd makes one when it starts" in finding.remedy
    (here.parent / "data/tls").mkdir()
    pem = here.parent / "data/tls/gateway.pem"
    pem.write_text("nonsense")
    (finding,) = found(path, "certificate")
    assert finding.status == "fail"
    from pvc.daemon.own_certificate import make_certificate

    pem.write_bytes(make_certificate("hv1", ["localhost"]))
    pem.chmod(0o600)
    (finding,) = found(path, "certificate")
    assert finding.status == "ok" and "valid until" in finding.message


class Ensemble:
    """ZooKeeper's answer to `srvr` on some ports."""

    def __init__(self, *modes: str) -> None:
        self._modes = modes
        self.ports: list[int] = []

    async def __aenter__(self) -> Ensemble:
        self._servers = []
        for mode in self._modes:
            server = await asyncio.start_server(self._answering(mode), "127.0.0.1", 0)
            self._servers.append(server)
            self.ports.append(server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    def _answering(self, mode: str):  # type: ignore[no-untyped-def]
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(4)
            told = "Zookeeper version: 3.8.0-x\nLatency min/avg/max: 0/0.1/1\nConnections: 1\nZxid: 0x1\n"
            writer.write(f"{told}Mode: {mode}\n".encode())
            writer.close()

        return answer


@pytest.mark.parametrize(
    ("modes", "silent", "status"),
    [
        (("leader", "follower", "follower"), 0, "ok"),
        (("leader", "follower"), 1, "warn"),
        (("follower",), 2, "fail"),
        (("standalone",), 0, "ok"),
    ],
)
async def test_zookeeper_fails_where_most_of_it_is_silent(
    tmp_path: Path, modes: tuple[str, ...], silent: int, status: str
) -> None:
    async with Ensemble(*modes) as ensemble:
        dead = []
        for _ in range(silent):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                dead.append(probe.getsockname()[1])
        hosts = ",".join(f"127.0.0.1:{port}" for port in [*ensemble.ports, *dead])
        path = configured(tmp_path, "[log]", 'kind = "zookeeper"', f'hosts = "{hosts}"')
        (finding,) = [one for one in await examine(path) if one.check == "zookeeper"]
    assert finding.status == status, finding
    assert finding.message.count("silent (Connection refused)") == silent


def test_a_libvirt_that_does_not_answer_fails(here: Path) -> None:
    text = here.read_text().replace('kind = "simulated"', 'uri = "qemu+unix:///system?socket=/no/such/socket"')
    here.write_text(text.replace("[hypervisor]", '[hypervisor]\naccelerator = "tcg"'))
    (finding,) = found(here, "libvirt")
    assert finding.status == "fail" and "libvirtd" in finding.remedy


def test_it_is_json_for_who_asks(here: Path) -> None:
    ran = CliRunner().invoke(main, ["--config", str(here), "--examine"])
    assert ran.exit_code == 0
    told = json.loads(ran.output)
    assert told[0] == {"check": "config", "status": "ok", "message": f"{here} is valid", "remedy": ""}


def test_an_address_where_no_other_node_comes_warns(tmp_path: Path) -> None:
    path = configured(tmp_path, "[log]", 'kind = "zookeeper"', 'hosts = "127.0.0.1:1"')
    path.write_text(path.read_text().replace('name = "hv1"', 'name = "hv1"\naddress = "127.0.0.1"'))
    (finding,) = found(path, "address")
    assert finding.status == "warn"
    assert os.path.exists(path)
