"""A private libvirtd with its virtlogd, in a mount namespace of its own: for the tests, the demo and the lab.

Its configuration, state, logs and sockets are bind-mounted from one directory over libvirt's usual places, so the
machine's own libvirt is neither used nor disturbed. A process belongs to the host if its `/etc/libvirt` is that
directory: no pid files have to be trusted, and stopping finds every last QEMU.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pvc.errors import DriverError, PvcError
from pvc.lab.shell import start_to_stay

_BINDS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
    "run": "/run",
}
_TOOLS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "libvirtd": "libvirt-daemon",
    "virtlogd": "libvirt-daemon",
    "qemu-system-x86_64": "qemu-system-x86",
}
_LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""
_LISTEN_CONF = """\
listen_tls = 0
listen_tcp = 1
tcp_port = "{port}"
auth_tcp = "none"
keepalive_interval = 2
keepalive_count = 3
"""
"""Open to everybody who reaches it: for a lab without a way in."""
QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
namespaces = []
cgroup_controllers = []
remember_owner = 0
keepalive_interval = 2
keepalive_count = 3
"""
_MIGRATION_CONF = """\
migration_port_min = {0}
migration_port_max = {1}
"""
_START_TIMEOUT_S = 30.0
"""The first start asks QEMU for its capabilities, which takes seconds on a busy machine."""
_END_TIMEOUT_S = 10.0
_POLL_S = 0.02
_MAX_SOCKET_PATH = 107
"""What fits into a `sockaddr_un` (unix(7)), less the closing zero."""


