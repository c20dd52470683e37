"""A real cluster of namespaced hosts on one machine: up, down, and what can be done to it in between.

All it has is in one directory, and in the kernel under names derived from its own. `down` finds both by looking, not by
remembering, so it also clears what a crash has left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from pvc.errors import DriverError, InvalidInput, Unavailable
from pvc.files import replace_file
from pvc.lab import network, processes, traces
from pvc.lab.bmc import Bmc
from pvc.lab.cluster import initialise
from pvc.lab.host import LabHost
from pvc.lab.host_files import etc_hosts, write_host_files
from pvc.lab.network import Partition
from pvc.lab.plan import BMC_PORT, BMC_USER, DEFAULT_NAME, LabPlan, make_plan, parse_groups
from pvc.lab.shell import check_machine, check_root, run

DEFAULT_DIR = Path("/var/lib/pvc-lab")
LIBVIRT_CACHE = Path("/var/cache/pvc/libvirt")
"""What libvirt learnt of QEMU, which it asks for seconds; kept for the next lab, and shared by all hosts."""
SERVING_TIMEOUT_S = 90.0
"""Until every pvcd serves: 10 s on an idle machine with two processors."""
_LOCK_TIMEOUT_S = 120.0
"""How long `up` and `down` wait for one another."""
_AT_ONCE = 4
"""Hosts that are dealt with side by side."""
_MAX_DIR = 70
"""What the directory's path may have, so that the sockets of hosts below it fit into a `sockaddr_un` (unix(7))."""
_POLL_S = 0.1
_PASSWORD_BYTES = 7
_MAX_STARTS = 15
"""Of pvcd, until it is taken for broken: it may end a few times while ZooKeeper is not there yet."""

_POWER = rf"""
is_on() {{
    for pid in $(pgrep -f -- "{processes.INIT_MODULE} $2 $3\$"); do
        case $(grep ^NSpid "/proc/$pid/status") in *[!0-9]1) return 0 ;; esac
    done
    return 1
}}
if [ "$4" = get ]; then
    if is_on "$@"; then echo on; else echo off; fi
elif [ "$4" != off ] || is_on "$@"; then
    exec "$1" -P -m pvc.lab.power "$2" "$3" "$4"
fi
"""
"""What a BMC calls. It learns the power without Python: that takes a second to start on a busy machine, in which
whoever asked asks again, and so on, until nobody is answered in time. A host that is off is left at that: it might be
switched on meanwhile."""

Progress = Callable[[str], None]


