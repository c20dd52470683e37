"""One host of a lab: boot it, cut its power, freeze it, run commands in it, speak to its init.

Its directory below the lab's holds all it has; inside, it appears as /etc/pvc, /var/lib/pvc, /run and so on.
Whether it is on is read from the kernel each time, so that a lab can be handled by many processes, the BMCs among them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from pvc.errors import DriverError, Unavailable
from pvc.lab import managed, network, processes
from pvc.lab.hardware import HostWatchdog
from pvc.lab.host_files import BINDS
from pvc.lab.init import Reply, UnitStatus
from pvc.lab.plan import HostPlan, LabPlan
from pvc.lab.shell import clean_environment, start_to_stay

Power = Literal["on", "off", "frozen"]

QEMU = "qemu-system-x86_64"
BOOT_TIMEOUT_S = 30.0
"""Until init answers; a tenth of it on an idle machine."""
DAEMON_TIMEOUT_S = 30.0
"""Until a daemon has ended, or has been started."""
SHUTDOWN_TIMEOUT_S = 25.0
"""Init gives its daemons 16 s; then the power is cut."""
_ASK_TIMEOUT_S = 5.0
_POLL_S = 0.03
_BOOT_SCRIPT = """\
set -e
umount --recursive /run/netns 2>/dev/null || true # else this host would keep the others' network namespaces alive
mount -t sysfs sysfs /sys # the machine's own shows the machine's network
mount --bind "$1" /proc/sys/kernel/random/boot_id && shift
while [ "$1" != -- ]; do mount --bind "$1" "$2" && shift 2; done
shift
exec "$@"
"""


class LabHost:
    """A host of the lab in `directory`. Any number of these, in any process, control the same host."""

    def __init__(self, directory: Path, plan: LabPlan, host: HostPlan) -> None:
        self.plan = host
        self.home = directory / host.name
        self._directory = directory
        self._lab = plan
        self.watchdog = HostWatchdog(directory, host.name)
        self._zookeeper = managed.ManagedZookeeper(self.home / "pvc-lib")

    @property
    def name(self) -> str:
        """Its name."""
        return self.plan.name

    @property
    def init(self) -> int | None:
        """The process id of its init; None while it is off."""
        return processes.find_inits(self._directory).get(self.name)

    @property
    def power(self) -> Power:
        """Whether it is on."""
        init = self.init
        if init is None:
            return "off"
        return "frozen" if processes.is_frozen(init) else "on"

    @property
    def socket(self) -> Path:
        """pvcd's socket, as it is seen from outside."""
        return self.home / "run/pvc/pvc.sock"

    @property
    def libvirt_uri(self) -> str:
        """libvirtd's address, from outside."""
        return f"qemu+unix:///system?socket={self.home / 'run/libvirt/libvirt-sock'}"

    def processes(self) -> dict[int, str]:
        """Process id (as the machine counts) -> program of everything that runs in this host."""
        init = self.init
        found = {pid: processes.program_of(pid) for pid in processes.members(init)} if init else {}
        return {pid: program for pid, program in found.items() if program}

    def boot(self) -> None:
        """Switch it on; nothing if it is on. Returns when its init answers; its daemons take longer."""
        with self._switching():
            self._boot()

    def cut_power(self) -> None:
        """Everything in it dies at once and nobody is told; nothing if it is off."""
        with self._switching():
            self._cut_power()

    def reset(self) -> None:
        """Its reset button: off and on, and nobody switches in between."""
        with self._switching():
            self._cut_power()
            self._boot()

    def shut_down(self) -> None:
        """End its daemons and guests in good order, then switch it off."""
        init = self.init
        if init is not None and not processes.is_frozen(init):
            processes.send(init, signal.SIGTERM)
            with contextlib.suppress(Unavailable):
                self._wait(lambda: self.init is None, "", SHUTDOWN_TIMEOUT_S)
        self.cut_power()

    def freeze(self) -> None:
        """Stop all its processes where they stand."""
        processes.freeze(self._on())

    def thaw(self) -> None:
        """Let them go on."""
        init = self.init
        if init is None:
            raise self._off()
        processes.thaw(init)
        # `nsenter`, through which commands came in, stops itself along with its child, and waits to be woken.
        for pid in processes.strangers(self._netns_inodes()):
            processes.send(pid, signal.SIGCONT)

    def command(self, argv: Sequence[str]) -> list[str]:
        """A command line that runs `argv` in the host, for whoever runs it himself."""
        return ["nsenter", f"--target={self._on()}", "--mount", "--net", "--uts", "--pid", *argv]

    def environment(self) -> dict[str, str]:
        """What commands in the host find in their environment."""
        bin_dir = Path(sys.executable).parent
        base = clean_environment()
        return {**base, "PATH": f"{bin_dir}:{base['PATH']}", "PVC_CONFIG_DIR": "/etc/pvc/client"}

    def exec(self, *argv: str, timeout_s: float = 60.0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the host and return what came of it. Raises DriverError when it takes too long."""
        try:
            return subprocess.run(  # noqa: S603 - whoever may use the lab is root anyway
                self.command(argv),
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                env=self.environment(),
                cwd="/",
            )
        except subprocess.TimeoutExpired as error:
            raise DriverError(
                f"{' '.join(argv)} on {self.name} took longer than {timeout_s:g} s", code="lab.command_timeout"
            ) from error

    def log_of(self, daemon: str) -> Path:
        """Where it says what it does: a daemon, `init`, `bmc` or `watchdog`; the file may not be there."""
        own = {managed.NAME: self._zookeeper.log, "bmc": self.home / "bmc/bmc.log", "watchdog": self.watchdog.log}
        return own.get(daemon, self.home / f"journal/{daemon}.log")

    def units(self) -> list[UnitStatus]:
        """How its daemons fare. Raises Unavailable when the host is off, frozen or still booting."""
        units = self._ask("status").units
        return [self._zookeeper.status(self._on()), *units] if self.plan.coordinator else units

    def unit(self, name: str) -> UnitStatus:
        """How one daemon fares. Raises DriverError naming those that there are."""
        units = self.units()
        for unit in units:
            if unit.name == name:
                return unit
        names = ", ".join(unit.name for unit in units)
        raise DriverError(f"{self.name} runs no {name}", code="lab.no_daemon", hint=f"it runs {names}")

    def kill_daemon(self, name: str) -> None:
        """Kill it the hard way; init starts it again a second later, if it shall run, pvcd ZooKeeper after some."""
        before = self.unit(name)
        if before.pid:
            if name == managed.NAME:
                self._zookeeper.kill(self._on())
            else:
                self._ask(f"kill {name}")
            self._wait(lambda: self.unit(name).pid != before.pid, f"{name} does not die", DAEMON_TIMEOUT_S)

    def stop_daemon(self, name: str) -> None:
        """Ask it to end, and leave it down, also after it has been killed. A reboot starts it, but for ZooKeeper."""
        self.unit(name)
        if name == managed.NAME:
            self._zookeeper.hold()
            self._wait(lambda: self._zookeeper.terminate(self._on()), f"{name} does not end", DAEMON_TIMEOUT_S)
            return
        self._ask(f"stop {name}")
        self._wait(lambda: not self.unit(name).pid, f"{name} does not end", DAEMON_TIMEOUT_S)

    def start_daemon(self, name: str) -> None:
        """Start it, and keep it running."""
        self.unit(name)
        if name == managed.NAME:
            self._zookeeper.release()
        else:
            self._ask(f"start {name}")
        by_whom = " by pvcd" if name == managed.NAME else ""
        self._wait(lambda: self.unit(name).pid, f"{name} is not started{by_whom}", DAEMON_TIMEOUT_S)

    def _boot(self) -> None:
        is_on = self.init is not None
        if not is_on:
            self.watchdog.end()
            network.plug_in(self._lab, self.plan, link_down=self._is_unplugged())
            self._make_ready()
        if self.plan.self_fencing:
            self.watchdog.start()
        if is_on:
            return
        self._spawn()
        self._wait(self._answers, f"{self.name} does not boot, see {self.home / 'journal/init.log'}", BOOT_TIMEOUT_S)

    def _cut_power(self) -> None:
        self.watchdog.end()
        # First the cable: the kernel would close the dead's connections in good order, and a power cut does not.
        network.silence(self.plan)
        # One more look for what entered from outside and is not of its PID namespace, but of its network.
        processes.kill_all(lambda: [pid for pid in (self.init,) if pid])
        processes.kill_all(lambda: processes.strangers(self._netns_inodes()))
        network.unplug(self.plan)

    def _on(self) -> int:
        init = self.init
        if init is None:
            raise self._off()
        if processes.is_frozen(init):
            raise Unavailable(
                f"{self.name} is frozen", code="lab.host_frozen", hint=f"`pvc lab thaw {self.name}` lets it go on"
            )
        return init

    def _off(self) -> Unavailable:
        return Unavailable(
            f"{self.name} is off", code="lab.host_off", hint=f"`pvc lab power {self.name} on` switches it on"
        )

    def _ask(self, line: str) -> Reply:
        self._on()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ASK_TIMEOUT_S)
            try:
                connection.connect(str(self.home / "init.sock"))
                connection.sendall(line.encode() + b"\n")
                said = b""
                while part := connection.recv(65_536):
                    said += part
            except OSError as error:
                raise Unavailable(f"{self.name}'s init does not answer: {error}", code="lab.no_answer") from error
        reply = msgspec.json.decode(said, type=Reply) if said else Reply(error="it hung up")
        if reply.error:
            raise DriverError(f"{self.name}: {reply.error}", code="lab.refused")
        return reply

    def _answers(self) -> bool:
        try:
            return bool(self.units())
        except Unavailable:
            return False

    def _make_ready(self) -> None:
        """What a boot finds new: an empty /run, another boot id."""
        run = self.home / "run"
        shutil.rmtree(run, ignore_errors=True)
        # libvirt locks a console's terminal in /var/lock, which is a link to here.
        (run / "lock").mkdir(parents=True)
        (self.home / "boot_id").write_text(f"{uuid.uuid4()}\n")
        for target in BINDS.values():
            Path(target).mkdir(parents=True, exist_ok=True)

    def _spawn(self) -> None:
        binds = {str(self.home / name): target for name, target in BINDS.items()}
        binds = {str(self._directory / "hosts"): "/etc/hosts", **binds}
        inner = [sys.executable, "-P", "-m", processes.INIT_MODULE, str(self._directory), self.name]
        command = ["nsenter", f"--net={network.NETNS_DIR / self.plan.netns}"]
        command += ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--propagation=private"]
        command += ["bash", "-c", _BOOT_SCRIPT, "bash", str(self.home / "boot_id")]
        command += [word for pair in binds.items() for word in pair] + ["--", *inner]
        start_to_stay(command, self.home / "journal/init.log", env=clean_environment())

    def _is_unplugged(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            partition = json.loads((self._directory / "partition.json").read_text())
            return bool(partition["link_down"]) and self.name in partition["groups"][0]
        return False

    def _netns_inodes(self) -> list[int]:
        with contextlib.suppress(OSError):
            return [(network.NETNS_DIR / self.plan.netns).stat().st_ino]
        return []

    @contextlib.contextmanager
    def _switching(self) -> Iterator[None]:
        """One hand at the power switch at a time: a person's, a test's or the BMC's."""
        with (self.home / "power.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _wait(self, done: Callable[[], object], otherwise: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise Unavailable(otherwise, code="lab.timeout")
            time.sleep(_POLL_S)