class LibvirtHost:
    """One host: `start()`, use `uri`, `stop()`. Another instance on the same directory controls the same host.

    `cache` is where libvirt keeps what it learnt of QEMU, which it asks for seconds; several hosts may share one.
    With `listen_tcp`, a port, others may migrate guests to it; hosts that share an address need a `migration_ports`
    (first, last) of their own each.
    """

    def __init__(
        self,
        directory: Path,
        *,
        cache: Path | None = None,
        listen_tcp: int | None = None,
        migration_ports: tuple[int, int] | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.listen_tcp = listen_tcp
        self._migration_ports = migration_ports
        self._cache = (cache or self.directory / "cache").resolve()
        self._socket = self.directory / "run/libvirt/libvirt-sock"

    @property
    def uri(self) -> str:
        """What libvirt clients outside the namespace connect to."""
        return f"qemu+unix:///system?socket={self._socket}"

    @property
    def qemu_log_dir(self) -> Path:
        """Where libvirt keeps what each QEMU process said."""
        return self.directory / "log/qemu"

    def start(self) -> None:
        """Bring the host up; quick when it is up. Raises DriverError naming what is missing."""
        self._check_machine()
        self._write_config()
        if not self._named("pvc-lab-host"):
            self._start_holder()
        if not self._named("virtlogd"):
            self._run_inside("virtlogd", "-d", "-p", "/run/virtlogd.pid")
        if not self._named("libvirtd"):
            listen = ["--listen"] if self.listen_tcp else []
            self._run_inside("libvirtd", "-d", "-p", "/run/libvirtd.pid", *listen)
        self._wait(self._answers, "libvirtd does not answer")

    def stop(self) -> None:
        """End everything of this host, its QEMU processes too. The directory stays, with definitions and logs."""
        deadline = time.monotonic() + _END_TIMEOUT_S
        # The daemons first, so that none of them starts or records anything while the others go.
        while processes := self.processes():
            for pid in processes:
                _kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise DriverError(f"processes {sorted(processes)} do not end", code="lab.stop_timeout")
            time.sleep(_POLL_S)

    def kill_libvirtd(self) -> None:
        """Kill libvirtd the hard way and leave it down; virtlogd and the VMs go on."""
        self._end("libvirtd", signal.SIGKILL)

    def stop_libvirtd(self) -> None:
        """Ask libvirtd to end and leave it down; virtlogd and the VMs go on."""
        self._end("libvirtd", signal.SIGTERM)

    def restart_libvirtd(self) -> None:
        """Stop libvirtd and start it again under running VMs."""
        self.stop_libvirtd()
        self.start()

    def processes(self) -> dict[int, str]:
        """Process id -> program name of everything that runs in this host."""
        try:
            mark = (self.directory / "etc").stat()
        except FileNotFoundError:
            return {}
        found = {}
        for entry in Path("/proc").iterdir():
            # A process may end while it is looked at; the kernel's own threads have no root to look into.
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and os.path.samestat((entry / "root/etc/libvirt").stat(), mark):
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                    if argv[0]:  # else a zombie
                        found[int(entry.name)] = Path(os.fsdecode(argv[0])).name
        return found

    def qemu_pid(self, name: str) -> int:
        """The process id of the named domain's QEMU. Raises DriverError when there is none."""
        try:
            return int((self.directory / f"run/libvirt/qemu/{name}.pid").read_text())
        except (FileNotFoundError, ValueError) as error:
            raise DriverError(f"no QEMU process of {name!r}", code="lab.no_qemu") from error

    def _check_machine(self) -> None:
        if os.geteuid() != 0:
            raise DriverError("a private libvirt needs root", code="lab.not_root", hint="run it with sudo")
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise DriverError(
                    f"there is no {tool} on this machine", code="lab.no_tool", hint=f"apt-get install {package}"
                )
        if len(str(self._socket)) > _MAX_SOCKET_PATH:
            raise DriverError(
                f"{self._socket} is too long for a socket's path ({_MAX_SOCKET_PATH} bytes)",
                code="lab.path_too_long",
                hint="use a directory with a shorter path",
            )

    def _write_config(self) -> None:
        for source, target in self._binds().items():
            source.mkdir(parents=True, exist_ok=True)
            Path(target).mkdir(parents=True, exist_ok=True)
        # libvirt locks a console's terminal in /var/lock, which is a link to here.
        (self.directory / "run/lock").mkdir(exist_ok=True)
        etc = self.directory / "etc"
        if not (etc / "libvirtd.conf").exists():
            # The id stays the host's for good: libvirt refuses to migrate to a host with the same one.
            listen = _LISTEN_CONF.format(port=self.listen_tcp) if self.listen_tcp else ""
            (etc / "libvirtd.conf").write_text(_LIBVIRTD_CONF.format(uuid=uuid.uuid4()) + listen)
        ports = _MIGRATION_CONF.format(*self._migration_ports) if self._migration_ports else ""
        (etc / "qemu.conf").write_text(QEMU_CONF + ports)

    def _binds(self) -> dict[Path, str]:
        """Directory of the host -> where libvirt looks for it."""
        sources = {name: self.directory / name for name in _BINDS} | {"cache": self._cache}
        return {sources[name]: target for name, target in _BINDS.items()}

    def _start_holder(self) -> None:
        """A process that does nothing but keep the namespace, so that every daemon in it can die and return."""
        # `run` hides what /run holds, so it goes last: a directory of the others may lie beneath it.
        script = "".join('mount --bind "$1" "$2" && shift 2 && ' for _ in _BINDS)
        pairs = [str(path) for pair in self._binds().items() for path in pair]
        command = ["unshare", "--mount", "--propagation", "private", "bash", "-c"]
        command += [f"{script}exec -a pvc-lab-host sleep infinity", "bash", *pairs]
        start_to_stay(command, self.directory / "holder.log")
        self._wait(lambda: bool(self._named("pvc-lab-host")), "the namespace was not made, see holder.log")

    def _run_inside(self, *command: str) -> None:
        holder = next(iter(self._named("pvc-lab-host")))
        log = self.directory / f"{command[0]}.log"
        with log.open("ab") as output:
            try:
                code = subprocess.run(  # noqa: S603 - fixed words
                    ["nsenter", "--mount", f"--target={holder}", *command],  # noqa: S607
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=_START_TIMEOUT_S,
                    cwd="/",
                ).returncode
            except subprocess.TimeoutExpired as error:
                raise DriverError(f"{command[0]} did not start, see {log}", code="lab.start_timeout") from error
        if code != 0:
            raise DriverError(f"{command[0]} did not start (exit code {code}), see {log}", code="lab.start_failed")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket))
            except OSError:
                return False
        return True

    def _named(self, program: str) -> list[int]:
        return [pid for pid, name in self.processes().items() if name == program]

    def _end(self, program: str, number: signal.Signals) -> None:
        for pid in self._named(program):
            _kill(pid, number)
        self._wait(lambda: not self._named(program), f"{program} does not end")

    def _wait(self, done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not done():
            if time.monotonic() > deadline:
                raise DriverError(f"{otherwise} (in {self.directory})", code="lab.timeout")
            time.sleep(_POLL_S)


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main(arguments: list[str] | None = None) -> int:
    """Command line: `up` leaves the host running in the background, `down` ends it, `status` lists its processes."""
    parser = argparse.ArgumentParser(prog="python -m pvc.lab.libvirt_host", description="A private libvirt host.")
    parser.add_argument("--dir", type=Path, required=True, help="where the host keeps all it has")
    parser.add_argument("--cache", type=Path, help="where to keep what libvirt learns of QEMU (default: in DIR)")
    parser.add_argument("action", choices=("up", "down", "status"))
    options = parser.parse_args(arguments)
    host = LibvirtHost(options.dir, cache=options.cache)
    try:
        if options.action == "up":
            host.start()
            print(host.uri)
        elif options.action == "down":
            host.stop()
        else:
            for pid, name in sorted(host.processes().items()):
                print(pid, name)
    except PvcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