class Lab:
    """One lab. `Lab.load()` finds one that was made, `create_lab()` makes one."""

    def __init__(self, directory: Path, plan: LabPlan) -> None:
        self.directory = directory
        self.plan = plan
        self.hosts = [LabHost(directory, plan, host) for host in plan.hosts]

    @classmethod
    def load(cls, directory: Path = DEFAULT_DIR) -> Lab:
        """The lab that was made in this directory. Raises Unavailable when there is none."""
        plan = _stored_plan(directory)
        if plan is None:
            raise Unavailable(f"there is no lab in {directory}", code="lab.none", hint="`pvc lab up` makes one")
        return cls(directory.resolve(), plan)

    def host(self, name: str) -> LabHost:
        """The named host. Raises InvalidInput naming those that there are."""
        return self.hosts[self.plan.host(name).number - 1]

    def bmc(self, host: LabHost) -> Bmc:
        """The host's BMC; it is a machine of its own and runs when the host does not."""
        return Bmc(
            host.home / "bmc",
            address=host.plan.bmc_address,
            port=BMC_PORT,
            user=BMC_USER,
            password_file=self.directory / "fence-password",
            power_command=["sh", "-c", _POWER, traces.POWER_SHELL, sys.executable, str(self.directory), host.name],
        )

    @property
    def hosts_with_bmc(self) -> list[LabHost]:
        """Those that can be fenced from outside."""
        return [host for host in self.hosts if not host.plan.self_fencing]

    @property
    def is_up(self) -> bool:
        """Whether all is there that `up` would make."""
        return (self.directory / "admin-token").exists() and all(
            host.power == "on" and (host.watchdog.running if host.plan.self_fencing else self.bmc(host).running)
            for host in self.hosts
        )

    def up(self, progress: Progress = lambda line: None) -> None:
        """Bring up what is not up: network, BMCs, hosts, cluster."""
        with locked(self.directory):
            network.make_bridge(self.plan)
            _side_by_side(lambda host: self.bmc(host).start(), self.hosts_with_bmc)
            progress(f"{len(self.hosts_with_bmc)} BMCs answer at {self.plan.bmc_network}, for fence_ipmilan")
            _side_by_side(LabHost.boot, self.hosts)
            progress(f"{len(self.hosts)} hosts have booted; their daemons start")
            self._wait_until_serving(progress)
            initialise(self.directory, self.hosts)
            progress("the cluster is initialised and all nodes are ready")

    def partition(
        self,
        words: list[str],
        *,
        one_way: bool = False,
        link_down: bool = False,
        bmc: bool = False,
        bridge: bool = False,
    ) -> Partition:
        """Cut the links between groups of hosts like `hv1,hv2`; hosts that are not named are a group of their own, or
        reach all groups (`bridge`)."""
        groups = parse_groups(self.plan, words, bridge=bridge)
        made = Partition(groups=groups, one_way=one_way, link_down=link_down, bmc=bmc)
        # First the file: a host that boots meanwhile looks there whether its cable is plugged in.
        replace_file(self.directory / "partition.json", msgspec.json.encode(made))
        network.part(self.plan, made)
        return made

    def heal(self) -> None:
        """End every partition."""
        (self.directory / "partition.json").unlink(missing_ok=True)
        network.heal(self.plan)

    @property
    def cut(self) -> Partition | None:
        """The partition that is in force, if any."""
        try:
            return msgspec.json.decode((self.directory / "partition.json").read_bytes(), type=Partition)
        except FileNotFoundError:
            return None

    def do_with_daemon(self, name: str, action: str, daemon: str) -> None:
        """`kill`, `stop`, `start` or `restart` a daemon of the named host, or its BMC. Raises PvcError."""
        host = self.host(name)
        if daemon == "bmc":
            if host.plan.self_fencing:
                raise DriverError(f"{name} has no BMC, but a watchdog", code="lab.no_daemon")
            if action != "start":
                self.bmc(host).stop()
            if action in ("start", "restart"):
                self.bmc(host).start()
            return
        if action == "kill":
            host.kill_daemon(daemon)
        if action in ("stop", "restart"):
            host.stop_daemon(daemon)
        if action in ("start", "restart"):
            host.start_daemon(daemon)

    def down(self) -> None:
        """End everything and remove it."""
        destroy(self.directory, self.plan.name)

    def _wait_until_serving(self, progress: Progress) -> None:
        deadline = time.monotonic() + SERVING_TIMEOUT_S
        missing = list(self.hosts)
        while missing:
            for host in [host for host in missing if _listens(host.socket)]:
                missing.remove(host)
                progress(f"{host.name} serves ({host.plan.address})")
            for host in missing:
                _check_daemon(host)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"pvcd does not serve on {', '.join(host.name for host in missing)}",
                    code="lab.timeout",
                    hint=f"`pvc lab logs {missing[0].name}` shows what it says" if missing else "",
                )
            time.sleep(_POLL_S)


def create_lab(
    directory: Path = DEFAULT_DIR,
    *,
    nodes: int = 3,
    coordinators: int = 3,
    name: str = DEFAULT_NAME,
    self_fencing: Iterable[str] = (),
) -> Lab:
    """Make the lab's directory with all its hosts' files, and nothing that runs; `Lab.up` does the rest.

    Returns the lab that is there already if it is like that. Raises PvcError when it is not, when one of this name is
    up in another directory, or when the machine lacks something.
    """
    check_machine()
    wanted = make_plan(nodes=nodes, coordinators=coordinators, name=name, self_fencing=self_fencing)
    return _create(directory.resolve(), wanted, may_be_there=True)


def create_new_lab(directory: Path, wanted: LabPlan) -> Lab:
    """The same, for whoever will break it and take it down: one that is there already is somebody else's.

    Of the plan's networks a free one is taken. Raises PvcError also when there is one, whether it is up or not.
    """
    check_machine()
    return _create(directory.resolve(), wanted, may_be_there=False)


def _create(directory: Path, wanted: LabPlan, *, may_be_there: bool) -> Lab:
    if len(str(directory)) > _MAX_DIR:
        raise InvalidInput(
            f"{directory} is too long for the sockets in it", code="lab.path_too_long", hint="use a shorter path"
        )
    _refuse_taken_name(directory, wanted.name)
    _make_directory(directory)
    with locked(directory):
        plan = _stored_plan(directory)
        if plan is not None and not may_be_there:
            raise InvalidInput(
                f"there is a lab in {directory} already: {plan.name}",
                code="lab.exists",
                hint="take it down first if nobody needs it, or choose another --name",
            )
        if plan is None:
            with network.choosing():
                plan = msgspec.structs.replace(wanted, subnet=network.choose_subnet())
                replace_file(directory / "lab.json", msgspec.json.encode(plan))
                network.remove_all(plan.name)
                network.make_bridge(plan)
            _write_files(directory, plan)
        elif msgspec.structs.replace(wanted, subnet=plan.subnet) != plan:
            raise InvalidInput(
                f"the lab in {directory} is another: {plan.sentence}",
                code="lab.another",
                hint="take it down first, or choose another --name",
            )
        elif not (directory / "hosts").exists():
            _write_files(directory, plan)  # it was interrupted here
    return Lab(directory, plan)


