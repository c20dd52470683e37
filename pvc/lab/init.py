"""The first process of a lab's host: starts its daemons, starts those that die again, reaps orphans, shuts down.

It is process 1 of the host's PID namespace, so its end is the end of everything there. What it runs stands in its
`units.json`; it is asked and told through the host's `init.sock`, one line each way. It uses no asyncio, whose way of
waiting for children does not get on with reaping those of others.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from pvc.lab.host_files import Unit
from pvc.lab.shell import clean_environment

RESTART_S = 1.0
"""Between the death of a daemon and its next start, as systemd would with Restart=always, RestartSec=1."""
_NEEDS_S = 60.0
"""How long a daemon waits for what it needs; then it is started all the same."""
_PROBE_S = 0.2
"""Between two looks for what a daemon needs."""
_CONNECT_S = 0.1
_REQUEST_S = 1.0
_STOP_S = 8.0
"""How long a daemon may take to end in an orderly shutdown."""


class UnitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What init tells of a daemon."""

    name: str
    wanted: bool
    pid: int
    """In the host's own numbers; 0 while it does not run."""
    running_s: float
    starts: int
    """By init; 0 for what is started by pvcd."""
    last_exit: int | None
    """Exit code, or less the signal's number."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to one line."""

    error: str = ""
    units: list[UnitStatus] = []


class Daemon:
    """A unit and how it fares."""

    def __init__(self, unit: Unit, now: float) -> None:
        self.unit = unit
        self.wanted = True
        self.pid = 0
        self.began = 0.0
        self.starts = 0
        self.last_exit: int | None = None
        self.not_before = now
        self.needs_until = now + _NEEDS_S

    def due(self, now: float) -> bool:
        """Whether it is to be started now."""
        if self.pid or not self.wanted or now < self.not_before:
            return False
        if now >= self.needs_until or all(_is_there(need) for need in self.unit.needs):
            return True
        self.not_before = now + _PROBE_S
        return False

    def want(self, wanted: bool, now: float) -> None:
        """From now on it shall run, or not."""
        self.wanted, self.not_before, self.needs_until = wanted, now, now + _NEEDS_S

    def ended(self, status: int, now: float) -> None:
        """It has died."""
        self.pid, self.last_exit = 0, os.waitstatus_to_exitcode(status)
        self.not_before, self.needs_until = now + RESTART_S, now + RESTART_S + _NEEDS_S

    def status(self, now: float) -> UnitStatus:
        """For those who ask."""
        return UnitStatus(
            name=self.unit.name,
            wanted=self.wanted,
            pid=self.pid,
            running_s=round(now - self.began, 1) if self.pid else 0.0,
            starts=self.starts,
            last_exit=self.last_exit,
        )


class Init:
    """The host at work, until it is told to shut down."""

    def __init__(self, home: Path) -> None:
        units = msgspec.json.decode((home / "units.json").read_bytes(), type=list[Unit])
        self._home = home
        self._daemons = {unit.name: Daemon(unit, time.monotonic()) for unit in units}
        self._ending = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Returns when all daemons have ended in good order."""
        self._listen_for_signals()
        door = self._open_door()
        while not self._ending:
            self._reap()
            now = time.monotonic()
            for daemon in self._daemons.values():
                if daemon.due(now):
                    self._start(daemon)
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is door:
                    self._answer(door)
                else:
                    self._drain(key.fd)
        self._shut_down()

    def _listen_for_signals(self) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        self._selector.register(reading, selectors.EVENT_READ)

    def _end(self) -> None:
        self._ending = True

    def _open_door(self) -> socket.socket:
        path = self._home / "init.sock"
        path.unlink(missing_ok=True)
        door = socket.socket(socket.AF_UNIX)
        door.bind(str(path))
        door.listen()
        self._selector.register(door, selectors.EVENT_READ)
        return door

    def _patience(self) -> float | None:
        """How long nothing will be due; None: until something happens."""
        due = [daemon.not_before for daemon in self._daemons.values() if daemon.wanted and not daemon.pid]
        return max(min(due) - time.monotonic(), 0.01) if due else None

    def _start(self, daemon: Daemon) -> None:
        unit = daemon.unit
        log = str(self._home / "journal" / f"{unit.name}.log")
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        now = time.monotonic()
        try:
            daemon.pid = os.posix_spawnp(
                unit.argv[0],
                unit.argv,
                clean_environment([("PYTHONUNBUFFERED", "1")]),
                file_actions=actions,
                setsid=True,
                setsigdef=[signal.SIGPIPE],
            )
        except OSError as error:
            _say(f"{unit.name} cannot be started: {error}")
            daemon.not_before = now + RESTART_S
            return
        daemon.began, daemon.starts = now, daemon.starts + 1
        _say(f"{unit.name} started, process {daemon.pid}")

    def _reap(self) -> None:
        """Bury the dead: our daemons, and whatever lost its parent."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for daemon in self._daemons.values():
                if daemon.pid == pid:
                    daemon.ended(status, time.monotonic())
                    _say(f"{daemon.unit.name} ended with {daemon.last_exit}")

    def _drain(self, wakeups: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(wakeups, 512):
                pass

    def _answer(self, door: socket.socket) -> None:
        caller, _ = door.accept()
        with caller, contextlib.suppress(OSError):  # whoever asks and does not wait is no concern of ours
            caller.settimeout(_REQUEST_S)
            words = caller.recv(512).decode(errors="replace").split()
            self._reap()
            caller.sendall(msgspec.json.encode(self._obey(words)))

    def _obey(self, words: list[str]) -> Reply:
        now = time.monotonic()
        if words and words[0] != "status":
            verb, name = (*words, "")[:2]
            daemon = self._daemons.get(name)
            if daemon is None:
                return Reply(error=f"there is no daemon {name!r} here; there is {', '.join(self._daemons)}")
            _say(f"told to {verb} {name}")
            match verb:
                case "start":
                    daemon.want(True, now)
                case "stop":
                    daemon.want(False, now)
                    _signal(daemon.pid, signal.SIGTERM)
                case "kill":
                    _signal(daemon.pid, signal.SIGKILL)
                case _:
                    return Reply(error=f"init does not know {verb!r}")
        return Reply(units=[daemon.status(now) for daemon in self._daemons.values()])

    def _shut_down(self) -> None:
        """pvcd first, then all at once, guests too; the kernel kills what is left when we end."""
        _say("shutting down")
        for daemon in self._daemons.values():
            daemon.wanted = False
        pvcd = self._daemons.get("pvcd")
        if pvcd is not None:
            _signal(pvcd.pid, signal.SIGTERM)
            self._wait_until_gone(lambda: pvcd.pid == 0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGTERM)
        self._wait_until_gone(_nobody_left)

    def _wait_until_gone(self, gone: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _STOP_S
        while not gone() and time.monotonic() < deadline:
            self._selector.select(_PROBE_S)
            self._reap()


def _nobody_left() -> bool:
    return [entry for entry in os.listdir("/proc") if entry.isdecimal()] == ["1"]  # noqa: PTH208


def _is_there(need: str) -> bool:
    """Whether somebody listens at a socket's path."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(need)
        except OSError:
            return False
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> int:
    """Called with the lab's directory and the host's name, inside the host's namespaces."""
    directory, name = sys.argv[-2:]
    os.chdir("/")
    os.umask(0o022)
    socket.sethostname(name)
    _say(f"{name} boots, boot id {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}")
    Init(Path(directory) / name).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
