"""A real Ceph of one monitor and one OSD on 127.0.0.1, for tests: its OSD can be frozen, its data bent.

The OSD keeps its objects in memory (memstore) and is not replicated: what is tested is the way to Ceph, not Ceph. There
is no manager, which only statistics and volumes need.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.frozen import freeze

POOL = "pvc-log"
START_TIMEOUT_S = 60
"""It takes some seconds; a loaded machine with two cores may take ten times as long."""

_CONFIG = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{port}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
run dir = {home}
admin socket = {home}/$cluster-$name-$pid.asok
log file = {home}/$name.log
pid file = {home}/$name.pid
mon data = {home}/mon
osd data = {home}/osd
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv4 = true
ms bind ipv6 = false
ms bind msgr1 = false
osd objectstore = memstore
memstore device bytes = 268435456
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
osd crush chooseleaf type = 0
crash dir = {home}

[client.admin]
keyring = {home}/client.keyring

[client.log]
keyring = {home}/client.log.keyring

[osd]
keyring = {home}/osd/keyring
"""


class CephServer:
    """The processes and files of one small Ceph, under `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.conf = home / "ceph.conf"
        self.keyring = home / "client.keyring"
        self.log_keyring = home / "client.log.keyring"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        home.mkdir(parents=True)

    def start(self) -> None:
        """Make and start everything, and a pool."""
        home, fsid, port = self.home, str(uuid.uuid4()), _free_port()
        self.conf.write_text(_CONFIG.format(fsid=fsid, home=home, port=port))
        mon_keyring, monmap = home / "mon.keyring", home / "monmap"
        self._tool(
            "ceph-authtool", "--create-keyring", mon_keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"
        )
        admin_caps = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
        self._tool("ceph-authtool", "--create-keyring", self.keyring, "--gen-key", "-n", "client.admin", *admin_caps)
        self._tool("ceph-authtool", mon_keyring, "--import-keyring", self.keyring)
        self._tool("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{port}]", monmap)
        self._tool("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", mon_keyring, *self._options)
        self._run("mon", "ceph-mon", "-f", "-i", "a", *self._options)

        osd_uuid = str(uuid.uuid4())
        self.ceph("osd", "new", osd_uuid)
        (home / "osd").mkdir()
        osd_key = self.ceph("auth", "get-or-create", "osd.0", "mon", "allow profile osd", "osd", "allow *")
        (home / "osd" / "keyring").write_text(osd_key)
        self._tool("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd_uuid, *self._options)
        self._run("osd", "ceph-osd", "-f", "-i", "0", *self._options)
        self.ceph("osd", "pool", "create", POOL, "4")
        self.ceph("osd", "pool", "application", "enable", POOL, "pvc")
        limited = self.ceph("auth", "get-or-create", "client.log", "mon", "allow r", "osd", f"allow rwx pool={POOL}")
        self.log_keyring.write_text(limited)
        self._wait_until_active()

    def freeze_osd(self) -> None:
        """Let the OSD neither work nor hang up."""
        freeze(self._processes["osd"].pid)

    def thaw_osd(self) -> None:
        """Let it go on."""
        self._processes["osd"].send_signal(signal.SIGCONT)

    def freeze_mon(self) -> None:
        """Let nobody learn where anything is."""
        freeze(self._processes["mon"].pid)

    def thaw_mon(self) -> None:
        """Let it go on."""
        self._processes["mon"].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(timeout=30)

    def ceph(self, *words: str) -> str:
        """What Ceph's own command says."""
        return self._tool("ceph", *self._options, "--connect-timeout", str(START_TIMEOUT_S), *words)

    def rados(self, *words: str) -> str:
        """What Ceph's own command for objects says."""
        return self._tool("rados", *self._options, "-p", POOL, *words)

    @property
    def _options(self) -> tuple[str, ...]:
        return ("-c", str(self.conf))

    def _tool(self, *command: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{command[0]} {command[-4:]}: {done.stderr[-1500:]}"
        return done.stdout

    def _run(self, name: str, *command: str) -> None:
        with (self.home / f"{name}.out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                command, cwd=self.home, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    def _wait_until_active(self) -> None:
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            assert self._processes["osd"].poll() is None, self._last_words("osd")
            with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
                subprocess.run(
                    ["rados", *self._options, "-p", POOL, "put", "probe", "/dev/null"], timeout=5, check=True,
                    capture_output=True,
                )  # fmt: skip
                return
            time.sleep(0.2)
        raise AssertionError(f"Ceph does not serve after {START_TIMEOUT_S} s: {self._last_words('osd')}")

    def _last_words(self, name: str) -> str:
        return (self.home / f"{name}.out").read_text(errors="replace")[-2000:]


def require_ceph() -> None:
    """Skip without Ceph, or fail where PVC_TEST_REQUIRE says that it must be there."""
    missing = [name for name in ("ceph-mon", "ceph-osd", "ceph", "rados") if not shutil.which(name)]
    try:
        import rados  # noqa: F401
    except ImportError:
        missing.append("python3-rados")
    if not missing:
        return
    line = f"a real Ceph needs {' and '.join(missing)}: apt-get install ceph-mon ceph-osd ceph-common python3-rados"
    if "ceph" in os.environ.get("PVC_TEST_REQUIRE", ""):
        pytest.fail(line, pytrace=False)
    pytest.skip(line)


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephServer]:
    """One Ceph for the session; whoever freezes it thaws it."""
    require_ceph()
    server = CephServer(tmp_path_factory.mktemp("ceph") / "c")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