def destroy(directory: Path, name: str | None) -> list[str]:
    """End and remove all of a lab, also what a crash left of it; returns what was found. Twice is as good as once.

    Without a `name`, and without a lab in the directory that tells it, only what belongs to the directory goes.
    """
    check_root()
    directory = directory.resolve()
    with locked(directory):
        plan = _stored_plan(directory)
        if plan is None and name is not None:
            _refuse_taken_name(directory, name)
        name = plan.name if plan else name
        found = [f"host {host}" for host in processes.find_inits(directory)]
        found += [f"process {pid} of a BMC or watchdog" for pid in traces.around(directory)]
        # These first: one of them might be about to switch a host on.
        processes.kill_all(lambda: traces.around(directory))
        processes.kill_all(lambda: processes.find_inits(directory).values())
        if name is not None:
            inodes = [netns.stat().st_ino for netns in network.netns_of(name)]
            processes.kill_all(lambda: processes.strangers(inodes))
            found += network.leftovers(name)
            network.remove_all(name)
        found += _remove_directory(directory)
    return found


def _write_files(directory: Path, plan: LabPlan) -> None:
    password = secrets.token_hex(_PASSWORD_BYTES)
    replace_file(directory / "fence-password", f"{password}\n".encode(), mode=0o600)
    LIBVIRT_CACHE.mkdir(parents=True, exist_ok=True)
    for host in plan.hosts:
        home = directory / host.name
        home.mkdir(exist_ok=True)
        if not (home / "cache").exists():
            (home / "cache").symlink_to(LIBVIRT_CACHE)
        write_host_files(home, plan, host, bin_dir=Path(sys.executable).parent, fence_password=password)
    (directory / "shared").mkdir(exist_ok=True)
    replace_file(directory / "hosts", etc_hosts(plan).encode())  # the last one: it says that all are there


def _stored_plan(directory: Path) -> LabPlan | None:
    path = directory / "lab.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=LabPlan)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError as error:
        raise DriverError(
            f"{path} cannot be read: {error}", code="lab.damaged", hint="remove it, then `down`"
        ) from error


def _refuse_taken_name(directory: Path, name: str) -> None:
    """Raises InvalidInput when a lab of this name runs in another directory: the kernel's things are by name."""
    for other in sorted(traces.directories() - {directory}):
        plan = _stored_plan(other)
        if plan is not None and plan.name == name:
            raise InvalidInput(
                f"a lab of the name {name} is up in {other}",
                code="lab.exists",
                hint="take it down first if nobody needs it, or choose another --name",
                field="name",
            )


def _make_directory(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    if _stored_plan(directory) is None and any(directory.iterdir()):
        raise InvalidInput(
            f"{directory} has something in it that is no lab", code="lab.not_a_lab", hint="give an empty directory"
        )


def _remove_directory(directory: Path) -> list[str]:
    if not directory.exists():
        return []
    if _stored_plan(directory) is None and any(directory.iterdir()):
        raise InvalidInput(
            f"{directory} has something in it that is no lab", code="lab.not_a_lab", hint="it was left as it is"
        )
    for mounted in _mounts_below(directory):
        run("umount", "--lazy", mounted)
    # `lab.json` goes last: it says whose directory this is, to the next `down` if this one is interrupted.
    for path in directory.iterdir():
        if path.name != "lab.json":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (directory / "lab.json").unlink(missing_ok=True)
    directory.rmdir()
    return [str(directory)]


def _mounts_below(directory: Path) -> list[str]:
    """What somebody has mounted into the lab's directory: a disk of a host's own. The innermost first."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((place for place in places if place.startswith(f"{directory}/")), reverse=True)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Only one process makes, brings up or takes down this lab at a time. The directory itself is the lock."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                raise Unavailable(f"another process is busy with the lab in {directory}", code="lab.busy")
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(handle)


def _side_by_side(do: Callable[[LabHost], None], hosts: Iterable[LabHost]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(do, hosts))


def _check_daemon(host: LabHost) -> None:
    """Raises DriverError when the host's pvcd dies whenever it is started: to wait on would be in vain."""
    with contextlib.suppress(Unavailable):
        if host.unit("pvcd").starts > _MAX_STARTS:
            said = (host.home / "journal/pvcd.log").read_text(errors="replace").strip().splitlines()
            raise DriverError(
                f"pvcd on {host.name} ends again and again: {said[-1] if said else 'it says nothing'}",
                code="lab.daemon_dies",
                hint=f"`pvc lab logs {host.name}` shows what it says",
            )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
